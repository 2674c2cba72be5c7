"""The command ``search.run``, in this process to save the start of Python and imports."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import write_checkpoint
from hydra.core.global_hydra import GlobalHydra
from text_tables import write_table
from tiny_task import TREE, FirstToken, opened, tiny_config

from search.assemble import build_search
from search.costs.latency import FlopsLatency, MeasuredLatency
from search.costs.measured import MeasuredCosts, largest_costs
from search.run import main
from spaces.space import Space

ROOT = Path(__file__).parents[1]
QUICK = ["task=digits", "tracking=none", "latency=flops", "sampler=random"]
TINY = ["+space=smoke", *QUICK, "space.train.epochs=1", "n_trials=2"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run ``search.run`` with arguments in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["search.run", *arguments])
        GlobalHydra.instance().clear()
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.folder = tmp_path
    return run


REFUSED = [  # arguments, and parts of the message
    (["n_trials=3"], ["Name a search space: python -m search.run +space=nlp", "smoke"]),
    (["+space=nplp"], ["space/nplp", "nlp"]),
    (["space=nlp"], ["+space=nlp"]),
    (["+space=nlp", "task=recal"], ["task/recal", "recall"]),
    (["+space=nlp", "pruner=asha"], ["pruner/asha", "moasha"]),
    (["+space=nlp", "space.modl.depth=2"], ["space.modl", "model"]),
    (
        ["+space=nlp", "+space.modl.depth=2"],
        ["space: 'modl' is unknown; it accepts input, attention, model, pattern, roles, train"],
    ),
    (["+space=pretrained", "space.model.checkpoint=nope"], ["space.model.checkpoint='nope': not found; it must be a"]),
    (["+space=nlp", "+foo=1"], ["unknown key 'foo'", "n_trials"]),
    (["+space=nlp", "n_trials=0"], ["n_trials=0: it must be a whole number from 1"]),
    (["+space=nlp", "n_trials=many", "seed=-1"], ["n_trials='many'", "seed=-1"]),
    (
        ["+space=nlp", "budget=10m", "patience=0"],
        ["budget='10m': it must be a duration such as 90s, 10min", "patience=0: it must be a number of trials from 1"],
    ),
    (
        ["+space=nlp", "patience=soon"],
        ["patience='soon': it must be a number of trials from 1, a duration"],
    ),
    (
        ["+space=nlp", "costs=[latency]"],
        ["costs=['latency']: it must be a list of distinct costs", "; costs are latency_ms, parameters"],
    ),
    (
        ["+space=nlp", "+prefer.latency=2"],
        ["prefer={'latency': 2}: it must be a mapping of costs", "costs are latency_ms"],
    ),
    (["+space=nlp", "+prefer.flops=2"], ["prefer.flops: it is not among the costs of the front, latency_ms"]),
    (["+space=nlp", "+prefer.latency_ms=2", "sampler=tpe"], ["prefer: only sampler=surrogate searches near"]),
    (["+space=nlp", "latency.mode=decode"], ["latency.mode=decode: Encoder is no language model"]),
    (["+space=nlp", "latency=remote", "latency.host=a", "latency.ssh=nossh"], ["latency: ", "nossh"]),
    (["+space=nlp", "limits.latency_ms=-1"], ["limits.latency_ms=-1: it must be a number above 0"]),
    (["+space=nlp", "+limits.latency=1"], ["limits: unknown key 'latency'; known: latency_ms"]),
    (
        ["+space=nlp", "space.model.depth={itn:[1,2]}"],
        ["space.model.depth.itn: unknown key; known: int"],
    ),
    (["+space=nlp", "space.model.width.choice=[]"], ["model.width: the choice is empty"]),
    (["+space=nlp", "+space.pattern=[softmx]"], ["pattern: 'softmx' is not among this space's mechanisms: softmax"]),
    (
        ["+space=translation", "space.pattern=[softmax]"],
        ["space.pattern: a list and a mapping cannot be merged", "'~space.pattern' '+space.pattern=[softmax]'"],
    ),
    (
        ["+space=nlp", "space.model.width=24", "space.model.heads=5"],
        ["width=24, heads=5: heads must divide"],
    ),
    (["+space=nlp", "+space.model.depht=3"], ["model: Encoder does not take 'depht'; it takes width, feed_forward"]),
    (["+space=nlp", "space.train.lr=-1"], ["train: lr=-1: it must be above 0"]),
    (["+space=nlp", "+space.train.momentum=1"], ["train: TrainSettings does not take 'momentum'"]),
    (["+space=nlp", "+space.train.flip=0.5"], ["train: flip=0.5: it is for images; Recall has token ids"]),
    (["+space=nlp", "device=gpu"], ["device='gpu': it must be auto, cpu, mps, cuda"]),
    (["+space=nlp", "precision=16"], ["precision=16: it must be 32-true, bf16-mixed or 16-mixed"]),
    (["+space=nlp", "+pruner.etta=3"], ["pruner: Ceiling does not take 'etta'"]),
    (["+space=nlp", "pruner=moasha", "pruner.eta=1"], ["pruner: eta=1"]),
    (["+space=nlp", "+sampler.population=3"], ["sampler: SurrogateSampler does not take 'population'"]),
    (["+space=nlp", "task=digits", "space.attention.linformer.rank=65"], ["attention.linformer: rank=65", "1..64"]),
    (
        ["+space=nlp", "task=digits", "space.attention.linformer.rank=65"],
        ["narrow it, 'space.attention.linformer.rank=...', or drop it, '~space.attention.linformer'"],
    ),
    (["+space=nlp", "task=text", "task.predict=next_byte"], ["attention.linformer", "causal"]),
    (["+space=nlp", "task=text", "task.folder=nowhere"], ["nowhere"]),
    (["+space=speech", "task=recordings"], ["task: folder=None: name a folder that contains a folder of audio files"]),
    (["+space=nlp", "baselines=3"], ["baselines=3: it must be true or false"]),
    (["+space=nlp", "task=[1]"], ["task=[1]: it must be one name; known: arrays, asr, "]),
    (["+space=[nlp]"], ["+space=[nlp]: it must be one name; known: generation, long, "]),
    (["+space="], ["+space=: it must be one name; known: generation, long, "]),
    (["+space=nlp", "sampler=[tpe]"], ["sampler=[tpe]: it must be one name; known: gp, "]),
    (["+space=nlp", "pruner=3"], ["pruner=3: it must be one name; known: "]),
    (["+space=nlp", "storage=null"], ["storage=null: it must be one name; known: grpc, postgresql, sqlite"]),
    (["+space=nlp", "limits=3"], ["limits=3: it must be a mapping of costs such as {latency_ms: 2.0}"]),
    (
        ["+space=nlp", "study=[1]", "warm_start=3"],
        ["study=[1]: it must be up to 100 letters", "warm_start=3: it must be the name"],
    ),
    (["+space=nlp", "tracking.uri=[1]"], ["tracking: uri=[1]: it must be text or null"]),
    (["+space=nlp", "storage.url=nonsense"], ["storage: url: not a database URL"]),
]


# Each composes a configuration; every tenth does so in the quick suite.
ROWS = [pytest.param(*row, marks=[] if number % 10 == 0 else pytest.mark.slow) for number, row in enumerate(REFUSED)]


@pytest.mark.parametrize(("arguments", "messages"), ROWS, ids=lambda value: " ".join(value)[:60])
def test_an_invalid_configuration_is_refused_before_anything_is_written(command, arguments, messages):
    code, out, error = command(*arguments)
    assert code == 2
    assert all(message in error for message in messages), error
    assert "Traceback" not in error
    assert all(line.endswith(" ...") for line in out.splitlines()), "what was done before it was found"
    assert not list(command.folder.iterdir())


def test_all_invalid_settings_are_reported_at_once(command):
    changes = ["space.attention.linformer.rank=65", "space.attention.longformer.window=64"]
    _, _, error = command("+space=nlp", "task=digits", *changes)
    assert "attention.linformer: rank=65" in error
    assert "attention.longformer: window=64" in error


@pytest.mark.slow
def test_a_run_prints_its_trials_and_front_and_can_be_continued(command):
    code, out, error = command(*TINY)
    assert (code, error) == (0, "")
    assert "\nBaselines, accuracy on validation: majority class 0." in out
    assert "The front: " in out
    assert "2 trials" in out
    assert "other" in out
    code, out, _ = command(*TINY, "n_trials=3", "baselines=false")
    assert code == 0
    assert "3 trials" in out
    printed = [line for line in out.splitlines() if re.match(r"[* ] +\d+ +\d+\.", line)]
    assert len(printed) == 1, "one more; a duplicate before it is not printed"
    assert not re.search(r"^[* ]   1 ", out, re.MULTILINE), "the first two are not repeated"


@pytest.mark.slow
def test_a_run_whose_trials_all_failed_says_how_to_find_out_why(command, monkeypatch):
    def fail(self, outputs):
        raise KeyError("no such metric")

    monkeypatch.setattr("spaces.tasks.Task.compute_metrics", fail)
    code, out, _ = command(*TINY)
    assert (code, "KeyError: 'no such metric'" in out) == (1, True)
    assert "Why trial 1 failed: python -m search.front smoke-digits --why 1" in out


def test_a_run_prints_json_for_programs(command):
    code, out, error = command(*TINY, "output=json", "n_trials=1")
    assert (code, error) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    events = [event for event in found if event["event"] != "status"]  # on a slow machine
    kinds = dict.fromkeys(event["event"] for event in events)
    assert list(kinds) == ["phase", "message", "trial_progress", "trial_ended", "run_ended", "front", "seconds"]
    (ended,) = [event for event in events if event["event"] == "trial_ended"]
    (front,) = [event for event in events if event["event"] == "front"]
    assert ended["on_front"]
    assert front["members"][0]["accuracy"] == ended["metric"]
    code, out, _ = command(*TINY, "output=quiet", "n_trials=1")
    assert out.splitlines()[:2] == ["The run ends: the study has 1 trials (n_trials=1).", "The front: 1 of 1 trials"]


@pytest.mark.slow
def test_a_run_with_a_budget_says_why_it_ended(command):
    code, _, err = command(*TINY, "n_trials=auto", "baselines=false", "budget=0.1s", "workers=1")
    assert code == 1
    assert "s of the time budget were used up before the first trial, after" in err
    code, out, _ = command(*TINY, "budget=1h", "workers=1")
    assert code == 0
    assert "The run ends: the study has 2 trials (n_trials=2).\n" in out


@pytest.mark.slow
def test_a_run_fine_tunes_a_checkpoint(command):
    rows = [(f"a {'good' if at % 2 else 'bad'} book {'a' * (at % 9)}", at % 2) for at in range(200)]
    write_table(command.folder / "a.csv", rows)
    checkpoint = write_checkpoint(command.folder / "bert", positions=128)
    own = [
        "task=table",
        "task.file=a.csv",
        "task.text=review",
        "task.label=stars",
        f"space.model.checkpoint={checkpoint}",
    ]
    recipe = ["space.train.lr=0.02", "space.train.batch_size=4", "space.train.epochs=8", "space.input.length=16"]
    code, out, _ = command("+space=pretrained", *own, *recipe, "latency=flops", "tracking=none", "n_trials=3")
    assert code == 0
    best = float(re.search(r"The best accuracy is (\d\.\d+)", out)[1])
    assert best > 0.9, "good and bad are words of its vocabulary"


@pytest.mark.slow
def test_a_study_of_another_space_is_refused(command):
    assert command(*TINY)[0] == 0
    code, _, error = command(*TINY, "space.model.heads=1")
    assert code == 2
    assert "space.model.heads: the study has 2, this run has 1" in error
    assert command(*TINY, "space.model.heads=1", "study=other")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["space.model.width=16"], "width=16"),
        (["space.model.width.choice=[8]"], "width=8"),
        (["~space.attention.softmax"], "longformer"),
        (["+space.pattern=[longformer,softmax]", "space.model.depth=2"], "longformer+softmax"),
        (["+attention@space.attention=synthesizer", "+space.pattern=[synthesizer]"], "synthesizer"),
    ],
)
def test_overrides_change_the_space(command, change, expected):
    code, out, error = command(*TINY, "n_trials=1", *change)
    assert code == 0, error
    settings = expected.partition("=")[0]
    assert expected in out or settings == "width", out


def test_help_lists_every_option_and_imports_no_heavy_package():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from search.run import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'optuna', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for group in ("space", "task", "attention", "pruner", "sampler", "storage", "latency", "tracking"):
        for option in (ROOT / "conf" / group).glob("*.yaml"):
            assert option.stem in shown
        assert f"{group}: " in shown


def test_the_composed_configuration_is_printed(command):
    code, out, _ = command("+space=nlp", "--cfg", "job")
    assert code == 0
    assert "linformer" in out
    assert "n_trials: " in out


def test_no_architecture_costs_more_than_the_reference_point():
    names, costs = ["latency_ms", "parameters", "flops"], MeasuredCosts(FirstToken(), FlopsLatency())
    every = [costs.costs(corner) for corner in Space(TREE).corners()]
    columns = [[each.timing.ms for each in every], *([each.counted[name] for each in every] for name in names[1:])]
    assert largest_costs(Space(TREE), costs, names) == [max(column) for column in columns]
    measured = MeasuredCosts(FirstToken(), MeasuredLatency(repeats=1, rounds=1, sleep_s=0.0, wait_s=0.0))
    largest_costs(Space(TREE), measured, ["latency_ms"])
    assert not measured._counted, "counting is slow where text is generated"


def test_candidates_of_a_run_are_within_its_limits(tmp_path):
    def candidates(study, limits):
        built = build_search({**tiny_config(tmp_path), "study": study, "limits": limits}, Space(TREE), [])
        opened.append(built.store.study._storage._backend)
        return built.search.proposer.candidates(built.store.history(built.search.objectives))

    parameters = sorted(each.costs["parameters"] for each in candidates("free", {"parameters": 1e9}))
    limit = parameters[len(parameters) // 2]
    assert limit < parameters[-1]
    limited = candidates("limited", {"parameters": limit})
    assert limited
    assert all(each.costs["parameters"] <= limit for each in limited)
