"""The best epoch of a training so far and its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn


class BestEpoch:
    """The weights of the epoch with the best metric; of several equal ones, of the first.

    Args:
        direction: of the metric.
        state: what :meth:`state_dict` returned; None at the start of a training.
    """

    def __init__(self, direction: Literal["maximize", "minimize"], state: Mapping[str, Any] | None = None) -> None:
        self._direction = direction
        self._state = dict(state or {})

    @property
    def metric(self) -> float | None:
        """The best metric so far; None before the first epoch whose metric is not NaN."""
        return self._state.get("metric")

    @property
    def weights(self) -> Mapping[str, Tensor] | None:
        """Those of the best epoch so far; None as long as there is none."""
        return self._state.get("network")

    def state_dict(self) -> dict[str, Any]:
        """The metric and the weights, for a checkpoint."""
        return self._state

    def update(self, metric: float, network: nn.Module) -> None:
        """Keep the network's weights if ``metric``, of the epoch just ended, is the best so far; NaN never is."""
        best = self.metric
        better = best is not None and (metric > best if self._direction == "maximize" else metric < best)
        if better or (best is None and not math.isnan(metric)):
            self._state = {"metric": metric, "network": _copied(network.state_dict())}

    @contextmanager
    def loaded_into(self, network: nn.Module) -> Iterator[None]:
        """Within the context the network has the kept weights, if there are any."""
        current = _copied(network.state_dict())
        try:
            network.load_state_dict(self._state.get("network", current))
            yield
        finally:
            network.load_state_dict(current)


def _copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}
