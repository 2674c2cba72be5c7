"""Bayesian optimisation by expected hypervolume improvement (EHVI) per second: what to train next.

Unseen architectures and paused trials compete by the EHVI of their posterior (:mod:`search.samplers.posterior`) per
second of their remaining training (EI per second: Snoek et al. 2012, arXiv:1206.2944, section 3.2). In a run with a
time budget the weight of the seconds falls to nothing as the budget is used up, so that large architectures are not
left out (EI-cool: Lee et al. 2020, arXiv:2003.10870, section 3.2), and what cannot finish in time is not chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import RandomSampler

from search.acquisition import STD_SCALE, BoxDecomposition
from search.pareto import Floats
from search.samplers.candidates import Candidate
from search.samplers.posterior import Posterior
from search.study.history import History
from search.study.records import Objectives, Record
from spaces.dimensions import check_whole

MIN_COMPLETE = 4  # complete trials before the model is used; until then candidates are taken in random order
LEAST_WEIGHT = 0.01  # of a gain far from the preferred costs
TOO_LONG = 1e-6  # factor on the value of what takes longer than the time left
EVALUATED = 64  # candidates at a time
ROUNDING = 1e-9  # relative, of bounds


class SurrogateSampler(RandomSampler):
    """Chooses the next trial by EHVI per second; parameters that Optuna asks it for are drawn at random.

    Args:
        candidates: how many unseen architectures are evaluated for each choice.
        seed: of random draws.
    """

    def __init__(self, *, candidates: int, seed: int | None = None) -> None:
        check_whole(1, candidates=candidates)
        super().__init__(seed=seed)
        self.candidates = candidates

    def choose(self, history: History, unseen: Sequence[Candidate], *, pauses: bool) -> int | Candidate | None:
        """The number of a paused trial to resume, or one of ``unseen`` to start; None if there are neither.

        ``pauses`` says whether paused trials may be resumed.
        """
        paused = np.flatnonzero(history.paused) if pauses else np.empty(0, dtype=np.intp)
        if not len(unseen) + len(paused):
            return None
        if np.count_nonzero(history.complete) < MIN_COMPLETE and unseen:
            return unseen[0]
        best = most_per_second(history, paused, unseen)
        return int(history.numbers[paused[best]]) if best < len(paused) else unseen[best - len(paused)]


def ehvi_per_second(
    history: History, rows: NDArray[np.intp], unseen: Sequence[Candidate | Record] = (), *, forget: int | None = None
) -> Floats:
    """EHVI ``(rows + unseen,)`` per second of remaining training, of trials of ``history`` and unseen architectures.

    The arguments are those of :class:`~search.samplers.posterior.Posterior`. The seconds are raised to the power
    ``1 - history.budget_used``; :func:`preference` weighs the result.
    """
    posterior = Posterior(history, rows, unseen, forget=forget)
    boxes = BoxDecomposition(history)
    gains = boxes.expected_hypervolume_improvement(posterior.costs, posterior.mean, STD_SCALE * posterior.std())
    return gains * _value_of_gains(posterior, history)


def most_per_second(history: History, rows: NDArray[np.intp], unseen: Sequence[Candidate | Record]) -> int:
    """The position of the highest :func:`ehvi_per_second`, the first one of equals.

    Only the candidates are evaluated whose upper bound is not below what others have.
    """
    posterior, boxes = Posterior(history, rows, unseen), BoxDecomposition(history)
    costs, mean, weights = posterior.costs, posterior.mean, _value_of_gains(posterior, history)
    bounds = (1 + ROUNDING) * weights * boxes.upper_bound(costs, mean, STD_SCALE * posterior.std_bound)
    order = np.argsort(-bounds)
    values = np.full(len(bounds), -np.inf)
    for start in range(0, len(order), EVALUATED):
        some = order[start : start + EVALUATED]
        if bounds[some[0]] < values.max():
            break
        std = STD_SCALE * posterior.std(some)
        values[some] = weights[some] * boxes.expected_hypervolume_improvement(costs[some], mean[some], std)
    return int(np.argmax(values))


def _value_of_gains(posterior: Posterior, history: History) -> Floats:
    """Factors ``(n,)`` from EHVI to the value by which trials are chosen, see :func:`ehvi_per_second`."""
    factors = preference(posterior.costs, history.objectives)
    factors /= np.maximum(posterior.seconds, 1e-9) ** (1 - history.budget_used)
    return np.asarray(np.where(posterior.seconds <= history.available_s, factors, factors * TOO_LONG))


def preference(costs: Floats, objectives: Objectives) -> Floats:
    """Weights ``(n,)`` of the gains at ``costs`` ``(n, costs)``: 1 if each is as preferred, 0.61 at half or twice it.

    A Gaussian of the binary logarithm, and at least ``LEAST_WEIGHT``, so that the rest of the front is not forgotten.
    """
    weights = np.ones(len(costs))
    for k, name in enumerate(objectives.costs):
        if name in objectives.preferred:
            weights *= np.exp(-0.5 * np.log2(np.maximum(costs[:, k], 1e-12) / objectives.preferred[name]) ** 2)
    return np.maximum(weights, LEAST_WEIGHT)
