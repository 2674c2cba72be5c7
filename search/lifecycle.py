"""The next step of a worker: start an architecture, resume a paused trial, or sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from optuna.samplers import BaseSampler

from search.budget.deadline import Deadline
from search.pruning import Pruner
from search.samplers.candidates import Candidate
from search.study.history import History
from search.study.records import Objectives
from search.study.store import TrialStore
from spaces.dimensions import ConfigError


@dataclass(frozen=True)
class Start:
    """Start a trial with these parameters."""

    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Resume:
    """Resume a paused trial."""

    number: int


@dataclass(frozen=True)
class Sample:
    """Start a trial whose parameters the study's sampler samples."""


@dataclass(frozen=True)
class Done:
    """There is nothing to start or to resume."""


Proposal = Start | Resume | Sample | Done
Candidates = Callable[[History], Sequence[Candidate]]


class Proposer(Protocol):
    """Proposes the next step of a study."""

    def propose(self, history: History, *, may_start: bool, repeats: bool) -> Proposal:
        """The next step.

        Args:
            history: all trials so far.
            may_start: whether a new trial may be started; paused ones may be resumed in any case.
            repeats: whether the sampler's last sample was a duplicate.
        """


@runtime_checkable
class Chooser(Protocol):
    """A sampler that chooses between new architectures and paused trials."""

    def choose(self, history: History, fresh: Sequence[Candidate], *, pauses: bool) -> int | Candidate | None:
        """The number of a paused trial or one of the candidates ``fresh``; None if there is neither."""


@dataclass(frozen=True)
class OptunaProposer:
    """The pruner resumes paused trials; new ones are sampled by the study's sampler.

    After a duplicate sample, the next trial starts a random candidate instead.
    """

    pruner: Pruner
    candidates: Candidates

    def propose(self, history: History, *, may_start: bool, repeats: bool) -> Proposal:
        """See :class:`Proposer`."""
        number = self.pruner.resumes(history, last=not may_start)
        if number is None and may_start:
            if not repeats:
                return Sample()
            fresh = self.candidates(history)
            if fresh:
                return Start(fresh[0].parameters)
            number = self.pruner.resumes(history, last=True)  # every architecture has been started
        return Done() if number is None else Resume(number)


@dataclass(frozen=True)
class ChooserProposer:
    """The sampler chooses between candidates and paused trials; at the end the pruner chooses which to resume."""

    sampler: Chooser
    pruner: Pruner
    candidates: Candidates

    def propose(self, history: History, *, may_start: bool, repeats: bool) -> Proposal:
        """See :class:`Proposer`."""
        if may_start:
            choice = self.sampler.choose(history, self.candidates(history), pauses=self.pruner.pauses)
        else:
            choice = self.pruner.resumes(history, last=True)
        if isinstance(choice, Candidate):
            return Start(choice.parameters)
        return Done() if choice is None else Resume(choice)


class QueueProposer:
    """Runs the queued trials only."""

    def propose(self, history: History, *, may_start: bool, repeats: bool) -> Proposal:
        """See :class:`Proposer`."""
        return Done()


def proposer_of(sampler: BaseSampler, pruner: Pruner, candidates: Candidates) -> Proposer:
    """The proposer for ``sampler``."""
    if isinstance(sampler, Chooser):
        return ChooserProposer(sampler, pruner, candidates)
    return OptunaProposer(pruner, candidates)


def check_preference(preferred: Mapping[str, float], costs: Sequence[str], sampler: BaseSampler) -> None:
    """Raise :class:`ConfigError` unless a sampler can search near preferred costs, which must span the front."""
    if preferred and not isinstance(sampler, Chooser):
        raise ConfigError("prefer: only sampler=surrogate searches near preferred costs")
    if others := sorted(set(preferred) - set(costs)):
        raise ConfigError(f"prefer.{others[0]}: it is not among the costs of the front, {', '.join(costs)}")


def queue_next(
    store: TrialStore, proposer: Proposer, objectives: Objectives, deadline: Deadline | None = None, *, may_start: bool
) -> bool:
    """Queue the proposed trial, unless one is queued already or will be sampled; false if nothing is left.

    Paused trials that need more seconds than ``deadline`` leaves are not resumed.
    """
    if may_start and store.waiting():
        return True
    history = store.history(objectives)
    if deadline is not None:
        history.available_s, history.budget_used = deadline.left_s(), deadline.used_share()
    proposal = proposer.propose(history, may_start=may_start, repeats=store.last_is_duplicate())
    if isinstance(proposal, Resume):
        store.resume(proposal.number)
    elif isinstance(proposal, Start):
        store.enqueue(proposal.parameters)
    return not isinstance(proposal, Done)
