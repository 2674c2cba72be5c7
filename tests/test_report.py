"""python -m search.report STUDY: a page that stands alone and says what the study holds."""

import html
import re
import shlex
from html.parser import HTMLParser

import optuna
import pytest
from test_front import DATABASE, IDENTITY, SECRET, add
from tiny_task import OBJECTIVES, close_opened, tiny_study

from search.report.__main__ import main
from search.report.answers import Description, answers, in_short
from search.report.importance import describe_importance, importance
from search.report.pauses import describe_pauses, predict_paused
from search.study.records import Record, front
from search.study.storage import open_read_only
from search.study.stored import load_stored
from search.tracking.note import CODE_WIDTH, study_data

BASELINE = {
    "name": "linear",
    "metrics": {"accuracy": 0.65},
    "test_metrics": {"accuracy": 0.64, "accuracy_margin": 0.11},
    "latency_ms": 1.0,
}
SHARES = {"accuracy": {"model.width": 0.6, "train.lr": 0.4}, "latency_ms": {"train.lr": 1.0}}
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The visible text, and every tag with its attributes; tags must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(file):
    reader = Reader()
    reader.feed(file.read_text())
    assert reader.open == []
    return reader, re.sub(r"\s+", " ", "".join(reader.text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_opened()


def written(name="tiny", *, trials=((0.2, 0.6), (0.5, 0.9), (0.6, 0.7)), baselines=(), identity=IDENTITY, **attributes):
    study = tiny_study(f"sqlite:///{DATABASE}", name=name, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    study.set_user_attr("baselines", [{**each, "fit_s": 1.0} for each in baselines])
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    for latency_ms, accuracy in trials:
        add(
            study,
            latency_ms,
            [accuracy / 2, accuracy],
            test_metrics={"accuracy": accuracy - 0.01, "accuracy_margin": 0.0852},
        )
    close_opened()


def test_the_page_has_the_numbers_of_the_study(folder, capsys):
    started = {"command": "python -m search.run +space=mine", "versions": {"torch": "9.9"}, "at": 0.0}
    written(baselines=[BASELINE], run_start=started, run_end={"reason": "the space is exhausted", "at": 0.0})
    assert main(["tiny"]) == 0
    assert capsys.readouterr().out == "The page was written to tiny.html.\n"
    reader, text = read(folder / "tiny.html")
    with open_read_only(f"sqlite:///{DATABASE}") as storage:
        stored = load_stored(storage, "tiny")
        members = front(stored.store.records(), stored.objectives)
        reached = stored.objectives.hypervolume(members)
    assert [member.number for member in members] == [0, 1]
    assert "The best accuracy is 0.9000 (test 0.8900 ±0.085), by trial 1 at latency_ms 0.5" in text
    assert "At 0.40 of its latency_ms it is 0.6000 (test 0.5900 ±0.085), by trial 0" in text
    assert "The best baseline, linear, has 0.6500 (test 0.6400 ±0.11)." in text
    assert "Trials: 3 complete. They were trained for 6 of 9 epochs." in text
    assert f"it has reached {reached:.4f} of 1" in text
    for each in ("+space=mine", "torch 9.9", "the space is exhausted", "search.front tiny --why 0"):
        assert each in text
    cards = [attributes["id"] for tag, attributes in reader.tags if tag == "details"]
    assert cards == ["trial-0", "trial-1"]


@pytest.mark.slow
def test_the_note_in_mlflow_says_what_the_page_says(folder):
    run = {"command": "python -m search.run +space=mine seed=7", "versions": {"torch": "9.9"}, "at": 0.0}
    run |= {"budget": "36 trials", "machine": "a processor, 2 cores"}
    again = {f"confirmed:1:{seed}": {"validation": {}, "test": {"accuracy": 0.86 + seed / 50}} for seed in (0, 1)}
    data = {"fingerprint": "f" * 64, "examples": {"train": 0, "validation": 0, "test": 84}}
    written(baselines=[BASELINE], run_start=run, data=data, identity={**IDENTITY, "seed": 7}, **again)
    assert main(["tiny"]) == 0
    _, page = read(folder / "tiny.html")
    with open_read_only(f"sqlite:///{DATABASE}") as storage:
        stored = load_stored(storage, "tiny")
        store, objectives = stored.store, stored.objectives
        description = Description.of(store, objectives, stored.dimensions)
        of_study = store.records(), objectives, store.baselines(), description
        data = study_data(of_study[0], objectives, {}, *of_study[2:], SHARES, "the space is exhausted")
        note = data.tags["mlflow.note.content"]
        found = list(answers(*of_study))
    plain = note.replace("\\", "")
    assert len(found) == 6
    for sentence in found:
        assert sentence in page
        assert sentence in plain
    for command in (run["command"], "python -m search.front tiny", "python -m search.export tiny --knee --to model"):
        assert command in page
        assert command in note
    assert "mechanisms: softmax, linformer" in plain
    assert plain.splitlines()[0] == (
        "**Searched:** FirstToken, 2 mechanisms, 36 trials; a processor, 2 cores. "
        "**Found:** accuracy 0.9000 (test 0.8900 ±0.085) at 0.5 ms (#1), baseline 0.6500. "
        "**Why:** linformer wins from 0.2 ms. "
        "**Next:** python -m search.export tiny --knee --to model · "
        "search.front tiny --confirm 5 (or --why 0) · continue: search.run +space=mine seed=7"
    )
    for text in ("accuracy: model.width 60%, train.lr 40%", "The latest run ended: the space is exhausted."):
        assert text in plain
    assert "Trained again with fresh seeds, mean and 95% interval: trial 1 0.8700 ±0.1271 on test (2 seeds)." in plain
    assert "| 1 | 0.5 ±0.0% | 0.9000 | 0.8900 ±0.085 |" in plain
    assert "| baseline |  | 0.6500 | 0.6400 ±0.11 |" in plain


def test_the_page_needs_no_network_and_its_charts_have_a_text(folder):
    written(trials=[(0.1 * at, 0.3 + 0.05 * at) for at in range(1, 10)])
    assert main(["tiny", "--to", "page.html"]) == 0
    reader, _ = read(folder / "page.html")
    assert not [tag for tag, attributes in reader.tags if tag in ("script", "link", "img", "iframe")]
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            assert name.startswith("xmlns") or not re.match(r"\w+://|//", value or ""), (name, value)
    labels = [attributes["aria-label"] for tag, attributes in reader.tags if tag == "svg"]
    assert len(labels) >= 3
    assert labels[0].startswith("The front, accuracy by latency_ms: 0.1: 0.3500, 0.2: 0.4000")
    assert (folder / "page.html").stat().st_size < 500_000


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("a & b", "$x_1$", '"quoted"', "../../up")),
    ],
)
def test_what_users_typed_is_escaped_and_stays_in_the_folder(folder, name):
    written(name, run_start={"command": f"python {name}", "versions": {}, "at": 0.0})
    assert main([name]) == 0
    (file,) = folder.glob("*.html")
    reader, text = read(file)
    assert "script" not in [tag for tag, _ in reader.tags]
    assert name in text
    assert html.escape(name, quote=False) in file.read_text().replace("&#34;", '"')


