"""What may take the place of a sub-block: the values of the dimensions that each block has of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import optuna

from spaces.architecture import Architecture
from spaces.combinations import Pick, combinations, labels_of
from spaces.dimensions import ConfigError
from spaces.per_block import by_block
from spaces.space import Space
from spaces.tree import bounds_of, dimensions_in, draw

Part = Literal["attention", "feed_forward"]
PARTS: tuple[Part, ...] = ("attention", "feed_forward")
FEED_FORWARD = "model.feed_forward"


@dataclass(frozen=True)
class Replacement:
    """A sub-block of one block, replaced by an option: the name of a mechanism, or a share of the hidden features."""

    block: int
    part: Part
    option: Any

    @property
    def name(self) -> str:
        """For files and messages, such as ``2-feed_forward-0.5``."""
        return f"{self.block}-{self.part}-{self.option}"


@dataclass(frozen=True)
class Options:
    """The options of a space with the section ``compression``.

    Args:
        space: its pattern and ``model.feed_forward`` have a dimension per block, or are fixed; the parent has the first
            mechanism. All other dimensions but those of ``train`` are *global*: they apply to the whole network.

    Raises:
        ConfigError: there is no checkpoint, the depth or the settings of a mechanism vary, or a global dimension is
            continuous.
    """

    space: Space

    def __post_init__(self) -> None:
        space = self.space
        if not isinstance(space.model.get("checkpoint"), str):
            raise ConfigError("compression: model.checkpoint must be given, as for spaces.models.pretrained")
        if not isinstance(space.model["depth"], int):
            raise ConfigError("compression: model.depth must be a number; blocks are removed by none and 0")
        for name, node in (("pattern", space.pattern), (FEED_FORWARD, space.model.get("feed_forward", 1.0))):
            if not by_block(node) and list(dimensions_in(node, name)):
                raise ConfigError(f"{name}: with compression it must be fixed or have a dimension per block, by each")
        if varying := [name for name, each in dimensions_in(space.attention, "attention") if len(each.bounds()) > 1]:
            raise ConfigError(
                f"{varying[0]}: with compression the settings of mechanisms are fixed; list the mechanism several times"
                " under names of its own, each with a setting"
            )
        for section in ("input", "model"):
            for name, dimension in dimensions_in(getattr(space, section), section):
                if dimension.values() is None:
                    raise ConfigError(f"{name}: with compression it must be a choice or have a step")

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return int(self.space.model["depth"])

    @cached_property
    def parent(self) -> Architecture:
        """The network that nothing is left out of: the first mechanism, the largest values, floating point."""
        largest = next(self.space.largest())
        model = {name: value for name, value in largest["model"].items() if name != "quantization"}
        given = (self.space.compression or {}).get("parent") or {}
        return {**largest, "model": model, "train": {**largest["train"], **given, "distillation": 0.0}}

    def of_block(self, part: Part, block: int) -> list[Any]:
        """The options of a sub-block, the parent's first."""
        node = self.space.pattern if part == "attention" else self.space.model.get("feed_forward", 1.0)
        found = bounds_of(node[str(block)], part) if by_block(node) else []
        whole = self.whole(part, block)
        return [whole, *dict.fromkeys(each for each in found if each != whole)]

    def whole(self, part: Part, block: int) -> Any:
        """The option that the parent has."""
        return _option(self.parent, part, block)

    def replacements(self) -> Iterator[Replacement]:
        """All options that differ from the parent's."""
        for block in range(self.depth):
            for part in PARTS:
                for option in self.of_block(part, block)[1:]:
                    yield Replacement(block, part, option)

    def replaced(self, replacements: Sequence[Replacement]) -> Architecture:
        """The parent with some sub-blocks replaced."""
        parent = self.parent
        pattern = list(parent["pattern"])
        shares = {str(block): _option(parent, "feed_forward", block) for block in range(self.depth)}
        for each in replacements:
            if each.part == "attention":
                pattern[each.block] = each.option
            else:
                shares[str(each.block)] = each.option
        attention = {name: settings for name, settings in self.space.attention.items() if name in pattern}
        drawn = draw(attention, "attention", lambda dimension, where: dimension.bounds()[0])
        return {**parent, "pattern": pattern, "model": {**parent["model"], "feed_forward": shares}, "attention": drawn}

    def chosen(self, architecture: Mapping[str, Any]) -> list[Replacement]:
        """The replacements in an architecture of the space."""
        every = (Replacement(n, part, _option(architecture, part, n)) for n in range(self.depth) for part in PARTS)
        return [each for each in every if each.option != self.whole(each.part, each.block)]

    def global_parameters(self) -> list[dict[str, Any]]:
        """The parameters, by name, of each combination of the global dimensions."""
        model = {name: node for name, node in self.space.model.items() if name != "feed_forward"}

        def build(pick: Pick) -> None:
            draw(self.space.input, "input", pick)
            draw(model, "model", pick)

        return list(combinations(labels_of(build), lambda dimension: dimension.values() or []))

    def parameters(self, replacements: Sequence[Replacement], given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, by name, of a network with global parameters ``given``; those of ``train`` are left open."""
        chosen = {(each.block, each.part): each.option for each in replacements}
        found = dict(given)
        for name, _ in dimensions_in({"pattern": self.space.pattern, "model": self.space.model}, ""):
            base, _, block = name.removeprefix(".").rpartition(".")
            part = {"pattern": "attention", FEED_FORWARD: "feed_forward"}.get(base)
            if part is not None:
                at = int(block)
                found[name.removeprefix(".")] = chosen.get((at, part), self.whole(part, at))  # type: ignore[arg-type]
        return found

    def architecture(self, parameters: Mapping[str, Any]) -> Architecture:
        """The architecture of these parameters, with the first bounds of the other dimensions."""
        others = [("train", self.space.train), ("attention", self.space.attention)]
        first = {name: each.labels()[0] for where, node in others for name, each in dimensions_in(node, where)}
        trial: Any = optuna.trial.FixedTrial({**first, **parameters})
        return self.space.suggest(trial)


def _option(architecture: Mapping[str, Any], part: Part, block: int) -> Any:
    """The option of a sub-block in an architecture."""
    if part == "attention":
        return architecture["pattern"][block]
    shares = architecture["model"].get("feed_forward", 1.0)
    return shares[str(block)] if isinstance(shares, Mapping) else shares
