"""What the library predicts of a network before any trial: the prior of the surrogate model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.compress.library import Library
from search.compress.options import Options, Replacement
from search.compress.prediction import Setting, damage_of
from search.study.history import Prediction

LEAST_SHARE = 0.05  # of the whole network's latency that a sum of differences, which may be anything, is at least


def library_prior(
    options: Options, library: Library, settings: Sequence[Setting]
) -> Callable[[Mapping[str, Any]], Prediction]:
    """Predictions by the parameters of a network: the sums of :func:`~search.compress.prediction.predict`.

    The sampler asks for hundreds at a time, so all single damages and latencies are looked up here.
    """
    whole, parts = options.parameters([], {}), options.sub_blocks()
    damages = {
        (name, option): damage_of(library, Replacement(block, part, option))
        for name, (block, part) in parts.items()
        for option in options.of_block(part, block)[1:]
    }

    def prior(parameters: Mapping[str, Any]) -> Prediction:
        setting = next(each for each in settings if each.parameters.items() <= parameters.items())
        replaced = [(name, parameters[name]) for name in whole if parameters.get(name, whole[name]) != whole[name]]
        damage = setting.damage + sum(damages[each] for each in replaced)
        added = sum(setting.added_ms[parts[name][1], option] for name, option in replaced)
        return Prediction(damage, max(setting.latency_ms + added, LEAST_SHARE * setting.latency_ms))

    return prior