def test_passwords_are_hidden(folder):
    command = f"python -m search.run storage.url=postgresql://me:{SECRET}@host/db"
    written(run_start={"command": command, "versions": {}, "at": 0.0})
    assert main(["tiny"]) == 0
    page = (folder / "tiny.html").read_text()
    assert SECRET not in page
    assert "postgresql://me:***@host/db" in page


def test_a_study_without_complete_trials_has_a_page(folder):
    written(trials=[])
    assert main(["tiny"]) == 0
    assert "No trial is complete yet." in read(folder / "tiny.html")[1]


def test_a_front_that_loses_to_a_baseline_says_so(folder):
    written(baselines=[{**BASELINE, "metrics": {"accuracy": 0.95}}])
    assert main(["tiny"]) == 0
    reader, text = read(folder / "tiny.html")
    assert "No model on the front beats linear" in text
    assert ("section", {"class": "answer warning"}) in reader.tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "nope"),
        (["tiny", "--to", "missing/page.html"], "missing/page.html can't be written: No such file or directory"),
        (["tiny", "--storage", "sqlite:///none.db"], "no such file"),
    ],
)
def test_bad_input_is_refused(folder, capsys, arguments, message):
    written()
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(folder.glob("*.html"))


def test_what_pausing_risked_is_what_the_curves_predict():
    def trial(number, latency_ms, curve, state="complete"):
        architecture = {"train": {"epochs": 3}}
        metric = curve[-1] if state == "complete" else None
        return Record(number, state, {"latency_ms": latency_ms}, list(enumerate(curve, 1)), metric, architecture)

    complete = [trial(at, 0.5, [0.4, 0.6, 0.8]) for at in range(4)]  # each gains 0.4 after its first epoch
    cheap, late, hopeless = (
        trial(4, 0.4, [0.4], "paused"),
        trial(5, 0.6, [0.4, 0.6], "paused"),
        trial(6, 0.6, [0.1], "paused"),
    )
    predicted = predict_paused([*complete, cheap, late, hopeless, trial(7, 0.1, [], "paused")], OBJECTIVES)
    assert [each.record.number for each in predicted] == [4, 5, 6]
    # Not exactly, because a curve may rise by more than those seen before.
    assert [each.metric for each in predicted] == pytest.approx([0.8, 0.8, 0.5], abs=0.05)
    assert [each.may_be_on_front for each in predicted] == [True, True, False]
    assert describe_pauses(predicted).startswith("Saved: the 3 paused trials took 4 of 9 epochs. Risked: 2 of them")


