"""A task that is learned in a second, and the space, objectives and studies around it that tests share."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

import optuna
import torch

from search.costs.latency import FlopsLatency
from search.evaluate import Search
from search.pruning.none import NoPruner
from search.samplers.candidates import Pool
from search.samplers.seeded import SeededPerTrial
from search.study.records import Objectives
from search.study.storage import join, open_storage
from spaces.space import Space
from spaces.tasks import Batch, Split, Task, TaskSpec

TREE = {
    "attention": {
        "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
        "linformer": {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": {"choice": [2, 4]}},
    },
    "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 1, "width": {"choice": [4, 8]}, "heads": 1},
    "train": {"epochs": 3, "batch_size": 16, "lr": {"float": [0.001, 0.03], "log": True}},
}


class FirstToken(Task):
    """Say which of three tokens stands first."""

    def __init__(self, *, length: int = 8, rows: int = 64) -> None:
        self.spec = TaskSpec(length=length, vocabulary=3, classes=3, per_token=False)
        self.rows, self.chance = rows, 1 / 3

    def examples(self, split: Split) -> Batch:
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(split))
        inputs = torch.randint(3, (self.rows, self.spec.length), generator=generator)
        return Batch(inputs, None, inputs[:, 0])


OBJECTIVES = Objectives(
    metric="accuracy", direction="maximize", costs=("latency_ms",), chance=1 / 3, best=1.0, ceilings=(1.0,)
)


_folder = tempfile.TemporaryDirectory(prefix="paretoformer-tests-")
atexit.register(_folder.cleanup)


def small_search(tree=TREE, *, task=None, pruner=None, limits=None, seed=0, checkpoints=None, sampler=None) -> Search:
    """A search that needs no clock."""
    space, task, limits = Space(tree), task or FirstToken(), limits or {}
    sampler = sampler or optuna.samplers.RandomSampler(seed=seed)
    return Search(
        space=space,
        task=task,
        pruner=pruner or NoPruner(),
        meter=FlopsLatency(),
        objectives=OBJECTIVES,
        limits=limits,
        seed=seed,
        sampler=sampler,
        pool=Pool(space, task, size=8, limits=limits, seed=seed),
        checkpoints=checkpoints or Path(_folder.name),
    )


def small_study(url: str, *, seed=0, identity=None, heartbeat_s=10, grace_s=60, name="small") -> optuna.Study:
    """A study at ``url``, joined as a run would."""
    sampler = SeededPerTrial(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=seed)
    storage = open_storage(url=url, heartbeat_s=heartbeat_s, grace_s=grace_s)
    opened.append(storage)
    return join(
        storage, name, directions=["maximize", "minimize"], sampler=sampler, identity=identity or {"space": TREE}
    )


opened: list[optuna.storages.RDBStorage] = []  # closed after each test, see conftest.py


class Silence:
    """An audience that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def drawn(self, number, architecture):
        self.told.append(("drawn", number))

    def epoch(self, epoch, epochs, metric):
        self.told.append(("epoch", epoch, epochs, metric))

    def waiting(self, others):
        self.told.append(("waiting", others))
