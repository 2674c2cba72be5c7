"""The posterior of final losses, costs and seconds: of trials, whatever they were trained, and of unseen architectures.

A Gaussian process (GP) over the settings of architectures learns final losses from all learning curves: a partial curve
is a noisy observation of its final loss (:mod:`search.samplers.curves`), as in freeze-thaw Bayesian optimisation
(Swersky et al. 2014, arXiv:1406.3896). Costs and seconds are predicted by regression on FLOPs with a GP on the
residuals. Where the history has a prior, the GP's mean is linear in the predicted damage, and the regression of latency
is on the predicted latency. What is started, paused and resumed follows from this one posterior; its mathematics are on
one page of ``search/samplers/README.md``.

Limits: O(n^3) time in the number of trials, of which at most ``MAX_TRIALS`` are used, chosen anew for each decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, iter_fronts
from search.samplers.candidates import Candidate
from search.samplers.cost_model import fit_cost, predict_cost
from search.samplers.curves import extrapolate_final_loss
from search.samplers.encoding import Encoder
from search.samplers.gaussian_process import GaussianProcess, fit_hyperparameters, kernel_blocks, rbf_kernel
from search.study.history import History, Prediction
from search.study.records import Objectives, Record

MAX_TRIALS = 300  # that the model is fitted to
PRIOR_STD = 0.25  # of final losses, as a share of the metric's range, counted as PRIOR_TRIALS observations
PRIOR_TRIALS = 4.0
PRIOR_MEAN_TRIALS = 1.0  # observations that the prior mean counts as, which is the middle of the metric's range
OUTLIERS = 2.0  # final losses are clipped at the median plus so many times the distance from the best to it
BOUND_TRIALS = 32  # from which the standard deviations are bounded
REFIT_COSTS = 8  # hyperparameters of costs are fitted again when so many more trials have costs


class Posterior:
    """The posterior of some trials of a study and of unseen architectures.

    Args:
        history: the study.
        rows: of the trials.
        unseen: architectures without a trial; a record counts as one that was never trained.
        forget: a row of which everything observed is ignored.

    Attributes:
        mean: ``(rows + unseen,)`` of final losses, which are taken as normally distributed.
        std_bound: ``(rows + unseen,)``: upper bounds of :meth:`std`, which takes longer.
        costs: ``(rows + unseen, costs)``.
        seconds: ``(rows + unseen,)``: of the remaining training.
    """

    def __init__(
        self,
        history: History,
        rows: NDArray[np.intp],
        unseen: Sequence[Candidate | Record] = (),
        *,
        forget: int | None = None,
    ) -> None:
        trainable = trainable_rows(history)
        self._trainable = trainable if forget is None else trainable[trainable != forget]
        self._history, self._train = history, training_rows(history, self._trainable)
        known, records = np.concatenate([self._train, rows]), history.records()
        encoder = history.derived("settings", 0, Encoder)
        self._described = [*(records[row] for row in known), *unseen]
        encoded = encoder.encode(self._described)
        self._features, self._owners, self._count = encoded[:3]
        self._size = np.log(np.nan_to_num(encoded.flops, nan=1.0))
        most = history.losses.shape[1]
        self._epochs = np.nan_to_num(encoded.epochs, nan=most)[len(known) :]
        self._fit(rows)
        self.costs = np.vstack([history.costs[rows], self._unseen_costs(unseen)])
        self.seconds = np.concatenate([history.seconds_left[rows], self._unseen_seconds(unseen)])

    def std(self, some: NDArray[np.intp] | None = None) -> Floats:
        """Standard deviations ``(some,)`` of final losses, of positions in ``rows + unseen``, or of all."""
        n, known = len(self._train), len(self._known_cov)
        some = np.arange(len(self.mean)) if some is None else some
        variance = np.empty(len(some))
        at = some < known
        variance[at] = self._gp.variance(self._known_cov[some[at]])
        blocks = kernel_blocks(self._features[n:][some[~at]], self._features[:n], self._scales)
        variance[~at] = np.concatenate([np.empty(0), *map(self._gp.variance, blocks)])
        return self._scale * np.sqrt(variance)

    def _fit(self, rows: NDArray[np.intp]) -> None:
        """Fit the process to final losses; sets ``mean`` and ``std_bound``."""
        history, train, features = self._history, self._train, self._features
        n, known, complete = len(train), len(train) + len(rows), history.complete[train]
        left_out = history.finals[self._trainable[~np.isin(self._trainable, train)]]
        left_out = left_out[np.isfinite(left_out)]  # of complete trials: the prior is that of all
        finals, others = clip_outliers(history.finals[train[complete]], left_out)
        trend = linear_mean(self._damages, np.flatnonzero(complete), finals)
        finals = finals - trend[:n][complete]
        middle, scale = standardization(np.append(finals, others), history.objectives)
        lengthscales, nugget = history.derived(
            f"loss over {self._count} settings",
            int(np.count_nonzero(history.complete)),
            lambda: fit_hyperparameters(features[:n][complete], self._owners, self._count, (finals - middle) / scale),
        )
        self._scales = lengthscales[self._owners]
        kernel = rbf_kernel(features[:known], features[:n], self._scales)
        similarity = np.zeros((n, len(history)))
        similarity[:, train[complete]] = kernel[:n, complete]
        y, y_std = extrapolate_final_loss(history, train, similarity)
        y, others = clip_outliers(y, left_out)
        y = y - trend[:n]
        middle, self._scale = standardization(np.append(y, others), history.objectives)
        self._gp = GaussianProcess(kernel[:n], (y - middle) / self._scale, (y_std / self._scale) ** 2, nugget)
        # An observation of a trial also tells what its settings do not explain: the nugget is shared with itself alone.
        self._known_cov = kernel[n:] + nugget * (rows[:, None] == train)
        means, bounds = [], []
        for block in chain([self._known_cov], kernel_blocks(features[known:], features[:n], self._scales)):
            means.append(self._gp.mean(block))
            bounds.append(self._gp.variance(block, first=BOUND_TRIALS))
        self.mean = trend[n:] + middle + self._scale * np.concatenate(means)
        self.std_bound = self._scale * np.sqrt(np.concatenate(bounds))

    @cached_property
    def _predictions(self) -> Sequence[Prediction]:
        """Of all that is described; empty without a prior."""
        prior = self._history.prior
        return [] if prior is None else [prior(each.parameters) for each in self._described]

    @property
    def _damages(self) -> Floats:
        """``(all,)``: predicted; zeros without a prior. On a scale on which large ones count less: see the README."""
        return np.sqrt([each.damage for each in self._predictions] or np.zeros(len(self._described)))

    def _unseen_costs(self, unseen: Sequence[Candidate | Record]) -> Floats:
        """``(unseen, costs)``: as counted, or predicted where they must be measured."""
        history, costs = self._history, np.empty((len(unseen), len(self._history.objectives.costs)))
        for k, name in enumerate(history.objectives.costs):
            if all(name in each.costs for each in unseen):
                costs[:, k] = [each.costs[name] for each in unseen]
            else:
                costs[:, k] = np.exp(self._predict_from_size(np.log(history.costs[self._train, k]), name))[
                    -len(unseen) :
                ]
        return costs

    def _unseen_seconds(self, unseen: Sequence[Candidate | Record]) -> Floats:
        """``(unseen,)``: seconds of a whole training: at a trial's own speed, or predicted."""
        history, last = self._history, self._epochs
        if all(isinstance(each, Record) for each in unseen):
            own = [history.row(each.number) for each in unseen if isinstance(each, Record)]
            return np.asarray(history.seconds[own] / np.maximum(history.epochs[own], 1) * last)
        with np.errstate(divide="ignore"):
            log_epoch_s = np.log(history.seconds[self._train] / np.maximum(history.epochs[self._train], 1))
        return np.asarray(np.exp(self._predict_from_size(log_epoch_s, "seconds")[-len(unseen) :]) * last)

    def _predict_from_size(self, log_y: Floats, name: str) -> Floats:
        """``(all,)``: a quantity on a log scale, see :mod:`search.samplers.cost_model`.

        ``log_y`` ``(train,)`` are observed logarithms.
        """
        size = self._size
        if name == "latency_ms" and self._predictions:
            size = np.log([each.latency_ms for each in self._predictions])
        order = np.argsort(self._train)
        count = len(self._trainable) - len(self._trainable) % REFIT_COSTS
        first = order[self._train[order] <= np.sort(self._trainable)[count - 1]] if count else order[:0]
        fitted = self._history.derived(
            f"{name} over {self._count} settings",
            count,
            lambda: fit_cost(self._features, self._owners, self._count, size, log_y, first),
        )
        return predict_cost(self._features, self._owners, size, log_y, fitted)


