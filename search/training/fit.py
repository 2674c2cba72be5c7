"""Training of one network: a Lightning fit in its own thread, as an iterator over the epochs' metrics.

Training waits while the caller decides, and ends when the caller leaves the context::

    with LightningFit(network, task, settings, seed=0) as training:
        for epoch, metric in training:
            ...

Between two batches it also waits while another worker of the host measures a latency. Ctrl-C is raised in the main
thread, not inside Lightning, which would exit the process.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lightning
import torch
from torch import Tensor, nn

from search.costs.exclusive import WaitWhileMeasuring
from search.training.best import BestEpoch
from search.training.check import check_settings
from search.training.device import Device
from search.training.evaluation import EVAL_BATCH_FACTOR, checked, evaluate_split
from search.training.module import EpochLoader, TrainingModule
from search.training.settings import TrainSettings
from spaces.tasks import Split, Task

CPU = Device()


class LightningFit:
    """Iterator over ``(epoch, metric)`` of a fit in progress; epochs count from 1, metrics are of the validation split.

    Args:
        network: trained in place.
        task: data, loss and metric.
        settings: of the whole training, also when it is resumed.
        seed: of data order and dropout; each epoch derives its own.
        device: where and in which precision the network is trained.
        checkpoint: the file of a :meth:`state_dict`, saved by PyTorch; training resumes exactly where it was saved.
        is_over: called before each batch; if true, the iterator ends without the epoch in progress.
        teacher: predictions to learn from, see :class:`~search.training.loss.TrainingLoss`.
        parent: what a compressed network imitates, see :class:`~search.training.imitation.Imitation`.

    Attributes:
        cut: whether ``is_over`` has ended the training.

    Raises:
        ValueError: the task does not support the settings.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        settings: TrainSettings,
        *,
        seed: int,
        device: Device = CPU,
        checkpoint: Path | io.BytesIO | None = None,
        is_over: Callable[[], bool] = lambda: False,
        teacher: Tensor | None = None,
        parent: nn.Module | None = None,
    ) -> None:
        self._is_over, self.cut = is_over, False
        check_settings(settings, task)
        self._task, self._settings, self._seed, self._device = task, settings, seed, device
        # To the CPU first: the checkpoint may be from another device.
        saved = None if checkpoint is None else torch.load(checkpoint, weights_only=True, map_location="cpu")
        self._epochs_done: int = saved["epoch"] if saved else 0
        if saved:
            network.load_state_dict(saved["network"])
        self._module = TrainingModule(
            network,
            task,
            settings,
            seed=seed,
            epochs_done=self._epochs_done,
            optimizer_state=saved and saved["optimizer"],
            fused=device.precision == "32-true",
            teacher=teacher,
            parent=parent,
        )
        self._scaler_state: dict[str, Any] = saved.get("scaler", {}) if saved else {}
        if saved and self._module.average is not None:
            self._module.evaluated.load_state_dict(saved["average"])
        self._metric = float("nan")  # after the last epoch yielded
        self._best = BestEpoch(task.direction, saved and saved.get("best")) if settings.keep_best else None
        self._results: queue.Queue[tuple[int, float] | BaseException | None] = queue.Queue()
        self._resume = threading.Semaphore(0)
        self._stop_requested = threading.Event()
        self._wait_while_measuring: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._fit, name="training", daemon=True)
        # A GPU computes while the thread waits, so CPU time would not be the time of training.
        self._clock = time.thread_time if device.accelerator == "cpu" else time.perf_counter
        self._idle_s = 0.0  # by the clock, before the fit began and while it waited for the caller
        self.cpu_s = 0.0  # CPU-seconds, on a GPU seconds, of the fit until the end of the last epoch yielded
        self.model_s = 0.0  # of these, in training and validation steps: without data loading and Lightning itself

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[tuple[int, float]]:
        while (result := self._next()) is not None:
            yield result
            self._resume.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop_requested.set()
        self._resume.release()
        self._thread.join()

    def state_dict(self) -> dict[str, Any]:
        """The state after the last epoch yielded; only while the fit waits."""
        return {
            "epoch": self._epochs_done,
            "network": self._module.network.state_dict(),
            "average": None if self._module.average is None else self._module.evaluated.state_dict(),
            "optimizer": self._module.trainer.optimizers[0].state_dict(),
            "scaler": self._module.trainer.precision_plugin.state_dict(),  # of the loss, in the precision 16-mixed
            "best": None if self._best is None else self._best.state_dict(),
        }

    @property
    def metric(self) -> float:
        """The metric after the last epoch yielded, or with ``keep_best`` that of the best epoch so far."""
        best = None if self._best is None else self._best.metric
        return self._metric if best is None else best

    def evaluate(self, split: Split) -> dict[str, float]:
        """The metrics on a split, by name, of the weights that :attr:`metric` is of; only while the fit waits."""
        if split == "validation" and self._best is None:
            return checked(self._task, self._task.compute_metrics(self._module.outputs))
        weights = nullcontext() if self._best is None else self._best.loaded_into(self._module.evaluated)
        with weights, self._module.trainer.precision_plugin.forward_context():
            return evaluate_split(self._module.evaluated, self._task, split)

    def weights(self) -> dict[str, Tensor]:
        """The weights that :attr:`metric` is of; only while the fit waits."""
        best = None if self._best is None else self._best.weights
        return dict(self._module.evaluated.state_dict() if best is None else best)

    def _next(self) -> tuple[int, float] | None:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def _on_epoch_end(self, epoch: int, metric: float) -> None:
        """Called in the thread of the fit: hand over the metric and wait for the caller."""
        now = self._clock()
        self.cpu_s, self._epochs_done, self._metric = now - self._idle_s, epoch, metric
        if self._best is not None:
            self._best.update(metric, self._module.evaluated)
        self._results.put((epoch, metric))
        self._resume.acquire()
        self._idle_s += self._clock() - now
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop_requested.is_set():
            raise _StopTraining

    def _on_batch_start(self) -> None:
        self._raise_if_stopped()
        self._wait_while_measuring()
        if self._is_over():
            self.cut = True
            self._results.put(None)
            raise _StopTraining

    def _fit(self) -> None:
        task, batch_size = self._task, self._settings.batch_size
        train = EpochLoader(task, "train", batch_size, shuffle=self._seed, epochs_done=self._epochs_done)
        validation = EpochLoader(task, "validation", EVAL_BATCH_FACTOR * task.batch_size)
        try:
            self._idle_s = self._clock()
            # The random generator is global: dropout must depend on this trial alone.
            with (
                torch.random.fork_rng(devices=[]),
                warnings.catch_warnings(),
                WaitWhileMeasuring() as self._wait_while_measuring,
            ):
                warnings.filterwarnings("ignore", module="lightning")
                trainer = self._trainer()
                trainer.precision_plugin.load_state_dict(self._scaler_state)
                if self._device.compile:  # in place: the names of the weights in checkpoints stay the same
                    self._module.network.compile()
                trainer.fit(self._module, train, validation)
            self._results.put(None)
        except _StopTraining:
            pass
        except BaseException as error:  # whatever it is, it is raised in the waiting main thread
            self._results.put(train.error or validation.error or error)

    def _trainer(self) -> lightning.Trainer:
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        return lightning.Trainer(
            accelerator=self._device.accelerator,
            devices=self._device.devices,
            precision=self._device.precision,
            accumulate_grad_batches=self._settings.accumulate,
            callbacks=[_Callback(self)],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            gradient_clip_val=self._settings.clip,
            logger=False,
            max_epochs=self._settings.epochs - self._epochs_done,
            num_sanity_val_steps=0,
        )


class _StopTraining(Exception):  # noqa: N818, not an error: the caller needs no more epochs
    pass


class _Callback(lightning.Callback):
    def __init__(self, training: LightningFit) -> None:
        self._training = training
        self._start = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        self._training._on_batch_start()
        self._start = self._training._clock()

    def on_train_batch_end(self, *args: Any) -> None:
        self._training.model_s += self._training._clock() - self._start

    on_validation_batch_start, on_validation_batch_end = on_train_batch_start, on_train_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self._training._on_epoch_end(module.epochs_done + trainer.current_epoch + 1, module.metric)
