"""Trains the members of a front again with fresh seeds; what is stored already is not trained twice."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import optuna
import torch

from search.study.confirmations import Repetition, read_repetitions, write_repetition
from search.study.records import Record
from search.training import Parent
from search.training.device import Device
from search.training.evaluation import evaluate_split, program_of
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.tasks import Task


@dataclass(frozen=True)
class Setting:
    """What trainings of a study need besides an architecture and a seed."""

    task: Task
    device: Device
    parent: Parent | None = None  # that networks start from; it is not trained again


def repeat(
    study: optuna.Study,
    members: Sequence[Record],
    prepare: Callable[[], Setting],
    *,
    seed: int,
    count: int,
    processes: int = 1,
    report: Callable[[int, int, Repetition], None] = lambda number, seed, repetition: None,
) -> None:
    """Train each member with the ``count`` seeds after ``seed``, that of the study, and store the metrics.

    All members are begun with one seed before the next, so that an interrupted command leaves comparable numbers.

    Args:
        study: that stores them.
        members: of its front.
        prepare: called once in each process that trains; with several it is sent to them.
        seed: of the study.
        count: repetitions of each member.
        processes: that train at a time; with one it is this process.
        report: called after each training with the trial, the seed and the metrics.
    """
    known = read_repetitions(study)
    left = [
        (member, fresh)
        for fresh in range(seed + 1, seed + 1 + count)
        for member in members
        if fresh not in known.get(member.number, {})
    ]

    def store(member: Record, fresh: int, repetition: Repetition) -> None:
        write_repetition(study, member.number, fresh, repetition)
        report(member.number, fresh, repetition)

    processes = min(processes, len(left))
    if processes <= 1:
        setting = prepare() if left else None
        for member, fresh in left:
            assert setting is not None
            store(member, fresh, train(dict(member.architecture), setting, seed=fresh))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_prepare, initargs=(prepare,)) as pool:
        running = {pool.submit(_train, dict(member.architecture), fresh): (member, fresh) for member, fresh in left}
        try:
            for done in as_completed(running):
                store(*running[done], done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_setting: Setting | None = None  # of a process of the pool


def _prepare(prepare: Callable[[], Setting]) -> None:
    global _setting
    torch.set_num_threads(1)
    _setting = prepare()


def _train(architecture: Architecture, seed: int) -> Repetition:
    assert _setting is not None
    return train(architecture, _setting, seed=seed)


def train(architecture: Architecture, setting: Setting, *, seed: int) -> Repetition:
    """The metrics of a whole training, whose weights, order of examples and dropout depend on ``seed``."""
    settings, parent = TrainSettings(**architecture["train"]), setting.parent
    network, fitted = build(architecture, setting.task, seed=seed), task_of(architecture, setting.task)
    teacher = source = None
    if parent is not None:
        if (weights := parent.weights_of(architecture)) is not None:  # it is the same with every seed
            network.load_state_dict(weights)
            whole = program_of(weights, architecture, setting.task) or network.eval()
            return Repetition(*(evaluate_split(whole, fitted, split) for split in ("validation", "test")))
        parent.load_into(network, architecture)
        teacher, source = parent.logits, parent.network
    with LightningFit(
        network, fitted, settings, seed=seed, device=setting.device, teacher=teacher, parent=source
    ) as training:
        for epoch, _ in training:
            if epoch == settings.epochs:
                program = program_of(training.weights(), architecture, setting.task)
                if program is None:
                    return Repetition(training.evaluate("validation"), training.evaluate("test"))
                return Repetition(*(evaluate_split(program, fitted, split) for split in ("validation", "test")))
    raise AssertionError("a training has at least one epoch")
