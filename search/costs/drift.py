"""How much latency drifts between measurements.

Measures all networks of a study again, in turns so that all meet the same conditions, and compares with the timings
that the study holds from when each trial ran: as they are, and scaled by the reference computation (its time now over
its time then). It only reads the study. Run it on the host that ran the study.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.costs.disturbance import agreement
from search.costs.measured import MeasuredCosts
from search.costs.meter import Meter
from search.pareto import Floats
from search.study.records import Timing
from search.study.store import TrialStore
from spaces.architecture import network_key
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.tasks import Task

FEWEST = 3  # networks below which a rank correlation says nothing


def drift(store: TrialStore) -> str:
    """The comparison as a text of one line a method.

    Raises:
        ConfigError: too few networks of the study were measured on this host.
    """
    identity = store.identity()
    task, meter = instantiate(Task, identity["task"], "task"), instantiate(Meter, identity["latency"], "latency")
    costs = MeasuredCosts(task, meter)
    first = {  # of each network the timing of the trial that measured it
        network_key(record.architecture): record
        for record in reversed(list(store.all_records().values()))
        if record.timings and record.timings[0].host == costs.host and record.timings[0].reference_ms > 0
    }
    if len(first) < FEWEST:
        raise ConfigError(f"{len(first)} networks of the study were measured on {costs.host}; it takes {FEWEST}")
    then = [record.timings[0] for record in first.values()]
    now = costs.timings([dict(record.architecture) for record in first.values()])
    truth = np.array([timing.ms for timing in now])
    lines = [f"{len(first)} networks; timings from when trials ran against all measured in turns now:"]
    for name, values in (("as they are", unscaled(then)), ("scaled by the reference", scaled(then, now))):
        lines.append(agreement(name, values, truth))
    return "\n".join(lines)


def unscaled(then: Sequence[Timing]) -> Floats:
    """``(networks,)`` in ms, as measured."""
    return np.array([timing.ms for timing in then])


def scaled(then: Sequence[Timing], now: Sequence[Timing]) -> Floats:
    """``(networks,)`` in ms, multiplied by how much slower the reference computation is now."""
    return np.array([old.ms * new.reference_ms / old.reference_ms for old, new in zip(then, now, strict=True)])
