"""The LightningModule of a network and its task, with optimizer and learning-rate schedule, and the data loader."""

# ruff: noqa: D102, the hooks are documented by Lightning

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from search.training.average import WeightAverage
from search.training.divergence import FiniteChecks, check_metric
from search.training.imitation import Imitation
from search.training.loss import TrainingLoss
from search.training.schedule import learning_rate_factor
from search.training.settings import TrainSettings
from spaces.augmentation import augmentations
from spaces.augmentation.mixing import mixup
from spaces.models.network import BlockNetwork
from spaces.seeds import epoch_seed
from spaces.tasks import Batch, Split, Task


class TrainingModule(lightning.LightningModule):
    """The remaining epochs of a training, of which ``epochs_done`` are completed; ``optimizer_state`` is from there.

    ``teacher`` are the predictions of a teacher, ``parent`` is the network that a compressed one imitates, if any.
    ``evaluated`` is the network that is evaluated: the trained one, or the average of its weights.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        settings: TrainSettings,
        *,
        seed: int,
        epochs_done: int,
        optimizer_state: dict[str, Any] | None,
        fused: bool = True,
        teacher: Tensor | None = None,
        parent: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.task, self.settings = network, task, settings
        self.seed, self.epochs_done, self.optimizer_state = seed, epochs_done, optimizer_state
        self.loss = TrainingLoss(task, settings, teacher)
        self.imitation: Imitation | None = None  # no module: the parent stays in evaluation mode
        if isinstance(parent, BlockNetwork) and (settings.hidden or settings.relations):
            self.imitation = Imitation(settings, parent)
        self.augmentations = augmentations(settings, task)
        self.average = WeightAverage(network, settings.ema) if settings.ema else None
        self.evaluated: nn.Module = network if self.average is None else self.average.network
        self.fused = fused
        self.metric = float("nan")
        self.outputs: list[Any] = []  # of the last validation
        self._steps_done = 0
        self._checks = FiniteChecks()

    def on_train_epoch_start(self) -> None:
        # A seed for each epoch, so that a resumed training draws the same as an uninterrupted one.
        torch.manual_seed(epoch_seed(self.seed, self.epochs_done + self.current_epoch))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = self._loss(batch)
        if self.trainer.precision != "16-mixed":  # whose gradient scaler skips steps with an infinite loss
            self._checks.add_loss(loss)
        return loss

    def _loss(self, batch: Batch) -> Tensor:
        for augment in self.augmentations:
            batch = augment(batch)
        if self.imitation is not None:
            assert isinstance(self.network, BlockNetwork)
            logits, loss = self.imitation(self.network, batch)
            return loss + self.loss(logits, batch)
        if not self.settings.mixup:
            return self.loss(self.network(batch), batch)
        batch, other_labels, share = mixup(batch, self.settings.mixup)
        logits = self.network(batch)
        other = self.loss(logits, batch._replace(labels=other_labels))
        return share * self.loss(logits, batch) + (1 - share) * other

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self.network, self._steps_done)
        self._steps_done += 1

    def on_validation_epoch_start(self) -> None:
        self.outputs = []
        self._checks.check(self.network)
        self._hook = self.evaluated.register_forward_hook(self._checks.add_logits)

    def validation_step(self, batch: Batch, index: int) -> None:
        self.outputs.append(self.task.eval_step(self.evaluated, batch))

    def on_validation_epoch_end(self) -> None:
        self._hook.remove()
        self._checks.check(self.evaluated)
        self.metric = check_metric(self.task.metric, self.task.compute_objective(self.outputs))

    def configure_optimizers(self) -> Any:
        settings = self.settings
        # In mixed precision Lightning refuses to clip gradients if the optimizer is fused.
        # beta2 of 0.99 instead of 0.999: a training has only some hundreds of steps.
        # A checkpoint of version 0.2 has one group, and its training goes on with that.
        one_group = self.optimizer_state is not None and len(self.optimizer_state["param_groups"]) == 1
        optimizer = torch.optim.AdamW(
            parameter_groups(self.network, 0.0 if one_group else settings.weight_decay),
            lr=settings.lr,
            betas=(0.9, 0.99),
            fused=self.fused,
        )
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        # Optimizer steps of an epoch: with accumulated gradients fewer than batches.
        steps = int(self.trainer.estimated_stepping_batches) // (settings.epochs - self.epochs_done)
        self._steps_done = self.epochs_done * steps
        factor = learning_rate_factor(
            settings.schedule, steps * settings.epochs, warmup=settings.warmup, decay=settings.decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor, last_epoch=self._steps_done - 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Those that are decayed, matrices and embeddings, and the others: biases and gains. One group without decay."""
    parameters = list(network.parameters())
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    decayed, others = ([each for each in parameters if (each.dim() > 1) == matrices] for matrices in (True, False))
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class EpochLoader:
    """The batches of a split; if ``shuffle``, a seed, is given, in another order each epoch, after ``epochs_done``.

    ``error`` is what the task raised: Lightning may raise another one while it handles it.
    """

    def __init__(
        self, task: Task, split: Split, batch_size: int | None, *, shuffle: int | None = None, epochs_done: int = 0
    ) -> None:
        self._task, self._split, self._shuffle = task, split, shuffle
        self._batch_size = batch_size or task.batch_size
        self._epochs_done = epochs_done
        self.error: Exception | None = None

    def __len__(self) -> int:
        return self._task.steps(self._split, self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        seed = None if self._shuffle is None else epoch_seed(self._shuffle, self._epochs_done)
        self._epochs_done += 1
        try:
            yield from self._task.batches(self._split, self._batch_size, shuffle=seed)
        except Exception as error:
            self.error = error
            raise
