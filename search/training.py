"""Training one network: a Lightning fit in a thread of its own, which hands over the metric after each epoch.

The caller iterates; training waits while it decides and ends when it leaves::

    with Training(network, task, settings, seed=0) as training:
        for epoch, metric in training:
            if hopeless(metric):
                break

In its own thread the fit can run at the lowest priority, so that another worker's latency measurement on the same core
is not disturbed; and Ctrl-C reaches the main thread, not the inside of Lightning, which would turn it into an exit.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import lightning
import torch
from torch import Tensor, nn

from search.quiet import yield_to_measurements
from spaces.tasks import Batch, Split, Task, check_whole

JUDGED_AT_ONCE = 4  # batches: without gradients larger ones are faster


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The ``train`` section of an architecture.

    ``epochs`` passes over the training split; ``lr`` the learning rate, which rises linearly over the first ``warmup``
    share of all steps and then stays; ``batch_size`` examples a step, None for as many as the task thinks right;
    ``weight_decay`` as in AdamW; ``clip`` the largest norm of a step's gradient.

    The schedule depends on ``epochs`` alone, never on when a trial is stopped: metrics at equal epochs are comparable.
    """

    epochs: int
    lr: float
    batch_size: int | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_whole(1, epochs=self.epochs)
        if self.batch_size is not None:
            check_whole(1, batch_size=self.batch_size)
        for name, low, high in (("lr", 0.0, 1.0), ("clip", 0.0, float("inf"))):
            if not low < getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r}: it must be above {low:g} and at most {high:g}")
        if not 0.0 <= self.warmup < 1.0:
            raise ValueError(f"warmup={self.warmup!r}: the share of steps must be at least 0 and below 1")
        if self.weight_decay < 0.0:
            raise ValueError(f"weight_decay={self.weight_decay!r}: it must be at least 0")


class Training:
    """A fit in progress, as an iterator over ``(epoch, metric)``; epochs count from 1, the metric is validation's."""

    def __init__(self, network: nn.Module, task: Task, settings: Settings, *, seed: int) -> None:
        self._network, self._task, self._settings, self._seed = network, task, settings, seed
        self._results: queue.Queue[tuple[int, float] | BaseException | None] = queue.Queue()
        self._go_on = threading.Semaphore(0)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._fit, name="training", daemon=True)
        self.cpu_s = 0.0  # CPU-seconds of the fit until the last epoch that was handed over

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[tuple[int, float]]:
        while (result := self._next()) is not None:
            yield result
            self._go_on.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._go_on.release()
        self._thread.join()

    def _next(self) -> tuple[int, float] | None:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _judged(self, epoch: int, metric: float) -> None:
        """Called by the fit after each epoch, in its thread."""
        self.cpu_s = time.thread_time()
        self._results.put((epoch, metric))
        self._go_on.acquire()
        self._check()

    def _check(self) -> None:
        if self._leaving.is_set():
            raise _Left

    def _fit(self) -> None:
        try:
            yield_to_measurements()
            # The generator is the process's: what dropout draws must depend on the trial alone.
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                torch.manual_seed(self._seed)
                warnings.filterwarnings("ignore", module="lightning")
                self._trainer().fit(
                    _Module(self._network, self._task, self._settings),
                    _Epochs(self._task, "train", self._settings.batch_size, shuffle=self._seed),
                    _Epochs(self._task, "validation", JUDGED_AT_ONCE * self._task.batch_size),
                )
            self._results.put(None)
        except _Left:
            pass
        except BaseException as error:  # whatever it is, the waiting main thread must learn of it
            self._results.put(error)

    def _trainer(self) -> lightning.Trainer:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return lightning.Trainer(
            accelerator="cpu",
            callbacks=[_Hooks(self)],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            gradient_clip_val=self._settings.clip,
            logger=False,
            max_epochs=self._settings.epochs,
            num_sanity_val_steps=0,
        )


class _Left(Exception):  # noqa: N818, not an error: the caller needs no more epochs
    pass


class _Hooks(lightning.Callback):
    def __init__(self, training: Training) -> None:
        self._training = training

    def on_train_batch_start(self, *args: Any) -> None:
        self._training._check()

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, _Module)
        self._training._judged(trainer.current_epoch + 1, module.metric)


class _Module(lightning.LightningModule):
    def __init__(self, network: nn.Module, task: Task, settings: Settings) -> None:
        super().__init__()
        self.network, self.task, self.settings = network, task, settings
        self.metric = float("nan")
        self._total, self._count = 0.0, 0

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.task.loss(self.network(batch.inputs, batch.padding), batch.labels)

    def on_validation_epoch_start(self) -> None:
        self._total, self._count = 0.0, 0

    def validation_step(self, batch: Batch, index: int) -> None:
        total, count = self.task.judge(self.network(batch.inputs, batch.padding), batch.labels)
        self._total, self._count = self._total + total, self._count + count

    def on_validation_epoch_end(self) -> None:
        self.metric = self._total / self._count

    def configure_optimizers(self) -> Any:
        settings = self.settings
        # 0.99 rather than 0.999: runs of a few hundred steps are too short for a longer memory.
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(settings.warmup * steps))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Epochs:
    """A split's batches, in another order at each pass if ``shuffle`` is given."""

    def __init__(self, task: Task, split: Split, batch_size: int | None = None, *, shuffle: int | None = None) -> None:
        self._task, self._split, self._shuffle = task, split, shuffle
        self._batch_size = batch_size or task.batch_size
        self._passes = 0

    def __len__(self) -> int:
        return -(-len(self._task.cached(self._split).inputs) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = None if self._shuffle is None else self._shuffle * 10_007 + self._passes
        self._passes += 1
        return self._task.batches(self._split, self._batch_size, shuffle=order)


def judge(network: nn.Module, task: Task, split: Split) -> float:
    """The metric of a network over a split."""
    network.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in task.batches(split, JUDGED_AT_ONCE * task.batch_size):
            part, judged = task.judge(network(batch.inputs, batch.padding), batch.labels)
            total, count = total + part, count + judged
    return total / count