@pytest.mark.slow
def test_importance_finds_the_dimension_that_decides(folder):
    study = optuna.create_study(directions=["maximize", "minimize"])
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in ("decides", "idle")}
    for at in range(40):
        params = {"decides": (at * 7 % 40) / 40, "idle": (at * 11 % 40) / 40}
        values = [params["decides"], 1 - params["decides"]]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, values=values))
    shares = importance(study, OBJECTIVES)
    assert shares.keys() == {"accuracy", "latency_ms"}
    for each in shares.values():
        assert each["decides"] > 0.9
        assert sum(each.values()) == pytest.approx(1.0)
    assert importance(optuna.create_study(directions=["maximize", "minimize"]), OBJECTIVES) == {}
    described = describe_importance({"accuracy": {"a": 0.2, "b": 0.75, "c": 0.04}, "latency_ms": {"a": 1.0}})
    assert described == "Share of the variance that a dimension explains: accuracy: b 75%, a 20%; latency_ms: a 100%."


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("aab", "a wins from 0.5 ms, b 0.7"),
        ("abcd", "a wins from 0.5 ms, b 0.6, c 0.7, d 0.8"),
        ("abcaba", "a wins from 0.5 ms, b 0.6, c 0.7, ..., a 1"),
    ],
)
def test_the_short_answer_tells_which_mechanism_wins_at_which_latency(names, why):
    trials = [
        Record(at, "complete", {"latency_ms": 0.5 + at / 10}, metric=0.4 + at / 20, architecture={"pattern": [name]})
        for at, name in enumerate(names)
    ]
    description = Description("s", [("task", "T"), ("mechanisms", "a, b, c")], set())
    assert dict(in_short(description, trials, OBJECTIVES, []))["Why"] == why


@pytest.mark.parametrize(
    ("command", "searched"),
    [
        ("", "T, 1 mechanism, 36 trials, seed 3"),
        ("python -m search.run +space=nlp budget=1min", "T, 1 mechanism, seed 3"),
        ("python -m search.run +space=nlp seed=3 n_trials=36", "T, 1 mechanism"),
    ],
)
def test_the_short_answer_tells_once_what_the_command_tells(command, searched):
    known = [("task", "T"), ("mechanisms", "a"), ("seed", "3"), ("budget", "36 trials")]
    short = dict(in_short(Description("s", known, set(), command), [], OBJECTIVES, []))
    assert short["Searched"] == searched
    assert short["Next"].endswith(command.removeprefix("python -m "))


@pytest.mark.parametrize(
    "command", ["python -m search.run +space=nlp", "python -m search.run a='b c' " + "d='e f' " * 20]
)
def test_a_long_command_in_the_note_is_continued_in_further_lines(command):
    shown = study_data(
        [], OBJECTIVES, {}, description=Description("s", [("task", "T"), ("mechanisms", "a")], [], command)
    )
    code = shown.tags["mlflow.note.content"].split("```sh\n")[1].split("\n```")[0]
    assert max(map(len, code.splitlines())) <= CODE_WIDTH + len(" \\")
    assert shlex.split(command) in [shlex.split(line) for line in code.replace("\\\n", "").splitlines()]
