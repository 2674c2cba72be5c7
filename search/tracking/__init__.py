"""Experiment tracking: the interface of a tracker, one file for each implementation.

The study's storage is the source of truth and a tracker mirrors it, so a tracking failure never affects a trial: no
method raises if a server fails, and what could not be logged is logged by a later call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.report.answers import Description
from search.report.importance import Importance
from search.study.records import Objectives, Record
from spaces.baselines import BaselineResult


class Tracking:
    """The interface; this base class logs nothing."""

    def start(
        self,
        study: str,
        *,
        identity: str,
        objectives: Objectives,
        config: str,
        baselines: Sequence[BaselineResult] = (),
        description: Description | None = None,
    ) -> None:
        """Find or create the study at the tracker.

        Args:
            study: name of the study.
            identity: a unique id, which distinguishes it from others of the same name.
            objectives: the metric and the costs.
            config: the composed configuration as YAML.
            baselines: results of the task's baselines.
            description: what is searched; None to leave it out.
        """

    def log(self, number: int, records: Sequence[Record]) -> None:
        """Log trial ``number``, which this worker has run to its end, and the front of ``records``, the whole study."""

    def finish(self, records: Sequence[Record], reason: str = "", importance: Callable[[], Importance] = dict) -> bool:
        """Log all trials that are missing, of any worker, and the end of this run.

        Args:
            records: the study.
            reason: why the run ended, a clause.
            importance: computes the importance of the dimensions.

        Returns:
            Whether no trial is missing any more.
        """
        return True

    def ui_command(self) -> str:
        """The command that starts the UI; empty if nothing is logged or a server is running."""
        return ""

    def url(self) -> str:
        """The URL of the study in the UI; empty if it has none."""
        return ""
