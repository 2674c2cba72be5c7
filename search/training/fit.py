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
import os
import queue
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lightning
import torch
from torch import Tensor, nn

from search.costs.exclusive import yield_to_measurements
from search.training.settings import Settings
from spaces.tasks import Batch, Split, Task

JUDGED_AT_ONCE = 4  # batches: without gradients larger ones are faster


class Training:
    """A fit in progress, as an iterator over ``(epoch, metric)``; epochs count from 1, the metric is validation's.

    Args:
        network: is trained in place.
        task: data, loss and metric.
        settings: of the whole training, also of one that goes on.
        seed: of the order of the examples and of what the network draws; each epoch has its own.
        checkpoint: what :meth:`save` wrote, to go on from there as if nothing had happened.
    """

    def __init__(
        self, network: nn.Module, task: Task, settings: Settings, *, seed: int, checkpoint: Path | None = None
    ) -> None:
        self._task, self._settings, self._seed = task, settings, seed
        saved = None if checkpoint is None else torch.load(checkpoint, weights_only=True)
        self._done: int = saved["epoch"] if saved else 0
        if saved:
            network.load_state_dict(saved["network"])
        self._module = _Module(network, task, settings, seed=seed, done=self._done, saved=saved and saved["optimizer"])
        self._results: queue.Queue[tuple[int, float] | BaseException | None] = queue.Queue()
        self._go_on = threading.Semaphore(0)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._fit, name="training", daemon=True)
        self.cpu_s = 0.0  # CPU-seconds of the fit until the last epoch that was handed over
        self.model_s = 0.0  # those of them in steps and judgements: not in batches, hooks and bookkeeping

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

    def save(self, path: Path) -> None:
        """Write all that is needed to go on after the epoch that was handed over last; only while the fit waits."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "epoch": self._done,
            "network": self._module.network.state_dict(),
            "optimizer": self._module.trainer.optimizers[0].state_dict(),
        }
        unfinished = path.with_suffix(f".{os.getpid()}")
        torch.save(state, unfinished)
        unfinished.replace(path)  # at once: who reads it never sees half a file

    def _next(self) -> tuple[int, float] | None:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _judged(self, epoch: int, metric: float) -> None:
        """Called by the fit after each epoch, in its thread."""
        self.cpu_s, self._done = time.thread_time(), epoch
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
                warnings.filterwarnings("ignore", module="lightning")
                self._trainer().fit(
                    self._module,
                    _Epochs(self._task, "train", self._settings.batch_size, shuffle=self._seed, passes=self._done),
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
            max_epochs=self._settings.epochs - self._done,
            num_sanity_val_steps=0,
        )


class _Left(Exception):  # noqa: N818, not an error: the caller needs no more epochs
    pass


class _Hooks(lightning.Callback):
    def __init__(self, training: Training) -> None:
        self._training = training
        self._began = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._training._check()
        self._began = time.thread_time()

    def on_train_batch_end(self, *args: Any) -> None:
        self._training.model_s += time.thread_time() - self._began

    def on_validation_batch_start(self, *args: Any) -> None:
        self._began = time.thread_time()

    def on_validation_batch_end(self, *args: Any) -> None:
        self._training.model_s += time.thread_time() - self._began

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, _Module)
        self._training._judged(module.done + trainer.current_epoch + 1, module.metric)


class _Module(lightning.LightningModule):
    """A training of ``settings.epochs`` of which ``done`` are behind it, with the optimizer's state ``saved`` then."""

    def __init__(
        self, network: nn.Module, task: Task, settings: Settings, *, seed: int, done: int, saved: dict[str, Any] | None
    ) -> None:
        super().__init__()
        self.network, self.task, self.settings = network, task, settings
        self.seed, self.done, self.saved = seed, done, saved
        self.metric = float("nan")
        self._judged: list[Any] = []

    def on_train_epoch_start(self) -> None:
        # Anew for each epoch, so that one that goes on draws what an uninterrupted one would have drawn.
        torch.manual_seed(self.seed * 10_007 + self.done + self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self.task.loss(self.network(batch), batch)

    def on_validation_epoch_start(self) -> None:
        self._judged = []

    def validation_step(self, batch: Batch, index: int) -> None:
        self._judged.append(self.task.eval_step(self.network, batch))

    def on_validation_epoch_end(self) -> None:
        self.metric = self.task.compute_metrics(self._judged)[self.task.metric]

    def configure_optimizers(self) -> Any:
        settings = self.settings
        # 0.99 rather than 0.999: runs of a few hundred steps are too short for a longer memory.
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay, fused=True
        )
        if self.saved is not None:
            optimizer.load_state_dict(self.saved)
        steps = int(self.trainer.estimated_stepping_batches) // (settings.epochs - self.done)
        warmup = max(1, round(settings.warmup * steps * settings.epochs))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup), last_epoch=self.done * steps - 1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Epochs:
    """A split's batches, in another order at each pass if ``shuffle`` is given; ``passes`` are behind it."""

    def __init__(
        self,
        task: Task,
        split: Split,
        batch_size: int | None = None,
        *,
        shuffle: int | None = None,
        passes: int = 0,
    ) -> None:
        self._task, self._split, self._shuffle = task, split, shuffle
        self._batch_size = batch_size or task.batch_size
        self._passes = passes

    def __len__(self) -> int:
        return self._task.steps(self._split, self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = None if self._shuffle is None else self._shuffle * 10_007 + self._passes
        self._passes += 1
        return self._task.batches(self._split, self._batch_size, shuffle=order)


def evaluate_split(network: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """The metrics of a network over a split, by name."""
    network.eval()
    with torch.inference_mode():
        return task.compute_metrics(
            [task.eval_step(network, batch) for batch in task.batches(split, JUDGED_AT_ONCE * task.batch_size)]
        )
