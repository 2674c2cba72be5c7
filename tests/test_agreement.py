"""Terminal, search.front, the runs in MLflow and the page say the same of a study, whatever happened to its trials."""

import io
import re

import pytest
from test_checkpoint import Dies
from test_front import IDENTITY
from test_remeasure import Drifting
from test_worker import PausesOnce
from tiny_task import OBJECTIVES, TREE, close_opened, run_trials, tiny_search, tiny_study

from search import front as front_command
from search.budget.deadline import Deadline
from search.costs.remeasure import remeasure
from search.report import picture
from search.report.__main__ import main as write_page
from search.report.answers import Description
from search.report.progress import ProgressReporter
from search.report.status import StatusLine, TimedConsole
from search.study.store import TrialStore
from search.tracking.client import connect
from search.tracking.mlflow import MlflowTracking


def table(text):
    """The rows of a front in the terminal: the trial, its latency and its metric, as printed."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return [(row[0], row[1].split()[0], row[2]) for row in rows]


class Study:
    """A study with all that is shown of it; ``dimensions`` are those of the space ``tree`` that are shown."""

    def __init__(self, folder, name="tiny", *, tree=TREE, dimensions=frozenset({"model.width"})):
        self.tree, self.folder, self.url = tree, folder, f"sqlite:///{folder}/paretoformer.db"
        self.study = tiny_study(self.url, identity=IDENTITY, name=name)
        self.study.set_user_attr("ceilings", [1.0])
        self.store, self.meter = TrialStore(self.study), Drifting()
        self.tracking = MlflowTracking(uri=f"sqlite:///{folder}/mlflow.db")
        # About as long as those of users: in MLflow the four answers must fit above the fold.
        self.command = f"search.run +space=tiny study={name} n_trials=9 pruner=gain_rate limits.latency_ms=2"
        self.store.write_run_start(
            f"python -m {self.command}",
            budget="9 trials",
            machine="AMD EPYC 7763, 2 cores",
            versions={},
            checkpoints=folder,
        )
        description = Description.of(self.store, OBJECTIVES, dimensions)
        self.tracking.start(
            name, identity=self.store.study_id(), objectives=OBJECTIVES, config="", description=description
        )

    def search(self, pruner=None):
        return tiny_search(self.tree, pruner=pruner, meter=self.meter, checkpoints=self.folder / self.study.study_name)

    def run(self, n_trials, *, pruner=None, reporter=None):
        def ended(trial):
            self.tracking.log(trial.number, self.store.records())

        return run_trials(self.study, self.search(pruner), n_trials, ended=ended, reporter=reporter)

    def from_terminal(self):
        console = TimedConsole(file=io.StringIO(), width=200)
        ProgressReporter(OBJECTIVES, 9, {"model.width"}, status=StatusLine(Deadline(), console)).print_front(
            self.store.records()
        )
        return table(console.file.getvalue())

    def from_command(self, capsys):
        capsys.readouterr()
        assert front_command.main(["tiny", "--storage", self.url]) == 0
        return table(capsys.readouterr().out)

    def from_page(self):
        file = self.folder / "tiny.html"
        assert write_page(["tiny", "--storage", self.url, "--to", str(file)]) == 0
        rows = re.findall(r"<tr><td[^>]*>(\d+)</td><td[^>]*>([\d.]+)[^<]*</td><td[^>]*>([\d.]+)</td>", file.read_text())
        assert re.findall(r'id="trial-(\d+)"', file.read_text()) == [row[0] for row in rows], "the cards"
        return rows

    def from_mlflow(self):
        """The rows in the note, after a check of the runs of the trials."""
        runs = connect(self.tracking.uri).search_runs([self.tracking._runs.experiment_id])
        (parent,) = (run for run in runs if "paretoformer.study" in run.data.tags)
        trials = {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}
        logged = {number: (run.data.tags["state"], run.data.metrics["latency_ms"]) for number, run in trials.items()}
        assert logged == {each.number: (each.state, each.costs["latency_ms"]) for each in self.store.records()}
        for record in self.store.records():
            note = trials[record.number].data.tags["mlflow.note.content"]
            assert record.state != "complete" or f" at latency_ms {record.costs['latency_ms']:.4g}" in note
        note = parent.data.tags["mlflow.note.content"]
        rows = [
            [cell.strip() for cell in line.split("|")[1:4]] for line in note.splitlines() if re.match(r"\| \d", line)
        ]
        on_front = {str(number) for number, run in trials.items() if run.data.tags["front"] == "true"}
        assert on_front == {row[0] for row in rows}
        metrics = parent.data.metrics
        assert metrics["hypervolume"] == OBJECTIVES.hypervolume(self.store.records())
        return [(trial, latency.split()[0], metric) for trial, latency, metric in rows]


@pytest.mark.slow
def test_terminal_command_mlflow_and_page_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(picture, "html", lambda *_, **__: "a plot")
    study, seen = Study(tmp_path), []

    def compare(what):
        study.tracking.finish(study.store.records(), "")
        members = study.from_terminal()
        assert members, what
        assert study.from_command(capsys) == members, what
        assert study.from_page() == members, what
        assert study.from_mlflow() == members, what
        seen.append(members)

    study.run(2)
    compare("complete trials")
    stays = PausesOnce()
    stays.resumes = lambda history, *, last: None
    study.run(4, pruner=stays)
    compare("a paused trial")
    assert seen[-1] == seen[-2]
    remeasure(study.store, study.search().cost_model, OBJECTIVES)
    compare("latencies that were measured again")
    assert seen[-1] != seen[-2]
    study.store.resume(3)
    study.run(4)
    assert study.store.record(3).state == "complete"
    compare("a resumed trial")
    with pytest.raises(KeyboardInterrupt):
        study.run(5, reporter=Dies(2))
    compare("the death of a worker")
    trials = study.run(5)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 5], "4 is queued for 3"
    compare("the trial of the dead worker")
    close_opened()
