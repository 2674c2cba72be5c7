"""A study's runs on an MLflow server: found, made, written.

Several workers write the same study without a lock. Two may make a parent at the same moment, or add the same missing
trial: then all of them keep the oldest run, which never changes, and delete the other.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.study.records import Objectives, Record
from search.tracking import client, saved_view
from search.tracking.summaries import Summary, Value

if TYPE_CHECKING:
    from mlflow.entities import Run

ON_FRONT: Mapping[bool, Mapping[str, str]] = {
    True: {"front": "true", "mlflow.runColor": "#0072B2"},
    False: {"front": "false", "mlflow.runColor": "#B5B5B5"},
}
AS_TABLE = '[{"path": "front.json", "type": "table"}]'  # the UI then shows this artifact as one


@dataclass
class Child:
    """The run of a trial, as far as this worker knows it."""

    run_id: str
    began_ms: int
    parent: str
    front: bool
    done: bool


class Runs:
    """The runs of one study. Every method may raise whatever MLflow raises.

    Args:
        uri: the tracking server or database.
        experiment: the experiment's name.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the server.
        study: the study's name.
        study_id: tells it from other studies of that name; letters and digits.
    """

    def __init__(self, uri: str, *, experiment: str, artifacts: str | None, study: str, study_id: str) -> None:
        self.uri, self.experiment, self.artifacts = uri, experiment, artifacts
        self.study, self.study_id = study, study_id
        self.experiment_id = ""
        self._parent = ""
        self._made = ""  # the parent that this worker made
        self._tags: Mapping[str, str] = {}  # of the parent, as far as this worker knows
        self._children: dict[int, Child] = {}
        self._surplus: list[str] = []

    def connect(self, objectives: Objectives) -> None:
        """Find the study's runs, or make the experiment and the parent."""
        self._client = client.connect(self.uri)
        experiment = self._client.get_experiment_by_name(self.experiment)
        self.experiment_id = experiment.experiment_id if experiment else self._new_experiment()
        runs = self._read()
        parents = [run for run in runs if "trial" not in run.data.tags] or [self._new_parent(objectives)]
        if self._made not in ("", parents[0].info.run_id):
            self._client.delete_run(self._made)
            self._made = ""
        if self._parent != parents[0].info.run_id:
            self._parent = parents[0].info.run_id
            self._tags = parents[0].data.tags
            self._client.update_run(self._parent, status="RUNNING")

    def _new_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.create_experiment(self.experiment, artifact_location=self.artifacts)
        except MlflowException:
            experiment = self._client.get_experiment_by_name(self.experiment)
            if experiment is None:
                raise
            return experiment.experiment_id  # another worker was faster

    def _new_parent(self, objectives: Objectives) -> Run:
        tags = {"paretoformer.study": self.study, "mlflow.source.name": "search.run", "mlflow.source.type": "LOCAL"}
        run = self._client.create_run(self.experiment_id, run_name=self.study, tags={**tags, **self._mark()})
        self._made = run.info.run_id
        told = {
            name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for name, value in vars(objectives).items()
        }
        self._batch(self._made, Summary(params=told))
        return run

    def _mark(self) -> dict[str, str]:
        return {"paretoformer.study_id": self.study_id}

    def _read(self) -> list[Run]:
        """The study's runs, oldest first; of each trial the first becomes its child. Parents have no tag ``trial``."""
        ours = f"tags.`paretoformer.study_id` = '{self.study_id}'"
        page = self._client.search_runs([self.experiment_id], ours)
        runs = list(page)
        while page.token:
            page = self._client.search_runs([self.experiment_id], ours, page_token=page.token)
            runs += page
        runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
        self._children, self._surplus = {}, []
        for run in runs:
            number = int(run.data.tags.get("trial", -1))
            if number in self._children:
                self._surplus.append(run.info.run_id)
            elif number >= 0:
                self._children[number] = Child(
                    run.info.run_id,
                    run.info.start_time,
                    parent=run.data.tags.get("mlflow.parentRunId", ""),
                    front=run.data.tags.get("front") == "true",
                    done=run.info.status != "RUNNING",
                )
        return runs

    def tidy(self) -> None:
        """Delete the runs that are one too many, and bring home those under a parent that is gone."""
        for run_id in self._surplus:
            self._client.delete_run(run_id)
        for child in self._children.values():
            if child.parent != self._parent:
                self._client.set_tag(child.run_id, "mlflow.parentRunId", self._parent)
                child.parent = self._parent

    def has(self, number: int) -> bool:
        """Whether a trial is known to be written completely."""
        return number in self._children and self._children[number].done

    def write(self, number: int, summary: Summary, *, seconds: float, front: bool) -> None:
        """Add the run of a trial that took ``seconds`` and has just ended, or complete it."""
        ended_ms = now_ms()
        child = self._children.get(number)
        if child is None:
            run = self._client.create_run(
                self.experiment_id,
                start_time=ended_ms - round(1000 * seconds),
                run_name=f"{number:04d} {summary.tags.get('mechanism', '')}".strip(),
                tags={**summary.tags, **ON_FRONT[front], **self._mark(), "mlflow.parentRunId": self._parent},
            )
            child = Child(run.info.run_id, run.info.start_time, self._parent, front=front, done=False)
            self._children[number] = child
        # Times follow from the trial's alone: a batch whose answer was lost leaves no second trace when sent again.
        self._batch(child.run_id, Summary(params=summary.params, values=summary.values), began_ms=child.began_ms)
        status = "FAILED" if summary.tags["state"] == "failed" else "FINISHED"  # red is for what went wrong
        self._client.set_terminated(child.run_id, status=status, end_time=ended_ms)
        child.done = True

    def correct(self, number: int, values: Mapping[str, float]) -> None:
        """Give a trial's metrics other values; the first ones stay in their history."""
        run_id, now = self._children[number].run_id, now_ms()
        self._batch(
            run_id, Summary(values=[Value(name, value, step=1) for name, value in values.items()]), began_ms=now
        )

    def mark(self, members: Collection[int]) -> None:
        """Tag the trials that are on the front and take the tag back from the others, of all that this worker knows.

        Those are its own and what was there when it connected; every other trial is known to the worker that ran it.
        """
        for number, child in self._children.items():
            if child.front != (number in members):
                self._batch(child.run_id, Summary(tags=ON_FRONT[number in members]))
                child.front = number in members

    def describe(self, summary: Summary) -> None:
        """Write the parent, unless it says the same already.

        Not only when more trials have ended: a resumed trial that ends, or latencies that are measured again, change
        the front without changing their number.
        """
        if not summary.tags.items() <= self._tags.items():
            self._batch(self._parent, summary, began_ms=now_ms())
            self._tags = summary.tags

    def links(self) -> dict[str, str]:
        """What the parent's note points to, by name, as addresses on the server."""
        files = f"#/experiments/{self.experiment_id}/runs/{self._parent}/artifacts"
        return {
            "plot of the front": f"{files}/front.html",
            "table": f"{files}/front.json",
            "all trials as charts": saved_view.address(self.experiment_id, self.study_id),
        }

    def keep(self, path: str, text: str) -> None:
        """Write an artifact of the parent, in place of the one before."""
        self._client.log_text(self._parent, text, path)

    def keep_view(self, objectives: Objectives, records: Sequence[Record]) -> None:
        """Write the saved view, and that the front is a table."""
        view = saved_view.tag(self.study, self.study_id, objectives, records, now_ms=now_ms())
        self._client.set_experiment_tag(self.experiment_id, *view)
        self._client.set_tag(self._parent, "mlflow.loggedArtifacts", AS_TABLE)

    def close(self) -> None:
        """Say that the study rests."""
        self._client.set_terminated(self._parent)

    def _batch(self, run_id: str, summary: Summary, *, began_ms: int = 0) -> None:
        """One ``log_batch``, or as many as MLflow's limits ask for."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(name, value, began_ms + round(1000 * seconds), step) for name, value, step, seconds in summary.values
        ]
        params = [Param(name, value) for name, value in summary.params.items()]
        tags = [RunTag(name, value) for name, value in summary.tags.items()]
        while metrics or params or tags:
            self._client.log_batch(run_id, metrics[:800], params[:100], tags[:100])
            metrics, params, tags = metrics[800:], params[100:], tags[100:]


def now_ms() -> int:
    """The time in milliseconds since 1970, as MLflow counts it."""
    return round(time.time() * 1000)
