"""The metrics of a network on a split."""

from __future__ import annotations

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from spaces.tasks import Split, Task

EVAL_BATCH_FACTOR = 4  # evaluation batches are this much larger than training batches, which is faster


def evaluate_split(network: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """The metrics of a network on a split, by name; computed on the network's device."""
    device = next(network.eval().parameters()).device
    batches = task.batches(split, EVAL_BATCH_FACTOR * task.batch_size)
    with torch.inference_mode():
        return task.compute_metrics([task.eval_step(network, move_data_to_device(batch, device)) for batch in batches])
