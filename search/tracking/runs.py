"""The MLflow runs of a study: a parent run, and a nested run for each trial and each baseline.

Several workers log the same study without a lock. Two may create a parent run, or the run of a missing trial, at the
same time: then all workers use the oldest one, which is the same for all, and delete the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.report.answers import Description
from search.study.records import Objectives, Record, State
from search.tracking import client, datasets, saved_view, summaries
from search.tracking.client import MODELS, PARENT, STUDY
from search.tracking.summaries import MetricValue, RunData

if TYPE_CHECKING:
    from mlflow.entities import Run

ON_FRONT: Mapping[bool, Mapping[str, str]] = {
    True: {"front": "true", "mlflow.runColor": "#0072B2"},
    False: {"front": "false", "mlflow.runColor": "#B5B5B5"},
}
NOTE = "mlflow.note.content"  # the tag that the UI shows as description
MAX_STUDIES = 20  # in the description of the experiment
BASELINE_COLOR = {"mlflow.runColor": "#000000"}
LOGGED_TABLE = '[{"path": "front.json", "type": "table"}]'  # the UI shows this artifact as a table


@dataclass
class TrialRun:
    """The run of a trial, as last read or written by this worker."""

    run_id: str
    start_ms: int
    parent: str
    front: bool
    logged: tuple[str, int] | None  # the state and the epochs of the trial; None while the run is not complete


class StudyRuns:
    """The runs of one study. All methods raise MLflow's exceptions.

    Args:
        uri: the tracking server or database.
        experiment: the experiment's name.
        artifacts: artifact location of a new experiment; None for the server's default.
        study: name of the study.
        study_id: unique among studies of that name; letters and digits.
    """

    def __init__(self, uri: str, *, experiment: str, artifacts: str | None, study: str, study_id: str) -> None:
        self.uri, self.experiment, self.artifacts = uri, experiment, artifacts
        self.study, self.study_id = study, study_id
        self.experiment_id = ""
        self.parent = ""
        self._created = ""  # the parent run that this worker created
        self._tags: Mapping[str, str] = {}  # of the parent, as last read or written by this worker
        self._end_ms: int | None = None  # of the parent, unless it goes on
        self._trials: dict[int, TrialRun] = {}
        self._baselines: dict[str, str] = {}  # ids of runs by name
        self._duplicates: list[str] = []

    def connect(self, objectives: Objectives, description: Description | None = None) -> None:
        """Find the study's runs; create the experiment and the parent run, with its data sets, if they are missing."""
        self._client = client.connect(self.uri)
        self.experiment_id = client.experiment_id(self._client, self.experiment, self.artifacts)
        parents = [run for run in self._search() if STUDY in run.data.tags]
        if not parents:
            created = self._new_parent(objectives)
            # Another worker may have created one at the same time.
            parents = [run for run in self._search() if STUDY in run.data.tags] or [created]
        if self._created not in ("", parents[0].info.run_id):
            self._client.delete_run(self._created)
            parents = [run for run in parents if run.info.run_id != self._created]
            self._created = ""
        self._duplicates += [run.info.run_id for run in parents[1:]]  # of workers that were killed before they did so
        self._tags = parents[0].data.tags
        if self.parent != parents[0].info.run_id:
            self.parent, self._end_ms = parents[0].info.run_id, parents[0].info.end_time
            self._client.update_run(self.parent, status="RUNNING")
            known = parents[0].inputs
            if description is not None and description.data and not (known and known.dataset_inputs):
                self._client.log_inputs(self.parent, datasets.inputs(description))
            self._client.set_experiment_tag(self.experiment_id, NOTE, datasets.experiment_note(self._studies()))

    def _new_parent(self, objectives: Objectives) -> Run:
        tags = {STUDY: self.study, "mlflow.source.name": "search.run", "mlflow.source.type": "LOCAL"}
        run = self._client.create_run(self.experiment_id, run_name=self.study, tags={**tags, **self._study_tag()})
        self._created = run.info.run_id
        params = {
            name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in vars(objectives).items()
        }
        client.log_batch(self._client, self._created, RunData(params=params))
        return run

    def _studies(self) -> dict[str, str]:
        """The latest studies of the experiment with the addresses of their parent runs."""
        parents = client.study_runs(self._client, self.experiment_id)[:MAX_STUDIES]
        return {run.data.tags[STUDY]: self._address(run.info.run_id) for run in reversed(parents)}

    def _study_tag(self) -> dict[str, str]:
        return {"paretoformer.study_id": self.study_id}

    def _search(self) -> list[Run]:
        """The study's runs, oldest first; the oldest run of each trial and of each baseline is used."""
        of_study = f"tags.`paretoformer.study_id` = '{self.study_id}'"
        runs = client.search_runs(self._client, self.experiment_id, of_study)
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        self._trials, self._baselines, self._duplicates = {}, {}, []
        for run in runs:
            number = int(run.data.tags.get("trial", -1))
            if run.data.tags.get("state") == "baseline":
                if run.info.run_id != self._baselines.setdefault(run.data.tags["mechanism"], run.info.run_id):
                    self._duplicates.append(run.info.run_id)
            elif number in self._trials:
                self._duplicates.append(run.info.run_id)
            elif number >= 0:
                self._trials[number] = TrialRun(
                    run.info.run_id,
                    run.info.start_time,
                    parent=run.data.tags.get(PARENT, ""),
                    front=run.data.tags.get("front") == "true",
                    logged=_progress(run.data.tags) if run.info.status != "RUNNING" else None,
                )
        return runs

    def delete_surplus(self, numbers: Collection[int]) -> None:
        """Delete duplicate runs and those of trials that are not among ``numbers``, as others have replaced them.

        Move the trials of a deleted parent to the current one.
        """
        replaced = [self._trials.pop(number).run_id for number in set(self._trials) - set(numbers)]
        for run_id in [*self._duplicates, *replaced]:
            self._client.delete_run(run_id)
        for run in self._trials.values():
            if run.parent != self.parent:
                self._client.set_tag(run.run_id, PARENT, self.parent)
                run.parent = self.parent

    def is_logged(self, record: Record) -> bool:
        """Whether the run of a trial is known to be complete; that of a paused one may have gone on since."""
        run = self._trials.get(record.number)
        return run is not None and run.logged == (record.state, record.epochs)

    def addresses(self) -> dict[int, str]:
        """The addresses of the trials' runs in the UI, relative to that of the server, by number."""
        return {number: self._address(run.run_id) for number, run in self._trials.items()}

    def _address(self, run_id: str) -> str:
        return saved_view.run_path(self.experiment_id, run_id)

    def log_trial(self, record: Record, data: RunData, *, name: str, front: bool) -> None:
        """Create or complete the run of a trial that has just ended, or was paused again."""
        number, ended_ms, seconds = record.number, now_ms(), summaries.seconds(record)
        self._end_ms = None
        run = self._trials.get(number)
        tags = {**data.tags, **ON_FRONT[front]}
        if run is None:
            created = self._client.create_run(
                self.experiment_id,
                start_time=ended_ms - round(1000 * seconds),
                run_name=name,
                tags={**tags, **self._study_tag(), PARENT: self.parent},
            )
            info = created.info
            run = self._trials[number] = TrialRun(info.run_id, info.start_time, self.parent, front=front, logged=None)
            tags = {}
        elif run.logged:  # it was paused
            tags = dict.fromkeys(summaries.OF_STOPS, "") | tags
        # Timestamps depend on the trial alone, so a batch that is sent again after a lost response adds no values.
        epochs = run.logged[1] if run.logged else 0
        values = [value for value in data.values if value.step == 0 or value.step > epochs]
        client.log_batch(self._client, run.run_id, RunData(tags, data.params, values), start_ms=run.start_ms)
        status = "FAILED" if data.tags["state"] == State.FAILED else "FINISHED"
        self._client.set_terminated(run.run_id, status=status, end_time=ended_ms)
        run.front, run.logged = front, _progress(data.tags)

    def log_baseline(self, data: RunData) -> None:
        """Create the run of a baseline, which its tag ``mechanism`` names, unless there is one."""
        name = data.tags["mechanism"]
        if name in self._baselines:
            return
        tags = {**data.tags, **BASELINE_COLOR, **self._study_tag(), PARENT: self.parent}
        run = self._client.create_run(self.experiment_id, run_name=f"baseline: {name}", tags=tags)
        self._baselines[name] = run.info.run_id
        client.log_batch(self._client, run.info.run_id, RunData(values=data.values), start_ms=run.info.start_time)
        self._client.set_terminated(run.info.run_id)

    def update_trial(self, number: int, values: Mapping[str, float], note: str) -> None:
        """Log new values of a trial's metrics, and its note; the old values stay in the metrics' history."""
        metrics = [MetricValue(name, value, step=1) for name, value in values.items()]
        data = RunData(tags={NOTE: note}, values=metrics)
        client.log_batch(self._client, self._trials[number].run_id, data, start_ms=now_ms())

    def tag_front(self, members: Collection[int]) -> None:
        """Tag the trials on the front, and change the tag of those no longer on it.

        Only trials that this worker has logged or found when it connected; each worker tags its own.
        """
        for number, run in self._trials.items():
            if run.front != (number in members):
                client.log_batch(self._client, run.run_id, RunData(tags=ON_FRONT[number in members]))
                run.front = number in members

    def log_study(self, data: RunData) -> None:
        """Log the parent run, unless its tags are the same already.

        The number of ended trials does not tell: a resumed trial or latencies measured again change the front too.
        """
        if not data.tags.items() <= self._tags.items():
            client.log_batch(self._client, self.parent, data, start_ms=now_ms())
            self._tags = {**self._tags, **data.tags}

    def links(self, *, importance: bool = False) -> dict[str, str]:
        """See :func:`search.tracking.saved_view.links`; also to the registered models of the study."""
        found = saved_view.links(self.experiment_id, self.parent, self.study_id, importance=importance)
        return {**found, **json.loads(self._tags.get(MODELS, "{}"))}

    def log_text(self, path: str, text: str) -> None:
        """Write an artifact of the parent run; an existing one is replaced."""
        self._client.log_text(self.parent, text, path)

    def log_view(
        self, objectives: Objectives, records: Sequence[Record], dimensions: Collection[str] | None = None
    ) -> None:
        """Write the saved view, and the tag that shows the front as a table."""
        view = saved_view.tag(self.study, self.study_id, objectives, records, dimensions, now_ms=now_ms())
        self._client.set_experiment_tag(self.experiment_id, *view)
        self._client.set_tag(self.parent, "mlflow.loggedArtifacts", LOGGED_TABLE)

    def finish(self, reason: str) -> None:
        """Set the status of the parent run to finished, and its tag ``run_ended`` to the reason, if there is one."""
        if reason:
            self._client.set_tag(self.parent, "run_ended", reason)
        self._client.set_terminated(self.parent, end_time=self._end_ms)


def _progress(tags: Mapping[str, str]) -> tuple[str, int]:
    return tags["state"], int(tags.get("epochs", 0))


def now_ms() -> int:
    """Milliseconds since 1970, MLflow's timestamp."""
    return round(time.time() * 1000)
