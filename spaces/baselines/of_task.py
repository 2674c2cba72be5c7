"""The baselines of a task, and their results. Apart from the contract, as this imports every family."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from spaces.baselines import Baseline, BaselineResult
from spaces.baselines.majority import Majority
from spaces.baselines.per_task import BestOfEachTask
from spaces.baselines.svm import Svm
from spaces.baselines.tfidf import TfidfLogisticRegression
from spaces.tasks import Task

log = logging.getLogger(__name__)


def evaluate_baselines(task: Task) -> list[BaselineResult]:
    """The results of all baselines of a task. One that fails is left out with a warning."""
    results = []
    for baseline in baselines_of(task):
        try:
            results.append(BaselineResult.of(baseline, task))
        except Exception as error:
            log.warning("baseline %s failed: %s: %s", baseline.name, type(error).__name__, error)
    return results


def baselines_of(task: Task) -> Sequence[Baseline]:
    """The task's own baselines, or those that suit its spec: the majority class, and what learns whole sequences."""
    own = task.baselines()
    if own is not None:
        return [baseline for baseline in own if isinstance(baseline, Baseline)]
    spec = task.spec
    if spec.subtasks:
        candidates = {name: baselines_of(each) for name, each in task.subtasks.items()}
        return (BestOfEachTask(candidates),) if all(candidates.values()) else ()
    if spec.answer_length is not None:
        return ()
    if spec.per_token:
        return (Majority(),)
    if spec.features is None:
        return (Majority(), Svm("values") if spec.ordinal else TfidfLogisticRegression())
    return (Majority(), Svm("values"), Svm("statistics"))