def trainable_rows(history: History) -> NDArray[np.intp]:
    """Rows that a model can be fitted to: those with a finite metric and known costs, the longest trained first."""
    last = _last_losses(history)
    rows = np.flatnonzero((history.epochs > 0) & np.isfinite(last) & np.isfinite(history.costs).all(axis=1))
    return rows[np.argsort(-history.epochs[rows], kind="stable")]


def training_rows(history: History, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of ``rows`` that the model is fitted to, in the same order: all, or ``MAX_TRIALS`` of more.

    Half of these are the first ones in non-dominated sorting by loss and costs, among which the next trials are
    searched for; the others are spread evenly over the rest, so that the model knows what is worse, too.
    """
    if len(rows) <= MAX_TRIALS:
        return rows
    points = np.column_stack([_last_losses(history)[rows], history.costs[rows]])
    chosen = np.zeros(len(rows), dtype=np.bool_)
    for front in iter_fronts(points):
        chosen[front[: MAX_TRIALS // 2 - np.count_nonzero(chosen)]] = True
        if np.count_nonzero(chosen) == MAX_TRIALS // 2:
            break
    rest = np.flatnonzero(~chosen)
    chosen[rest[np.linspace(0, len(rest) - 1, MAX_TRIALS - np.count_nonzero(chosen)).round().astype(np.intp)]] = True
    return rows[chosen]


def _last_losses(history: History) -> Floats:
    return history.losses[np.arange(len(history)), np.maximum(history.epochs, 1) - 1]


def linear_mean(predicted: Floats, rows: NDArray[np.intp], y: Floats) -> Floats:
    """A linear function ``(all,)`` of what is predicted, which is 0 on average over ``rows``.

    Its slope is that of least squares on the observations ``y`` ``(rows,)``, with one more for a slope of 0, and not
    below 0: ``S_py / S_pp * n / (n + 1)``. Without observations it is 0.
    """
    n = len(rows)
    if not n:
        return np.zeros_like(predicted)
    centred = predicted - predicted[rows].mean()
    squares = float((centred[rows] ** 2).sum())
    slope = float(centred[rows] @ (y - y.mean())) / squares if squares > 0 else 0.0
    return np.asarray(max(slope, 0.0) * n / (n + 1) * centred)


def clip_outliers(y: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Final losses without the far worse ones, such as of failed trainings: where exactly they are tells nothing.

    All are clipped at their median plus ``OUTLIERS`` times the distance from the best to it.
    """
    together = np.append(y, others)
    if not len(together):
        return y, others
    middle = float(np.median(together))
    highest = middle + OUTLIERS * max(middle - float(together.min()), 1e-12)
    return np.minimum(y, highest), np.minimum(others, highest)


def standardization(y: Floats, objectives: Objectives) -> tuple[float, float]:
    """Mean and standard deviation of final losses, of which few are known: those of a normal-inverse-gamma posterior.

    The prior counts as one observation of the mean, in the middle of the metric's range, and ``PRIOR_TRIALS`` of the
    standard deviation, ``PRIOR_STD`` of that range.
    """
    chance, best = objectives.loss(objectives.chance), objectives.loss(objectives.best)
    mean = (y.sum() + PRIOR_MEAN_TRIALS * (chance + best) / 2) / (len(y) + PRIOR_MEAN_TRIALS)
    prior = PRIOR_TRIALS * (PRIOR_STD * abs(chance - best)) ** 2
    return float(mean), float(np.sqrt((prior + ((y - mean) ** 2).sum()) / (PRIOR_TRIALS + len(y))))
