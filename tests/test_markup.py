"""Names that users choose are text in every output: no HTML, Markdown, markup of the terminal, SQL or shell command."""

import re
import shlex
from xml.etree import ElementTree

import pytest
from mlflow import MlflowClient
from rich.console import Console
from tiny_task import run_trials, tiny_search, tiny_study

from search import front
from search.report import picture, rows
from search.report.studies import studies_table
from search.study.records import Objectives, Record, Timing
from search.study.storage import load_study, open_read_only
from search.study.store import TrialStore
from search.tracking.mlflow import MlflowTracking
from search.tracking.note import study_data
from spaces.baselines import BaselineResult

HOSTILE = "<script>alert(1)</script>|[x](javascript:alert(1))`'; DROP TABLE studies;-- [red]$(touch x)"
STUDY = HOSTILE.replace("/", "")  # what may stand in a study's name is for search.study to say
OBJECTIVES = Objectives(
    metric=HOSTILE, direction="maximize", costs=("latency_ms",), chance=0.5, best=1.0, ceilings=(2.0,)
)
BASELINE = BaselineResult(name=HOSTILE, metrics={HOSTILE: 0.75}, test_metrics={}, latency_ms=1.0, fit_s=0.0)


def record(number):
    architecture = {
        "model": {"_target_": "m.M", "depth": 1, HOSTILE: HOSTILE},
        "pattern": [HOSTILE],
        "attention": {HOSTILE: {"_target_": "a.A", "mode": HOSTILE}},
        "train": {"lr": 0.1},
    }
    costs, timing = {"latency_ms": 1.0, "parameters": 5.0}, Timing(1.0, 0.0, "here", 0.0)
    return Record(number, "complete", costs, [(1, 0.6)], 0.6, architecture, [timing])


def test_names_add_no_tags_to_the_page():
    page = picture.html([record(0)], OBJECTIVES, title=HOSTILE, baselines=[BASELINE])
    assert not re.search(r"<\s*/?script", page)
    drawn = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + len("</svg>")])
    texts = [text for element in drawn.iter() if (text := element.text) and "alert(1)" in text]
    assert len(texts) >= 5, "the title, the metric, the baseline, the mechanism, the details of the trial"


def test_names_are_text_in_markdown():
    note = study_data([record(0)], OBJECTIVES, {}, [BASELINE]).tags["mlflow.note.content"]
    assert "alert" in note
    for special in "<>[]`":
        assert not re.search(rf"(?<!\\){re.escape(special)}", note), special
    header, ruler, *cells = (line for line in note.splitlines() if line.startswith("|"))
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (header, ruler, *cells)}) == 1, "columns"
    assert len(cells) == 2, "the member and the baseline"


@pytest.mark.parametrize("text", ["a|b", "<b>", "[a](b)", "`a`", "*a*", "\\[a](b)", "a\nb"])
def test_escaped_markdown_is_a_line_whose_every_special_character_is_preceded_by_a_backslash(text):
    escaped = rows.markdown_text(text)
    assert "\n" not in escaped
    assert re.sub(r"\\(.)", r"\1", escaped) == text.replace("\n", " ")
    assert not re.search(r"[`*\[\]<>|]", re.sub(r"\\.", "", escaped))


@pytest.mark.slow
def test_a_study_of_any_name_is_stored_listed_and_tracked(tmp_path, capsys):
    url, uri = f"sqlite:///{tmp_path}/studies.db", f"sqlite:///{tmp_path}/mlflow.db"
    for name in (STUDY, "other"):
        run_trials(tiny_study(url, name=name), tiny_search(), 1)
    with open_read_only(url) as storage:
        stores = {name: TrialStore(load_study(storage, name)) for name in (STUDY, "other")}
        console = Console(width=300)
        with console.capture() as capture:
            console.print(studies_table(stores, width=300))
        assert STUDY in capture.get()
        assert front.main(["--storage", url, "none of them"]) == 2
        assert STUDY in capsys.readouterr().err
        records, objectives = stores[STUDY].records(), tiny_search().objectives
    tracking = MlflowTracking(uri=uri, experiment=HOSTILE)
    tracking.start(STUDY, identity=STUDY, objectives=objectives, config=f"study: {STUDY}\n")
    tracking.finish(records, STUDY)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(HOSTILE)
    runs = client.search_runs([experiment.experiment_id])
    assert STUDY in [run.info.run_name for run in runs]
    assert {run.data.tags.get("trial") for run in runs} == {None, "0"}
    assert shlex.split(tracking.ui_command())[-1] == uri


def test_the_command_that_shows_mlflow_is_one_command(tmp_path):
    uri = f"sqlite:///{tmp_path}/a b; touch x.db"
    assert shlex.split(MlflowTracking(uri=uri).ui_command()) == ["python", "-m", "search.ui", "--uri", uri]
