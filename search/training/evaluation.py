"""The metrics of a network on a split, and what predicts with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from search.costs.runtimes import EXECUTED_BY, in_runtimes, quantization_of
from search.training.divergence import check_metric
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.evaluation import metrics_on
from spaces.models.quantization import BY_PROGRAM
from spaces.tasks import Batch, Split, Task

EVAL_BATCH_FACTOR = 4  # evaluation batches are this much larger than training batches, which is faster


def evaluate_split(network: nn.Module, task: Task, split: Split) -> dict[str, float]:
    """The metrics of a network on a split, by name; computed on the network's device, of a program on the CPU."""
    device = next((each.device for each in network.eval().parameters()), torch.device("cpu"))

    def step(batch: Batch) -> Any:
        return task.eval_step(network, move_data_to_device(batch, device))

    with torch.inference_mode():
        return checked(task, metrics_on(task, split, EVAL_BATCH_FACTOR * task.batch_size, step))


def program_of(weights: Mapping[str, Tensor], architecture: Architecture, task: Task) -> nn.Module | None:
    """The program that predicts with trained weights, where the quantization is that of one; None elsewhere.

    Args:
        weights: of the network.
        architecture: of the network.
        task: of the study.

    Raises:
        NoRuntimeError: there is no such program.
    """
    if quantization_of(architecture) != BY_PROGRAM:
        return None
    network, fitted = build(architecture, task).eval(), task_of(architecture, task)
    network.load_state_dict(weights)
    (program,) = in_runtimes(network, architecture, fitted, EXECUTED_BY[BY_PROGRAM]).values()
    return program


def checked(task: Task, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics, if all are numbers and the objective is finite."""
    return {name: check_metric(name, value, finite=name == task.metric) for name, value in metrics.items()}
