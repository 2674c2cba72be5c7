"""Trials trained with Lightning, their checkpoints in a folder that all workers of a study see."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from search.study.records import Record
from search.training import Epoch, Parent, Training, fit
from search.training.checkpoint import Checkpoint
from search.training.device import Device
from search.training.evaluation import evaluate_split, program_of
from search.training.known import known_training, parent_training
from search.training.remote import RemoteFile
from search.training.settings import TrainSettings
from search.training.weights import WeightsFolder
from spaces.build import build, task_of
from spaces.tasks import Split, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LightningLearner:
    """Builds and trains networks.

    Args:
        task: data, loss and metric.
        seed: of weights, of the order of examples and of dropout.
        folder: of the weights of complete trials, and of the checkpoints.
        device: where and in which precision networks are trained.
        is_over: called before each batch; if true, the training ends without the epoch in progress.
        keeps_weights: whether the weights of complete trials are written.
        checkpoints: fsspec URL of their folder; None: they are in ``folder``.
        parent: that networks start from; None: they start from weights of their own.
    """

    task: Task
    seed: int
    folder: Path
    device: Device = fit.CPU
    is_over: Callable[[], bool] = lambda: False
    keeps_weights: bool = True
    checkpoints: str | None = None
    parent: Parent | None = None

    def checkpoint(self, record: Record) -> Checkpoint:
        """The checkpoint of a trial."""
        return Checkpoint(self._file(record.number), dict(record.architecture))

    def _file(self, number: int) -> Path | RemoteFile:
        name = f"{number}.pt"
        return self.folder / name if self.checkpoints is None else RemoteFile(f"{self.checkpoints}/{name}")

    @property
    def weights(self) -> WeightsFolder:
        """Where the weights of complete trials are kept."""
        return WeightsFolder(self.folder / "weights")

    def saved_epochs(self, record: Record) -> int:
        """See :class:`~search.training.Learner`; 0 where the checkpoint is lost or on another host."""
        return self.checkpoint(record).epochs()

    def discard(self, number: int) -> None:
        """See :class:`~search.training.Learner`."""
        Checkpoint(self._file(number), {}).discard()

    def train(self, record: Record, *, resume: bool, trained: Record | None = None) -> AbstractContextManager[Training]:
        """See :class:`~search.training.Learner`."""
        parent = None if resume else self.parent
        if parent is not None and (known := parent_training(self.task, record, parent, self.keep, alike=trained)):
            return nullcontext(known)
        if trained is not None and (known := known_training(self.task, record, trained, self.device, self.keep)):
            return nullcontext(known)
        return LightningTraining(self, record, self.checkpoint(record), resume=resume)

    def keep(self, number: int, weights: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> str:
        """See :meth:`~search.training.Training.save_weights`."""
        if not self.keeps_weights:
            return ""
        try:
            return self.weights.write(number, weights, architecture)
        except OSError as error:  # such as a full disk: the trial's result counts without them
            log.warning("the weights of trial %d cannot be written: %s", number, error)
            return ""


class LightningTraining:
    """A :class:`~search.training.Training`."""

    def __init__(self, learner: LightningLearner, record: Record, checkpoint: Checkpoint, *, resume: bool) -> None:
        self._learner, self._number, self._architecture = learner, record.number, record.architecture
        self._checkpoint = checkpoint
        self._before_s = record.cpu_seconds[-1] if record.cpu_seconds else 0.0
        settings = TrainSettings(**record.architecture["train"])
        self.epochs = settings.epochs
        self._task = task = task_of(record.architecture, learner.task)
        network = build(dict(record.architecture), learner.task, seed=learner.seed)
        if learner.parent is not None and not resume:
            learner.parent.load_into(network, record.architecture)
        self._fit = fit.LightningFit(
            network,
            task,
            settings,
            seed=learner.seed,
            device=learner.device,
            checkpoint=checkpoint.content() if resume else None,
            is_over=learner.is_over,
            teacher=None if learner.parent is None else learner.parent.logits,
            parent=None if learner.parent is None else learner.parent.network,
        )

    @property
    def overhead(self) -> float:
        """Share of the CPU time outside forward, backward and optimizer steps."""
        return 1 - self._fit.model_s / self._fit.cpu_s if self._fit.cpu_s else 0.0

    @property
    def metric(self) -> float:
        """See :class:`~search.training.Training`."""
        return self._fit.metric if self._program is None else self.evaluate("validation")[self._task.metric]

    def __enter__(self) -> Self:
        self._fit.__enter__()
        return self

    def __iter__(self) -> Iterator[Epoch]:
        for epoch, metric in self._fit:
            yield Epoch(epoch, metric, round(self._before_s + self._fit.cpu_s, 4))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._fit.__exit__(kind, error, traceback)

    def save(self, *, if_due: bool = False) -> None:
        """See :class:`~search.training.Training`."""
        if not if_due or self._checkpoint.is_due():
            self._checkpoint.write(self._fit.state_dict())

    def save_weights(self) -> str:
        """See :class:`~search.training.Training`."""
        return self._learner.keep(self._number, self._fit.weights(), self._architecture)

    def evaluate(self, split: Split) -> dict[str, float]:
        """See :class:`~search.training.Training`."""
        if self._program is None:
            return self._fit.evaluate(split)
        return evaluate_split(self._program, self._task, split)

    @cached_property
    def _program(self) -> nn.Module | None:
        """What predicts, where it is not the network; written at the end of the training, as it takes seconds."""
        return program_of(self._fit.weights(), dict(self._architecture), self._learner.task)
