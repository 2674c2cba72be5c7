"""Trains the members of a front again with fresh seeds; what is stored already is not trained twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna

from search.study.confirmations import Repetition, read_repetitions, write_repetition
from search.study.records import Record
from search.training import Parent
from search.training.device import Device
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.tasks import Task


def repeat(
    study: optuna.Study,
    members: Sequence[Record],
    task: Task,
    *,
    seed: int,
    count: int,
    device: Device,
    parent: Parent | None = None,
    report: Callable[[int, int, Repetition], None] = lambda number, seed, repetition: None,
) -> None:
    """Train each member with the ``count`` seeds after ``seed``, that of the study, and store the metrics.

    All members are trained with one seed before the next, so that an interrupted command leaves comparable numbers.

    Args:
        study: that stores them.
        members: of its front.
        task: of the study.
        seed: of the study.
        count: repetitions of each member.
        device: of the trainings.
        parent: that networks start from; it is not trained again.
        report: called after each training with the trial, the seed and the metrics.
    """
    for fresh in range(seed + 1, seed + 1 + count):
        for member in members:
            if fresh in read_repetitions(study).get(member.number, {}):
                continue
            repetition = train(dict(member.architecture), task, seed=fresh, device=device, parent=parent)
            write_repetition(study, member.number, fresh, repetition)
            report(member.number, fresh, repetition)


def train(
    architecture: Architecture, task: Task, *, seed: int, device: Device, parent: Parent | None = None
) -> Repetition:
    """The metrics of a whole training, whose weights, order of examples and dropout depend on ``seed``."""
    settings = TrainSettings(**architecture["train"])
    network, fitted = build(architecture, task, seed=seed), task_of(architecture, task)
    teacher = None
    if parent is not None:
        parent.load_into(network, architecture)
        teacher = parent.logits
    with LightningFit(network, fitted, settings, seed=seed, device=device, teacher=teacher) as training:
        for epoch, _ in training:
            if epoch == settings.epochs:
                return Repetition(training.evaluate("validation"), training.evaluate("test"))
    raise AssertionError("a training has at least one epoch")
