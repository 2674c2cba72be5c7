"""What the workers of a study share besides its trials: settings, bounds, baselines, and how runs began and ended."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from search.study.storage import get_or_set_attr
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from spaces.baselines import BaselineResult

RUN_START = "run_start"  # study attribute: the command of the latest run, its versions and when it began
RUN_END = "run_end"  # study attribute: why and when a run of the study last ended


class SharedAttributes:
    """The attributes of a study.

    Args:
        study: in any storage.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def identity(self) -> dict[str, Any]:
        """The settings that all workers of the study share; see :func:`search.study.storage.open_study`.

        Raises:
            ConfigError: the study was not created by ``search.run``.
        """
        return dict(json.loads(self._study_attr("identity")))

    def ceilings(self, compute: Callable[[], list[float]] | None = None) -> list[float]:
        """The upper bounds of the costs; ``compute()`` if they are not stored yet, and then stored.

        Raises:
            ConfigError: they are not stored, and ``compute`` is None.
        """
        ceilings = get_or_set_attr(self.study, "ceilings", compute) if compute else self._study_attr("ceilings")
        return list(ceilings)

    def baselines(self, compute: Callable[[], list[BaselineResult]] | None = None) -> list[BaselineResult]:
        """The results of the task's baselines; ``compute()`` if they are not stored yet, and then stored.

        Empty if they are not stored and ``compute`` is None.
        """
        if compute is None:
            stored = self.study.user_attrs.get("baselines", [])
        else:
            stored = get_or_set_attr(self.study, "baselines", lambda: [asdict(result) for result in compute()])
        from spaces.baselines import BaselineResult  # needs torch, which the pruners in a user's own study do without

        return [BaselineResult(**result) for result in stored]

    def data(self, compute: Callable[[], Mapping[str, Any]] | None = None) -> dict[str, Any]:
        """``fingerprint`` of the data, and ``examples``, the number by split.

        ``compute()`` if they are not stored yet, and then stored.

        Empty if they are not stored and ``compute`` is None.
        """
        found: dict[str, Any] = (
            self.study.user_attrs.get("data", {})
            if compute is None
            else get_or_set_attr(self.study, "data", lambda: dict(compute()))
        )
        return found

    def epochs(self, compute: Callable[[], int | None]) -> int | None:
        """The epochs of every training; ``compute()`` in a study without trials, and then stored.

        None if they are those of the space.
        """
        epochs: int | None = get_or_set_attr(
            self.study, "epochs", lambda: None if self.study.get_trials(deepcopy=False) else compute()
        )
        return epochs

    def replacements(self, compute: Callable[[], list[dict[str, Any]] | None]) -> list[dict[str, Any]] | None:
        """What replacements of sub-blocks do, measured for a compression; None where ``compute()`` has no result yet.

        ``compute()`` if it is not stored yet, and then stored.
        """
        found = self.study.user_attrs.get("replacements")
        if found is None and (found := compute()) is not None:
            found = get_or_set_attr(self.study, "replacements", lambda: found)
        return found

    def hardware(self, compute: Callable[[], str]) -> str:
        """The name of the hardware that latencies are measured on; ``compute()`` if not stored yet, and then stored."""
        return str(get_or_set_attr(self.study, "hardware", compute))

    def study_id(self) -> str:
        """A unique id of the study, which distinguishes it from others of the same name."""
        return str(get_or_set_attr(self.study, "id", lambda: uuid.uuid4().hex))

    def write_run_start(
        self, command: str, *, budget: str, machine: str, versions: Mapping[str, str], checkpoints: Path
    ) -> None:
        """Record the command of a run that begins now, its budget and machine, versions, and the checkpoints' folder.

        The budget and the machine are texts for people.
        """
        texts = {"command": command, "budget": budget, "machine": machine, "checkpoints": str(checkpoints)}
        self.study.set_user_attr(RUN_START, {**texts, "versions": dict(versions), "at": time.time()})

    def run_start(self) -> dict[str, Any] | None:
        """What :meth:`write_run_start` wrote, and ``at``, in seconds since 1970; None if there was no run."""
        found: dict[str, Any] | None = self.study.user_attrs.get(RUN_START)
        return found

    def write_run_end(self, reason: str) -> None:
        """Record why a run of the study ended, a clause, and that it did so now; the latest one is kept."""
        self.study.set_user_attr(RUN_END, {"reason": reason, "at": time.time()})

    def run_end(self) -> tuple[str, float] | None:
        """Why a run of the study last ended, and when, in seconds since 1970; None if none has yet."""
        found = self.study.user_attrs.get(RUN_END)
        return (found["reason"], found["at"]) if found else None

    def _study_attr(self, name: str) -> Any:
        try:
            return self.study.user_attrs[name]
        except KeyError:
            message = f"the study {self.study.study_name!r} has no {name}: it was not created by search.run"
            raise ConfigError(message) from None
