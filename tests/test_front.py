"""The command ``search.front``, on a study with trials in every state."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console
from tiny_task import OBJECTIVES, TREE, FirstToken, close_opened, tiny_study

from search.front import main
from search.report.studies import studies_table
from search.study.records import front
from search.study.requeue import requeue_interrupted
from search.study.storage import load_study, open_read_only
from search.study.store import REMEASURED, TrialStore
from spaces.architecture import describe
from spaces.build import build

ROOT = Path(__file__).parents[1]
IDENTITY = {"space": TREE, "task": {"_target_": "tiny_task.FirstToken"}, "costs": ["latency_ms"]}
DATABASE = "paretoformer.db"  # conf/storage/sqlite.yaml
SECRET = "hunter2"


def architecture(rank):
    return {
        "model": {"_target_": "spaces.models.encoder.Encoder", "depth": 1, "width": 8, "heads": 1},
        "pattern": ["linformer"],
        "attention": {"linformer": {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": rank}},
        "train": {"epochs": 3, "batch_size": 16, "lr": 0.01},
    }


def timing(ms, spread=0.0):
    return {"ms": ms, "spread": spread, "host": "here", "at": 0.0}


def add(study, latency_ms, curve, *, state=TrialState.COMPLETE, rank=2, **attributes):
    known = {
        "architecture": json.dumps(architecture(rank)),
        "timing": timing(latency_ms),
        "costs": {"latency_ms": latency_ms, "parameters": 1234.0},
        "curve": [[epoch, metric] for epoch, metric in enumerate(curve, start=1)],
    }
    values = [curve[-1], latency_ms] if state == TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, values=values, user_attrs={**known, **attributes}))


def stop(epoch, reason, threshold=None, beaten_by=()):
    stored = {"reason": reason, "epoch": epoch, "threshold": threshold, "beaten_by": list(beaten_by)}
    return {"state": TrialState.PRUNED, "stop": stored}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database with a study named tiny."""
    file = tmp_path_factory.mktemp("studies") / DATABASE
    study = tiny_study(f"sqlite:///{file}", identity=IDENTITY)
    study.set_user_attr("ceilings", [1.0])
    add(study, 0.2, [0.4, 0.5, 0.6], test_metrics={"accuracy": 0.55})  # 0: on the front
    add(study, 0.5, [0.5, 0.8, 0.9], rank=4)  # 1: on the front
    add(study, 0.6, [0.3, 0.4, 0.7])  # 2: dominated by 1
    add(study, 0.55, [0.35, 0.45], **stop(2, "epoch 2: below the threshold", 0.5, [1, 0]))  # 3: stopped for good
    add(study, 0.3, [0.2], rank=4, outcome="paused", **stop(1, "epoch 1: low gain", 0.4, [0]))  # 4: resumed as 5
    TrialStore(study).resume(4)
    study._storage.set_trial_state_values(study.trials[5]._trial_id, TrialState.RUNNING)
    study._storage.set_trial_state_values(study.trials[5]._trial_id, TrialState.FAIL)
    requeue_interrupted(study)  # 6: queued
    add(study, 0.6, [0.7], state=TrialState.FAIL, error=f"Error: no route to postgresql://me:{SECRET}@host/db")  # 7
    add(study, 0.2, [0.6], duplicate_of=0, outcome="duplicate")  # 8
    add(study, 0.9, [], **stop(0, "before training: no gain is possible", 0.9, [1]))  # 9
    add(study, 0.4, [0.5, float("nan")], **stop(2, "epoch 2: accuracy is nan"))  # 10
    add(study, 0.4, [], state=TrialState.PRUNED, outcome="over_quota")  # 11
    study.set_user_attr(f"{REMEASURED}:1", timing(0.45, 0.01))
    close_opened()
    return file


