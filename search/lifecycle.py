"""What a worker does next: go on with a paused trial, begin a certain architecture, or let the sampler draw one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from optuna.samplers import BaseSampler

from search.pruning import Pruner
from search.samplers.candidates import Candidate
from search.samplers.surrogate import SurrogateSampler
from search.study.history import History


def plan(
    sampler: BaseSampler,
    pruner: Pruner,
    history: History,
    unseen: Callable[[], Sequence[Candidate]],
    *,
    enough: bool,
    repeated: bool,
) -> int | Candidate | Literal["draw"] | None:
    """The number of a paused trial, an architecture to begin, "draw" to ask the sampler, or None: nothing is left.

    Args:
        sampler: the study's.
        pruner: the study's.
        history: what is known of all trials.
        unseen: architectures that nobody has begun; none when there are no more.
        enough: no new architecture may be begun: the study has as many as it should.
        repeated: what the sampler drew last had been drawn before.
    """
    chooses = isinstance(sampler, SurrogateSampler)
    number = pruner.resumes(history, last=enough) if enough or not chooses else None
    if number is not None or enough:
        return number
    if not chooses and not repeated:
        return "draw"
    fresh = unseen()
    if isinstance(sampler, SurrogateSampler):
        return sampler.choose(history, fresh, pauses=pruner.pauses)
    # It would draw the same again: one at random, or the paused ones if all were begun.
    return fresh[0] if fresh else pruner.resumes(history, last=True)
