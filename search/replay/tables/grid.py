"""The space of a public table: a grid of the settings of one network and of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.replay.table import Table
from spaces.dimensions import Value

NETWORK = "network"  # the name that stands for a mechanism, of which a public table has only one


@dataclass(frozen=True)
class Grid:
    """Settings of the sections ``model`` and ``train`` of an architecture, each with its values in order.

    ``epochs`` is the length of the learning curves.
    """

    model: Mapping[str, Sequence[Value]]
    train: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    epochs: int = 1

    def space(self) -> dict[str, Any]:
        """The tree that :class:`spaces.space.Space` takes."""
        model, train = ({name: {"choice": list(values)} for name, values in part.items()} for part in self._parts())
        return {
            "model": {"_target_": NETWORK, "depth": 1} | model,
            "attention": {NETWORK: {"_target_": NETWORK}},
            "pattern": [NETWORK],
            "train": {"epochs": self.epochs} | train,
        }

    def architecture(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The architecture of the space with a value of each setting."""
        model, train = ({name: values[name] for name in part} for part in self._parts())
        return {
            "model": {"_target_": NETWORK, "depth": 1} | model,
            "pattern": [NETWORK] * int(model.get("depth") or 1),
            "attention": {NETWORK: {"_target_": NETWORK}},
            "train": {"epochs": self.epochs} | train,
        }

    def parameters(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The parameters from which the space samples that architecture."""
        sections = zip(("model", "train"), self._parts(), strict=True)
        return {f"{section}.{name}": values[name] for section, part in sections for name in part}

    def table(
        self, name: str, settings: Sequence[Mapping[str, Value]], *, metric: str = "accuracy", **columns: Any
    ) -> Table:
        """The table of architectures with these settings, of a metric that is 1 at best; ``columns`` are its others."""
        return Table(
            name=name,
            space=self.space(),
            metric=metric,
            direction="maximize",
            best=1.0,
            architectures=[self.architecture(each) for each in settings],
            parameters=[self.parameters(each) for each in settings],
            **columns,
        )

    def _parts(self) -> tuple[Mapping[str, Sequence[Value]], Mapping[str, Sequence[Value]]]:
        return self.model, self.train