@pytest.fixture
def folder(database, tmp_path, monkeypatch):
    """The current folder, with a copy of the database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copy(database, tmp_path)
    return tmp_path


@pytest.fixture
def command(capsys):
    """Run ``search.front`` with arguments; returns exit code, stdout and stderr."""

    def run(*arguments):
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = exit_.code
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return code, printed.out, printed.err

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records():
    return TrialStore(optuna.load_study(study_name="tiny", storage=f"sqlite:///{DATABASE}")).records()


@pytest.mark.slow
def test_the_front_of_a_run_is_printed_again(tmp_path, monkeypatch, command, capsys):
    from search import run

    monkeypatch.chdir(tmp_path)
    quick = ["task=digits", "tracking=none", "latency=flops", "sampler=random", "space.train.epochs=1", "n_trials=2"]
    monkeypatch.setattr(sys, "argv", ["search.run", "+space=smoke", *quick])
    run.main()
    shown = capsys.readouterr().out
    code, out, error = command("smoke-digits")
    assert (code, error) == (0, "")
    assert "The front: " in out
    front_lines, end = out[: out.index("The last run ended at ")], out.splitlines()[-1]
    assert front_lines in shown
    assert re.fullmatch(r"The last run ended at [-0-9]+ [:0-9]+: the study has 2 trials \(n_trials=2\)\.", end)
    assert "smoke-digits" in command()[1]


def test_the_front_has_the_current_latencies(folder, command):
    code, out, _ = command("tiny")
    assert code == 0
    assert "The front: 2 of 7 trials" in out
    assert "0.45 ±1.0%" in out


EXPLANATIONS = [  # a trial, texts that are printed, and texts that are not
    (
        0,
        [
            "trial 0: complete",
            "linformer width=8 rank=2 lr=0.01",
            "latency_ms 0.2  parameters 1234",
            "accuracy by epoch  1: 0.4  2: 0.5  3: 0.6",
            "front         yes",
        ],
        ["rung", "better trials", "replaced by"],
    ),
    (1, ["latency_ms 0.45 (0.5 when first measured)", "front         yes"], []),
    (
        2,
        [
            "front         no, dominated by",
            "     1  accuracy 0.9 final  latency_ms 0.45 (0.5 when first measured)",
        ],
        ["     0  "],
    ),
    (
        3,
        [
            "trial 3: pruned",
            "reason        epoch 2: below the threshold",
            "rung          epoch 2",
            "threshold     accuracy 0.5",
            "     1  accuracy 0.8 at epoch 2, 0.9 final  latency_ms 0.45 (0.5 when first measured)  linformer",
            "     0  accuracy 0.5 at epoch 2, 0.6 final  latency_ms 0.2  linformer width=8 rank=2",
        ],
        ["front  ", "replaced by"],
    ),
    (4, ["trial 4: queued again", "before        paused at epoch 1: epoch 1: low gain"], ["front  ", "rung"]),
    (5, ["trial 5 is trial 4, started again\ntrial 4: queued again"], []),
    (6, ["trial 6 is trial 4, started again\ntrial 4: queued again"], []),
    (7, ["trial 7: failed", "no route to postgresql://me:***@host/db"], ["front  "]),
    (8, ["trial 8: duplicate", "reason        the same architecture as trial 0"], ["front  "]),
    (9, ["rung          before training", "     1  accuracy 0.9 final"], ["by epoch", " at before"]),
    (10, ["epoch 2: accuracy is nan", "2: nan"], ["better trials", "threshold"]),
    (11, ["trial 11: not run, as the study already had n_trials trials"], []),
]


@pytest.mark.parametrize(("number", "printed", "absent"), EXPLANATIONS, ids=lambda value: str(value)[:8])
def test_a_trial_is_explained(folder, command, number, printed, absent):
    code, out, error = command("tiny", "--why", str(number))
    assert (code, error) == (0, "")
    missing = [text for text in printed if text not in out]
    assert not missing, out
    assert not [text for text in absent if text in out], out


def test_better_trials_are_listed_the_best_first(folder, command):
    out = command("tiny", "--why", "3")[1]
    assert out.index("     1  accuracy") < out.index("     0  accuracy")


@pytest.mark.parametrize("name", ["front.json", "front.csv"])
def test_the_exported_file_has_the_trials_on_the_front(folder, command, name):
    code, out, _ = command("tiny", "--export", name)
    assert code == 0
    assert name in out
    members = front(records(), OBJECTIVES)
    assert [member.number for member in members] == [0, 1]
    with Path(name).open(newline="") as file:
        rows = json.load(file) if name.endswith("json") else list(csv.DictReader(file))
    for row, member in zip(rows, members, strict=True):
        assert int(row["trial"]) == member.number
        assert float(row["accuracy"]) == member.metric
        assert {cost: float(row[cost]) for cost in member.costs} == member.costs
        assert (row["test_accuracy"] or None) == (member.test_metrics.get("accuracy") and row["test_accuracy"])
        if name.endswith("json"):
            assert row["architecture"] == member.architecture
            assert build(row["architecture"], FirstToken())
        else:
            assert f"linformer width={row['model.width']} rank={row['attention.linformer.rank']} " in describe(
                member.architecture, {"model.width", "attention.linformer.rank", "train.lr"}
            )
    assert float(rows[0]["test_accuracy"]) == 0.55


def test_an_empty_front_can_be_printed_and_exported(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    study = tiny_study(f"sqlite:///{DATABASE}", identity=IDENTITY)
    study.set_user_attr("ceilings", [1.0])
    for name, text in (("f.json", "[]"), ("f.csv", "trial,accuracy,latency_ms")):
        assert command("tiny", "--export", name)[0] == 0
        assert Path(name).read_text().strip() == text
    assert "the study 'tiny' has no trials yet" in command("tiny", "--why", "0")[2]


def test_studies_are_listed(folder, command):
    tiny_study(f"sqlite:///{DATABASE}", name="another one")
    code, out, _ = command()
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d", rows[1].pop(1)), "of the latest trial"
    assert rows == [
        ["another one", "", "", "accuracy", "", "", "", "0", "0/0"],
        ["tiny", "FirstToken", "accuracy", "0.9000", "", "none", "2", "3/7"],
    ]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_list_of_studies_fits_a_terminal(folder, width):
    with open_read_only(f"sqlite:///{DATABASE}") as storage:
        table = studies_table({"tiny": TrialStore(load_study(storage, "tiny"))}, width=width)
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(lines)
    for name in ("study", "task", "metric", "best model", "front", "trials", "FirstToken", "accuracy", "0.9000", "3/7"):
        assert name in text, name
    assert ("best baseline" in text, "best cheap model" in text) == (width >= 100, width >= 120)


def test_a_study_is_listed_with_its_best_baseline_and_its_best_cheap_model(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    study = tiny_study(f"sqlite:///{DATABASE}", identity=IDENTITY)
    baselines = [
        {
            "name": name,
            "metrics": {"accuracy": value},
            "test_metrics": {"accuracy": value / 2},
            "latency_ms": 1.0,
            "fit_s": 1.0,
        }
        for name, value in (("majority class", 0.4), ("linear", 0.6))
    ]
    study.set_user_attr("baselines", baselines)
    for latency_ms, accuracy in ((10.0, 0.9), (1.01, 0.8), (1.0, 0.7), (0.5, 0.6)):
        add(study, latency_ms, [accuracy], test_metrics={"accuracy": accuracy - 0.1})
    _, out, _ = command()
    assert "FirstToken │ accuracy │ 0.9000 / 0.8000 │ 0.6000 / 0.3000 │ 0.7000 / 0.6000  │     4 │" in out


CHOICES = [  # options, and the trial chosen of 0 (accuracy 0.6, 0.2 ms) and 1 (0.9, 0.45 ms)
    (["--pick", "1"], 1),
    (["--cheapest"], 0),
    (["--within", "300us"], 0),
    (["--within", "latency_ms=0.5", "--within", "parameters=1234"], 1),
    (["--within", "0.5ms", "--cheapest"], 0),
    (["--at-least", "0.6"], 0),
    (["--at-least", "0.61"], 1),
]


@pytest.mark.parametrize(("options", "number"), CHOICES, ids=str)
def test_a_member_of_the_front_is_chosen(folder, command, options, number):
    code, out, error = command("tiny", *options)
    assert (code, error) == (0, "")
    assert f"chooses trial {number}: accuracy {[0.6, 0.9][number]:.4f}, latency_ms {[0.2, 0.45][number]}" in out


def test_the_front_is_printed_with_what_a_millisecond_buys(folder, command):
    assert "Improvement of accuracy per ms along the front: 1.2 to trial 1." in command("tiny")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pick", "2"], "trial 2 is not on the front: 0, 1"),
        (["--pick", "1", "--within", "0.3ms"], "trial 1 does not fit --pick 1 --within latency_ms=0.3: it has latency"),
        (["--within", "0.1ms"], "no member of the front fits --within latency_ms=0.1: the front has latency_ms from"),
        (["--at-least", "0.95"], "no member of the front fits --at-least 0.95: the front has accuracy from 0.6 to 0.9"),
    ],
)
def test_a_choice_that_nothing_fits_is_refused(folder, command, options, message):
    code, _, error = command("tiny", *options)
    assert code == 2
    assert error.startswith(message)


REFUSED = [  # arguments, and the message
    (["smal"], "there is no study 'smal' in sqlite:///paretoformer.db; there are tiny, bare"),
    (["bare"], "the study 'bare' has no ceilings"),
    (["tiny", "--why", "12"], "trial 12: the study 'tiny' has trials 0 to 11"),
    (["tiny", "--why", "-1"], "trial -1: the study 'tiny' has trials 0 to 11"),
    (["tiny", "--storage", "sqlite:///nowhere.db"], "sqlite:///nowhere.db: no such file"),
    (["--storage", "sqlite:///foreign.db"], "sqlite:///foreign.db can't be opened: "),
    (["--storage", "sqlite://"], "can't be opened: no such table"),
    (["--storage", "nonsense"], "not a database URL"),
    (
        ["--storage", f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/none"],
        ":***@127.0.0.1:1/none: a command line is no place for",
    ),
    (["tiny", "--export", "no/such/folder.csv"], "no/such/folder.csv can't be written: "),
    (["tiny", "--export", "front.txt"], "front.txt: the file name must end in .json or .csv"),
    (
        ["--why", "3"],
        "--why, --export, --plot, --confirm, --beside and the choice of a member need the name of a study",
    ),
    (["--knee"], "--why, --export, --plot, --confirm, --beside and the choice of a member need the name of a study"),
    (["tiny", "--within", "2 years"], "2 years: it must be a latency such as 2ms, or COST=NUMBER with latency_ms"),
    (["tiny", "--within", "0ms"], "0ms: it must be a latency such as 2ms"),
    (["tiny", "--knee", "--cheapest"], "not allowed with argument"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_invalid_arguments_give_a_one_line_message_and_write_nothing(folder, command, arguments, message):
    tiny_study(f"sqlite:///{DATABASE}", name="bare")
    (folder / "foreign.db").write_bytes(b"")
    before = contents(folder)
    code, _, error = command(*arguments)
    assert code == 2
    assert message in error.splitlines()[-1]
    assert error.startswith("usage: ") or len(error.splitlines()) == 1
    assert contents(folder) == before


def test_help_imports_no_heavy_package():
    code = (
        "import sys\nfrom search.front import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'optuna', 'hydra', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for option in ("STUDY", "--why N", "--export FILE", "--storage URL"):
        assert option in shown
