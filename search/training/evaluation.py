"""The metrics of a network on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from search.training.divergence import check_metric
from spaces.tasks import Split, Task

EVAL_BATCH_FACTOR = 4  # evaluation batches are this much larger than training batches, which is faster


def evaluate_split(network: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """The metrics of a network on a split, by name; computed on the network's device."""
    device = next(network.eval().parameters()).device
    batches = task.batches(split, EVAL_BATCH_FACTOR * task.batch_size)
    with torch.inference_mode():
        return checked_metrics(task, [task.eval_step(network, move_data_to_device(batch, device)) for batch in batches])


def checked_metrics(task: Task, outputs: Sequence[Any]) -> dict[str, float]:
    """The metrics of outputs of :meth:`spaces.tasks.Task.eval_step`; all are numbers, and the objective is finite."""
    metrics = task.compute_metrics(outputs)
    return {name: check_metric(name, value, finite=name == task.metric) for name, value in metrics.items()}
