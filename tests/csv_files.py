"""A synthetic recorded table: learning curves that rise to a final metric given by the settings."""

from __future__ import annotations

import numpy as np
import optuna
from tiny_task import TREE

from search.replay.table import Table
from spaces.space import Space

FINITE = {
    **TREE,
    "attention": {**TREE["attention"], "linformer": {**TREE["attention"]["linformer"], "rank": {"choice": [2, 4, 6]}}},
    "model": {**TREE["model"], "width": {"choice": [4, 8, 16]}, "depth": {"int": [1, 2]}},
    "train": {"epochs": 6, "batch_size": 16, "lr": {"choice": [0.003, 0.01]}},
}


def table(*, worlds: int = 2, name: str = "made") -> Table:
    """All 48 architectures of ``FINITE``."""
    space, random = Space(FINITE), np.random.default_rng(0)
    parameters, architectures = list(space.grid()), []
    for each in parameters:
        architectures.append(space.suggest(optuna.trial.FixedTrial(each)))
    curves = [[] for _ in range(worlds)]
    costs, seconds = [], []
    for architecture in architectures:
        size = architecture["model"]["width"] * architecture["model"]["depth"]
        ms = 0.1 * size * (2.0 if "softmax" in architecture["attention"] else 1.0)
        final = 0.4 + 0.5 * (1 - np.exp(-ms)) + 0.05 * (architecture["train"]["lr"] == 0.01)
        costs.append({"latency_ms": ms, "parameters": 10.0 * size, "flops": 1e4 * ms, "memory_mb": 0.1 * size})
        seconds.append(0.2 + 0.5 * ms)
        for world in curves:
            noise = random.normal(0, 0.01, 6)
            world.append((0.3 + (final - 0.3) * np.arange(1, 7) / 6 + noise).tolist())
    return Table(
        name=name,
        space=FINITE,
        metric="accuracy",
        direction="maximize",
        chance=0.3,
        best=1.0,
        architectures=architectures,
        parameters=parameters,
        costs=costs,
        curves=curves,
        seconds=seconds,
    )
