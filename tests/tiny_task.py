"""A task that is learned in a second, with a space, objectives and studies for tests."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch

from search.budget.deadline import Deadline
from search.costs.latency import FlopsLatency, MeasuredLatency
from search.costs.measured import MeasuredCosts
from search.evaluate import Search
from search.lifecycle import proposer_of
from search.pruning.none import NoPruner
from search.samplers.candidates import Pool
from search.samplers.seeded import SeededPerTrial
from search.study.records import Objectives
from search.study.storage import close_storage, open_storage, open_study
from search.study.store import TrialStore
from search.training.learner import LightningLearner
from search.worker import work
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


SOFTMAX = {  # an architecture
    "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 1, "width": 8, "heads": 2},
    "pattern": ["softmax"],
    "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
    "train": {},
}


class FirstToken(Task):
    """Classify a sequence by its first token."""

    def __init__(self, *, length: int = 8, rows: int = 64) -> None:
        self.spec = TaskSpec(length=length, vocabulary=3, classes=3, per_token=False)
        self.rows, self.chance = rows, 1 / 3

    def examples(self, split: Split) -> Batch:
        generator = torch.Generator().manual_seed(["train", "validation", "test"].index(split))
        inputs = torch.randint(3, (self.rows, self.spec.length), generator=generator)
        return Batch(inputs, None, inputs[:, 0])


class Clock:
    """Returns ``seconds``."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class TimedTask(FirstToken):
    """Each training step takes a second, and from step ``slow_from`` on 10 s."""

    def __init__(self, clock, slow_from=10**9):
        super().__init__()
        self.clock, self.slow_from, self.steps_done = clock, slow_from, 0

    def loss(self, logits, batch):
        self.clock.seconds += 10.0 if self.steps_done >= self.slow_from else 1.0
        self.steps_done += 1
        return super().loss(logits, batch)


OBJECTIVES = Objectives(
    metric="accuracy", direction="maximize", costs=("latency_ms",), chance=1 / 3, best=1.0, ceilings=(1.0,)
)


_folder = tempfile.TemporaryDirectory(prefix="paretoformer-tests-")
atexit.register(_folder.cleanup)


def tiny_search(
    tree=TREE,
    *,
    task=None,
    pruner=None,
    limits=None,
    seed=0,
    checkpoints=None,
    sampler=None,
    meter=None,
    deadline=None,
) -> Search:
    """A search with computed latency."""
    space, task, limits, pruner = Space(tree), task or FirstToken(), limits or {}, pruner or NoPruner()
    deadline = deadline or Deadline()
    costs = MeasuredCosts(task, meter or FlopsLatency())
    pool = Pool(space, costs.counted, size=8, limits=limits, seed=seed, trainable=True)
    return Search(
        space=space,
        objectives=OBJECTIVES,
        limits=limits,
        cost_model=costs,
        proposer=proposer_of(sampler or optuna.samplers.RandomSampler(seed=seed), pruner, pool.unseen),
        pruner=pruner,
        learner=LightningLearner(task, seed, checkpoints or Path(_folder.name), is_over=deadline.is_over),
        deadline=deadline,
    )


QUICK = {"repeats": 2, "rounds": 1, "sleep_s": 0.0, "wait_s": 0.0}  # settings of MeasuredLatency


def tiny_identity(latency: dict[str, Any]) -> dict[str, Any]:
    """What commands need of a stored study's settings; ``latency`` is the node of its meter."""
    task = {"_target_": "tiny_task.FirstToken"}
    return {"space": TREE, "task": task, "latency": latency, "costs": ["latency_ms"]}


def measured_study(url: str, trials: int) -> optuna.Study:
    """A stored study of trials whose latencies were measured."""
    identity = tiny_identity({"_target_": "search.costs.latency.MeasuredLatency", **QUICK})
    study = tiny_study(url, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    run_trials(study, tiny_search(meter=MeasuredLatency(**QUICK)), trials)
    return study


def tiny_config(folder: Path) -> dict[str, Any]:
    """A composed configuration whose files are in ``folder``."""
    return {
        "study": "tiny",
        "space": TREE,
        "task": {"_target_": "tiny_task.FirstToken"},
        "sampler": {"_target_": "search.samplers.surrogate.SurrogateSampler", "candidates": 8},
        "pruner": {"_target_": "search.pruning.none.NoPruner"},
        "latency": {"_target_": "search.costs.latency.FlopsLatency"},
        "storage": {"url": f"sqlite:///{folder / 'studies.db'}"},
        "tracking": {"_target_": "search.tracking.Tracking"},
        "checkpoints": str(folder),
        "weights_mb": 1000,
        "measuring_share": 0.1,
        "limits": {},
        "prefer": {},
        "costs": ["latency_ms"],
        "seed": 0,
        "teacher": None,
        "warm_start": None,
        "baselines": False,
        "device": "cpu",
        "hardware": "auto",
        "precision": "32-true",
        "compile": False,
        "workers": 1,
        "output": "text",
    }


def tiny_study(url: str, *, seed=0, identity=None, heartbeat_s=10, grace_s=60, name="tiny") -> optuna.Study:
    """A study at ``url``, opened as by a run."""
    sampler = SeededPerTrial(lambda seed: optuna.samplers.RandomSampler(seed=seed), seed=seed)
    storage = open_storage(url=url, heartbeat_s=heartbeat_s, grace_s=grace_s)
    opened.append(storage)
    directions = {"accuracy": "maximize", "latency_ms": "minimize"}
    return open_study(storage, name, directions=directions, sampler=sampler, identity=identity or {"space": TREE})


def run_trials(study: optuna.Study, search: Search, n_trials: int, *, ended=lambda trial: None, reporter=None):
    """Run a worker; returns the trials of the study."""
    store = TrialStore(study)
    work(store, search, n_trials, reporter or Reports(), ended, grace_s=60)
    return store.records()


opened: list[optuna.storages.BaseStorage] = []  # closed after each test, see conftest.py


def close_opened() -> None:
    """Close the storages opened so far; an open connection is a warning, and warnings are errors."""
    while opened:
        close_storage(opened.pop())


class Reports:
    """A reporter that stores its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def progress(self, trial):
        self.calls.append(("progress", trial.number, trial.epochs))

    def waiting(self, others):
        self.calls.append(("waiting", others))
