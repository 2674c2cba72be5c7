"""What the commands that measure a stored study's networks have in common."""

from __future__ import annotations

import optuna
import torch

from search.costs.latency import MeasuredLatency
from search.costs.measured import MeasuredCosts
from search.costs.meter import Meter
from search.study.stored import StoredStudy
from spaces.architecture import Architecture, network_key
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.space import Space
from spaces.tasks import Task

DRAWS = 100  # trials per network that is asked for, until a space is known to have too few


def measured_costs(stored: StoredStudy) -> MeasuredCosts:
    """Measure as the study did; in this process PyTorch then has one thread, as in a worker.

    Raises:
        ConfigError: the latencies of the study were not measured.
    """
    identity = stored.store.identity()
    task, meter = instantiate(Task, identity["task"], "task"), instantiate(Meter, identity["latency"], "latency")
    if not isinstance(meter, MeasuredLatency):
        raise ConfigError("the latencies of this study were computed, not measured")
    torch.set_num_threads(1)
    return MeasuredCosts(task, meter)


def random_networks(space: Space, count: int, *, option: str) -> list[Architecture]:
    """Different networks that are drawn at random.

    Raises:
        ConfigError: the space has fewer; the message begins with ``option``.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, Architecture] = {}
    for _ in range(DRAWS * count):
        architecture = space.suggest(study.ask())
        found.setdefault(network_key(architecture), architecture)
        if len(found) == count:
            return list(found.values())
    raise ConfigError(f"{option}: {DRAWS * count} draws from the space gave {len(found)} different networks")
