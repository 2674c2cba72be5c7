"""A fake objective: costs and learning curves computed from the architecture at once, without a network."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import optuna

from search.costs import Costs
from search.evaluate import Search, evaluate, values
from search.lifecycle import proposer_of
from search.pruning.none import NoPruner
from search.samplers.candidates import Pool
from search.study.records import Direction, Objectives, Record, Timing
from search.study.store import TrialStore
from search.training import Epoch
from spaces.architecture import Architecture, key
from spaces.space import Space

EPOCHS = 10
CHUNK = 25
TREE = {  # of nine dimensions, as many as a trial of the shipped spaces has
    "attention": {
        "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
        "linformer": {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": {"int": [2, 64]}},
    },
    "model": {
        "_target_": "spaces.models.encoder.Encoder",
        "depth": {"int": [1, 8]},
        "width": {"int": [64, 512], "step": 64},
        "heads": {"choice": [1, 2, 4]},
        "feed_forward": {"choice": [1, 2, 4]},
        "dropout": {"float": [0.0, 0.3]},
    },
    "train": {
        "epochs": EPOCHS,
        "lr": {"float": [1e-4, 1e-2], "log": True},
        "weight_decay": {"float": [1e-3, 1e-1], "log": True},
    },
}
OBJECTIVES = Objectives(
    metric="accuracy", direction="maximize", costs=("latency_ms",), chance=0.0, best=1.0, ceilings=(8.0,)
)
DIRECTIONS: dict[str, Direction] = {"accuracy": "maximize", "latency_ms": "minimize"}


class FakeLearner:
    """A :class:`~search.training.Learner` and a :class:`~search.costs.CostModel` that compute nothing."""

    host = "fake"

    def counted(self, architecture: Architecture) -> dict[str, float]:
        """The costs that are known without measuring."""
        model = architecture["model"]
        size = float(model["depth"] * model["width"])
        return {"parameters": 1e3 * size, "flops": 1e6 * size, "memory_mb": size / 1e2}

    def costs(self, architecture: Architecture) -> Costs:
        """See :class:`~search.costs.CostModel`."""
        counted = self.counted(architecture)
        return Costs(counted, Timing(counted["flops"] / 1e9, spread=0.0, host=self.host, at=0.0, epoch_s=1.0))

    def saved_epochs(self, record: Record) -> int:
        """See :class:`~search.training.Learner`; there are no checkpoints."""
        return 0

    def discard(self, number: int) -> None:
        """See :class:`~search.training.Learner`."""

    def train(self, record: Record, *, resume: bool, trained: Record | None = None) -> nullcontext[FakeTraining]:
        """See :class:`~search.training.Learner`."""
        return nullcontext(FakeTraining(record.architecture))


class FakeTraining:
    """A :class:`~search.training.Training` whose learning curve saturates at a value that depends on the architecture.

    That is random with a mean that grows with the network, so the front has many members.
    """

    epochs, overhead = EPOCHS, 0.0

    def __init__(self, architecture: Any) -> None:
        size = architecture["model"]["depth"] * architecture["model"]["width"] / 4096
        best = (0.3 + 0.6 * size**0.3) * random.Random(key(architecture)).uniform(0.8, 1.0)
        self.curve = [best * (1 - math.exp(-epoch / 3)) for epoch in range(1, EPOCHS + 1)]

    @property
    def metric(self) -> float:
        """Of the last epoch."""
        return self.curve[-1]

    def __iter__(self) -> Iterator[Epoch]:
        for epoch, metric in enumerate(self.curve, start=1):
            yield Epoch(epoch, metric, float(epoch))

    def save(self, *, if_due: bool = False) -> None:
        """No file is written."""

    def save_weights(self) -> str:
        """There are none."""
        return ""

    def evaluate(self, split: str) -> dict[str, float]:
        """The metric."""
        return {"accuracy": self.metric}


def fake_search(sampler: optuna.samplers.BaseSampler, pruner: Any = None) -> Search:
    """A search of the fake objective; the default pruner never stops a trial."""
    learner, space, pruner = FakeLearner(), Space(TREE), pruner or NoPruner()
    pool = Pool(space, learner.counted, size=getattr(sampler, "candidates", 1), limits={}, seed=0)
    return Search(
        space=space,
        objectives=OBJECTIVES,
        limits={},
        cost_model=learner,
        proposer=proposer_of(sampler, pruner, pool.unseen),
        pruner=pruner,
        learner=learner,
    )


def ended_trials(count: int, *, seed: int = 0) -> Iterator[optuna.trial.FrozenTrial]:
    """``count`` complete trials of random architectures, as workers would have stored them.

    They are run in studies of ``CHUNK`` trials in memory, since a trial reads those before it.
    """
    for first in range(0, count, CHUNK):
        study = optuna.create_study(
            directions=list(DIRECTIONS.values()), sampler=optuna.samplers.RandomSampler(seed=seed + first)
        )
        store, search = TrialStore(study), fake_search(study.sampler)
        for _ in range(min(CHUNK, count - first)):
            trial = study.ask()
            *_, record = evaluate(trial, store, search)
            study.tell(trial, values(record, store, OBJECTIVES))
        yield from study.get_trials(deepcopy=False)
