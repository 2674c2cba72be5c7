"""A teacher for any study: a trial of a stored study, whose predictions networks learn from (``teacher=mine:12``)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.study.records import Objectives, Record, front
from search.study.storage import open_read_only
from search.study.stored import load_stored
from search.training.evaluation import EVAL_BATCH_FACTOR
from search.training.weights import read_weights
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.fingerprint import fingerprint
from spaces.tasks import Task

MAX_MEGABYTES = 2000  # of predictions, which are kept in memory


@dataclass(frozen=True)
class Teacher:
    """A :class:`~search.training.Parent` from which networks take over no weights.

    Args:
        network: trained, in evaluation mode.
        task: with the input that the network takes.
    """

    network: nn.Module
    task: Task

    @cached_property
    def logits(self) -> Tensor:
        """See :class:`~search.training.Parent`."""
        return predictions(self.network, self.task)

    def load_into(self, network: nn.Module, architecture: Mapping[str, Any]) -> None:
        """Nothing."""


@torch.no_grad()
def predictions(network: nn.Module, task: Task) -> Tensor:
    """The logits of all training examples, ``(examples, *answer)``; beyond the end of an example they are 0."""
    found = []
    for batch in task.batches("train", EVAL_BATCH_FACTOR * task.batch_size):
        logits = network(batch)
        missing = task.spec.answer_shape[0] - logits.shape[1] if task.spec.per_token else 0
        found.append(F.pad(logits, (0, 0, 0, missing)) if missing else logits)
    return torch.cat(found)


def digest(network: nn.Module) -> str:
    """SHA-256 of the weights."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()


def stored_teacher(url: str, given: str, task: Task) -> Teacher:
    """The network of a trial.

    Args:
        url: of the storage.
        given: ``STUDY``, for the best member of its front, or ``STUDY:TRIAL``.
        task: of this study; the teacher's must have the same data.

    Raises:
        ConfigError: there is no such trial, its weights are not kept, or it was trained on other data.
    """
    name, _, number = given.partition(":")
    try:
        with open_read_only(url) as storage:
            stored = load_stored(storage, name)
            record = _chosen(stored.store.records(), number, stored.objectives)
            data = stored.store.data()
    except ConfigError as error:
        raise ConfigError(f"teacher={given!r}: {error}") from None
    if task.spec.subtasks or task.spec.answer_length is not None:
        raise ConfigError(f"teacher={given!r}: it is for tasks with one label per example or per token")
    if task.spec.per_token and record.architecture.get("input"):
        raise ConfigError(f"teacher={given!r}: it has tokens of its own, so it cannot teach a label per token")
    if data.get("fingerprint") != fingerprint(task):
        raise ConfigError(f"teacher={given!r}: study {name!r} has other data, or was made by an older version")
    megabytes = task.data("train").size * math.prod(task.spec.answer_shape) * 4 / 1e6
    if megabytes > MAX_MEGABYTES:
        raise ConfigError(
            f"teacher={given!r}: its predictions for all training examples have {megabytes:.0f} MB; they may have"
            f" {MAX_MEGABYTES} MB"
        )
    if not record.weights:
        raise ConfigError(f"teacher={given!r}: the weights of trial {record.number} are not kept; see weights_mb")
    architecture = dict(record.architecture)
    network = build(architecture, task)
    network.load_state_dict(read_weights(Path(record.weights), architecture))
    return Teacher(network.eval(), task_of(architecture, task))


def _chosen(records: Sequence[Record], number: str, objectives: Objectives) -> Record:
    members = {member.number: member for member in front(records, objectives)}
    if not members:
        raise ConfigError("its front is empty")
    if not number:
        return objectives.best_of(members.values())
    if not number.isdecimal() or int(number) not in members:
        listed = ", ".join(map(str, sorted(members)))
        raise ConfigError(f"{number!r} is no member of its front, whose trials are {listed}")
    return members[int(number)]
