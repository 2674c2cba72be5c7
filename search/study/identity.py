"""The settings that all workers of a study must share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces.tasks import Task

MAY_DIFFER = (  # between workers
    "scale",  # the space has been composed with it
    "study",
    "n_trials",
    "budget",
    "patience",
    "min_gain",
    "workers",
    "storage",
    "tracking",
    "checkpoints",
    "weights_mb",
    "measuring_share",
    "warm_start",
    "baselines",
    "device",
    "hardware",  # compared by its name, see search.costs.hardware
    "compile",
    "output",
)


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all workers of a study must share."""
    identity = {name: config[name] for name in config if name not in MAY_DIFFER}
    # Studies of version 0.2 lack some settings, and can be continued with the defaults.
    for name, default in (("precision", "32-true"), ("prefer", {}), ("teacher", None)):
        if identity.get(name) == default:
            identity.pop(name, None)
    return {**identity, "task": _without_default_metric(identity["task"])}


def _without_default_metric(node: Any) -> Any:
    """A task's node without ``metric`` where it is the default; likewise those in it."""
    if not isinstance(node, Mapping):
        return node
    kept = {name: value for name, value in node.items() if name != "metric" or value not in (None, Task.metric)}
    return {name: _without_default_metric(value) for name, value in kept.items()}
