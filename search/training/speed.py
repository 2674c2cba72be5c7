"""The time of an epoch, estimated from a few training and validation steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

from search.budget.epochs import middle_epoch_s
from search.training.device import Device
from search.training.evaluation import EVAL_BATCH_FACTOR
from search.training.fit import CPU, LightningFit
from search.training.settings import TrainSettings
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.space import Space
from spaces.tasks import Batch, Split, Task

STEPS = 4  # of a split; the first one is a warm-up and not timed, and the end of the last one may not be seen


def middle_epoch_seconds(
    space: Space,
    task: Task,
    *,
    device: Device = CPU,
    seed: int,
    limit_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> float | None:
    """Estimated seconds of an epoch of a middle architecture; None if no architecture can be trained.

    Args:
        space: its smallest architecture and the largest one of each mechanism are timed.
        task: the data.
        device: of the trainings.
        seed: of the trainings.
        limit_s: after this time no further architecture is timed, except that there are at least two.
        clock: returns seconds.
    """
    start = clock()
    seconds: list[float] = []
    for architecture in [next(space.corners()), *space.largest()]:
        if len(seconds) > 1 and clock() - start > limit_s:
            break
        try:
            seconds.append(epoch_seconds(architecture, task, device=device, seed=seed, clock=clock))
        except Exception:  # its trial fails as well, and reports the error
            continue
    return middle_epoch_s(seconds[0], seconds[1:]) if seconds else None


def epoch_seconds(
    architecture: Architecture,
    task: Task,
    *,
    device: Device = CPU,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Wall-clock seconds of an epoch of training and validation, estimated by fitting for a few steps.

    Args:
        architecture: is built and trained, then forgotten.
        task: the data.
        device: of the training.
        seed: of the training.
        clock: returns seconds.
    """
    settings = TrainSettings(**{**architecture["train"], "epochs": 1})
    network, task = build(dict(architecture), task, seed=seed), task_of(architecture, task)
    few = _FewSteps(task, clock)
    with LightningFit(network, few.task, settings, seed=seed, device=device) as training:
        for _ in training:
            pass
    steps: dict[Split, int] = {
        "train": task.steps("train", settings.batch_size or task.batch_size),
        "validation": task.steps("validation", EVAL_BATCH_FACTOR * task.batch_size),
    }
    return sum(count * few.step_s(split) for split, count in steps.items())


class _FewSteps:
    """A copy of a task with only ``STEPS`` batches in each split, which times how long each is used."""

    def __init__(self, task: Task, clock: Callable[[], float]) -> None:
        self._given, self._clock = task, clock
        self._times: dict[Split, list[float]] = {}
        self.task = copy.copy(task)  # a copy, since settings are checked by the task's class and attributes
        vars(self.task).update(
            steps=lambda split, batch_size: STEPS,
            batches=self._batches,
            compute_objective=lambda outputs: 0.0,  # a metric may need all classes
        )

    def _batches(self, split: Split, batch_size: int, *, shuffle: int | None = None) -> Iterator[Batch]:
        times = self._times[split] = []
        repeated = chain.from_iterable(self._given.batches(split, batch_size, shuffle=shuffle) for _ in range(STEPS))
        for batch in islice(repeated, STEPS):
            times.append(self._clock())
            yield batch

    def step_s(self, split: Split) -> float:
        """The mean seconds of a step."""
        times = self._times[split][1:]
        return (times[-1] - times[0]) / (len(times) - 1)
