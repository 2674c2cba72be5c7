"""A teacher for any study: trials of a stored study, whose predictions networks learn from (``teacher=mine:12``)."""

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

    def weights_of(self, architecture: Mapping[str, Any]) -> None:
        """None: every network is trained."""


@dataclass(frozen=True)
class Ensemble:
    """Several teachers as one: the mean of their probabilities.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        members: the best one first.
    """

    members: Sequence[Teacher]

    @property
    def network(self) -> nn.Module:
        """That of the first member."""
        return self.members[0].network

    @cached_property
    def logits(self) -> Tensor:
        """The logarithms of the mean probabilities."""
        logs = torch.stack([member.logits.log_softmax(-1) for member in self.members])
        return logs.logsumexp(0) - math.log(len(self.members))

    def load_into(self, network: nn.Module, architecture: Mapping[str, Any]) -> None:
        """Nothing."""

    def weights_of(self, architecture: Mapping[str, Any]) -> None:
        """None: every network is trained."""


@torch.no_grad()
def predictions(network: nn.Module, task: Task) -> Tensor:
    """The logits of all training examples, ``(examples, *answer)``; beyond the end of an example they are 0."""
    found = []
    for batch in task.batches("train", EVAL_BATCH_FACTOR * task.batch_size):
        logits = network(batch)
        missing = task.spec.answer_shape[0] - logits.shape[1] if task.spec.per_token else 0
        found.append(F.pad(logits, (0, 0, 0, missing)) if missing else logits)
    return torch.cat(found)


def check_size(task: Task, given: str) -> None:
    """Raise :class:`ConfigError` if predictions for all training examples are too large; ``given`` asks for them."""
    examples, shape = task.data("train").size, task.spec.answer_shape
    megabytes = examples * math.prod(shape) * 4 / 1e6
    if megabytes > MAX_MEGABYTES:
        raise ConfigError(
            f"{given}: the predictions for {examples} training examples, {' x '.join(map(str, shape))} each, have"
            f" {megabytes:.0f} MB; they may have {MAX_MEGABYTES} MB. Take fewer examples, or space.train.distillation=0"
        )


def digest(network: nn.Module) -> str:
    """SHA-256 of the weights."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()


def stored_teacher(url: str, given: str, task: Task) -> Teacher | Ensemble:
    """The network of a trial, or those of several.

    Args:
        url: of the storage.
        given: ``STUDY``, for the best member of its front, ``STUDY:TRIAL``, or ``STUDY:TRIAL+TRIAL`` for several.
        task: of this study; the teacher's must have the same data.

    Raises:
        ConfigError: there is no such trial, its weights are not kept, or it was trained on other data.
    """
    name, _, number = given.partition(":")
    try:
        with open_read_only(url) as storage:
            stored = load_stored(storage, name)
            every = stored.store.records()
            numbers = list(dict.fromkeys(number.split("+")))
            records = [_chosen(every, each, stored.objectives) for each in numbers]
            data = stored.store.data()
    except ConfigError as error:
        raise ConfigError(f"teacher={given!r}: {error}") from None
    if task.spec.subtasks or task.spec.answer_length is not None:
        raise ConfigError(f"teacher={given!r}: it is for tasks with one label per example or per token")
    if task.spec.per_token and any(record.architecture.get("input") for record in records):
        raise ConfigError(f"teacher={given!r}: it has tokens of its own, so it cannot teach a label per token")
    if data.get("fingerprint") != fingerprint(task):
        raise ConfigError(f"teacher={given!r}: study {name!r} has other data, or was made by an older version")
    check_size(task, f"teacher={given!r}")
    records.sort(key=lambda record: stored.objectives.loss(record.metric or 0.0))
    for record in records:
        if not record.weights:
            raise ConfigError(f"teacher={given!r}: the weights of trial {record.number} are not kept; see weights_mb")
    found = [_teacher(record, task) for record in records]
    return found[0] if len(found) == 1 else Ensemble(found)


def _teacher(record: Record, task: Task) -> Teacher:
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
