"""Showing a study to people: one file a tracker, under one contract, stated here.

The study's records are the source of truth and a tracker mirrors them, so a tracking failure never costs a trial: no
method raises for what happens to a server, and what an outage kept away is shown by a later call.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.study.records import Objectives, Record


class Tracking:
    """The contract, and the tracker that shows nothing."""

    def start(self, study: str, *, identity: str, objectives: Objectives, config: str) -> None:
        """Join the study's page, or make it.

        Args:
            study: the study's name, for people.
            identity: what tells this study from others of the same name, for ever: an id kept in it, its storage.
            objectives: what spans its front.
            config: the composed configuration as YAML.
        """

    def log(self, number: int, records: Sequence[Record]) -> None:
        """Show trial ``number``, which this worker has ended, and the front; ``records`` are the whole study's."""

    def finish(self, records: Sequence[Record]) -> None:
        """Show whatever is missing, whichever worker it came from."""

    def command(self) -> str:
        """What to type to see it all; nothing where nothing is kept or a server already runs."""
        return ""

    def page(self) -> str:
        """The study's address in a browser; nothing if it has none."""
        return ""
