"""Bad input: each gives a message that says where and what is accepted, exit code 2, and leaves nothing behind."""

import fuzz
import pytest
from test_run import command  # noqa: F401 - a fixture

BASE = ["+space=smoke", "tracking=none", "latency=flops"]
SECTION = "missing; it must be a section with settings"
MECHANISM = "it must be a subclass of spaces.attention.Mechanism"
COMMANDS = [  # arguments, and parts of the message
    (["limits=null"], ["limits=null: it must be a mapping of costs such as"]),
    (["limits.latency_ms=nan"], ["limits.latency_ms=nan: it must be a number above 0"]),
    (["costs=[[latency_ms]]"], ["costs=[['latency_ms']]: it must be a list of distinct costs"]),
    (["task=null"], ["task=null: it must be one name; known: arrays"]),
    (["latency=-inf"], ["latency=-inf: it must be one name; known: decode, fastest, flops"]),
    (["pruner=5"], ["pruner=5: it must be one name; known: accuracy_only, ceiling"]),
    (["space=null"], ["space=null: it must be one name"]),
    *(
        ([f"~{name}"], [f"{name}: {SECTION}"])
        for name in ("task", "sampler", "pruner", "latency", "storage", "tracking")
    ),
    *(([f"~{name}"], [f"{name}: missing; it must be "]) for name in ("seed", "n_trials", "costs", "limits", "scale")),
    (["seed=???"], ["seed=???: it must have a value"]),
    (["+space.pattern=[[softmax]]"], ["pattern: ['softmax'] is not among this space's mechanisms"]),
    (["+space.pattern=[]"], ["pattern=[]: it must be a list of mechanisms"]),
    (["+space.roles=5"], ["roles=5: it must be a mapping"]),
    (["space.attention.softmax=1"], ["attention.softmax=1: it must be a mapping with the key _target_"]),
    (["space.model.depth=1000000000000"], ["model.depth=1000000000000: it must be a whole number from 1 to 1000"]),
    (["space.model.width=10000000"], ["model: networks have ", "GB of parameters; this machine has "]),
    (["space.model.width=nan"], ["model: width=nan: it must be a whole number"]),
    (["space.model._target_=os"], ["_target_='os': it must be a subclass of torch.nn.modules.module.Module"]),
    (["space.attention.softmax._target_=os.abort"], [f"_target_='os.abort': {MECHANISM}"]),
    (["space.attention.softmax._target_=no.such.Class"], ["no 'no.such.Class' (No module named 'no')", MECHANISM]),
    (
        ["+space.attention.softmax.rope._target_=os.abort"],
        ["attention.softmax: rope: names a class: it must be true or false"],
    ),
    (["+space.attention.softmax.rope=abc"], ["attention.softmax: rope='abc': it must be true or false"]),
    (["+space.attention.softmax.kv_heads=abc"], ["kv_heads='abc': it must be a whole number or null"]),
    (["+space.model.feed_forward=abc"], ["model: feed_forward='abc': it must be a finite number"]),
    (["space.attention.longformer.window=abc"], ["longformer: window='abc': it must be a whole number"]),
    (["latency.batch=abc"], ["latency: batch='abc': it must be a whole number"]),
    (["storage.heartbeat_s=abc"], ["storage: heartbeat_s='abc': it must be a whole number"]),
    *(
        ([f"++space.train.{name}=abc"], [f"train: {name}='abc': it must be "])
        for name in ("lr", "clip", "warmup", "weight_decay")
    ),
    *(([f"++space.train.{name}=nan"], [f"train: {name}=nan: it must be "]) for name in ("lr", "weight_decay")),
    # What is none of these is not called: os.abort would end the process.
    (["space.model._target_=os.abort"], ["_target_='os.abort': it must be a subclass of torch.nn.modules.module.Mod"]),
    (["task._target_=os.abort"], ["task: _target_='os.abort': it must be a subclass of spaces.tasks.Task"]),
    (["sampler._target_=os.abort"], ["sampler: _target_='os.abort': it must be a subclass of optuna.samplers."]),
    (["pruner._target_=os.abort"], ["pruner: _target_='os.abort': it must be a subclass of "]),
    (["tracking._target_=os.abort"], ["tracking: _target_='os.abort': it must be a subclass of "]),
    (["latency._target_=os.abort"], ["latency: _target_='os.abort': it must be a subclass of "]),
    (["sampler=tpe", "sampler.n_startup_trials=-1"], ["n_startup_trials=-1: it must be a whole number from 0"]),
    (["pruner.target=nan"], ["pruner: target=nan: it must be a finite number or null"]),
    (["latency.batch=1.5"], ["latency: batch=1.5: it must be a whole number"]),
    (["latency.length=1000000"], ["latency: length=1000000: the task has sequence lengths from 1 to 512"]),
    (
        ["latency=measured", "latency.threads=100000"],
        ["latency: threads=100000: it must be a whole number from 1"],
    ),
    (["latency.gflops_per_s=inf"], ["latency: gflops_per_s=inf: it must be a finite number"]),
    (["checkpoints=null"], ["checkpoints=null: it must be the path of a folder"]),
    (["~task", "++task.seed=true"], ["task: names no class; ", "_target_"]),
    (["space=vision", "task.side=1000000000000"], ["task: side=1000000000000: it must be 8..256"]),
    (["study=[a]"], ["study=['a']: it must be "]),
    (["warm_start=nope"], ["warm_start: sqlite:///paretoformer.db: no such file"]),
    (["storage.url=sqlite://"], ["storage: url: sqlite:// names no file; write sqlite:///FILE.db"]),
    (["storage.url=5"], ["storage: url=5: it must be text"]),
    (["storage.heartbeat_s=true"], ["storage: heartbeat_s=true: it must be a whole number"]),
    (["storage=postgresql"], ["storage.url: Environment variable 'PARETOFORMER_STORAGE' not found"]),
    (["tracking=mlflow", "tracking.uri=5"], ["tracking: uri=5: it must be text or null"]),
    (["++costs.extra=[1]"], ["++costs.extra=[1]: cannot be composed; every KEY must be one that --cfg job shows"]),
    (["task.pairs=${nope}", "task.pairs={int:[1,2]}"], ["task: pairs={'int': [1, 2]}: it must be a whole number"]),
    (["costs=ä"], ["costs=ä: not KEY=VALUE; put a value with special characters in quotes"]),
    (["-m"], ["-m: a command is one run; for several use a loop of the shell"]),
]
FILES = [  # the content of a space's file, and parts of the message
    (b"model: [1\ntrain:", ["mine.yaml: line 2: expected ',' or ']'", "write YAML such as model: {depth: 2}"]),
    (b"\x00\xff\xfe\x80", ["mine.yaml: it is no text in UTF-8; write YAML"]),
    ("model: 1".encode("utf-16"), ["mine.yaml: it is no text in UTF-8; write YAML"]),
    (b"- a\n- b", ["space=['a', 'b']: it must be a search space"]),
    (b"", ["attention: missing; a space needs the sections attention, model, train"]),
    (b"defaults:\n- mine\n- _self_", ["mine.yaml: it is among its own defaults; leave 'mine' out of the list"]),
    (b"defaults: 5", ["mine.yaml: defaults=5: it must be a list such as [nlp, _self_]"]),
    (b"defaults:\n- 5: 6", ["mine.yaml: defaults=[{5: 6}]: it must be a list such as [nlp, _self_]"]),
    (b"defaults:\n- /attention: nope", ["Could not find 'attention/nope'; known: adaptive_span, "]),
    (b"model: &a [*a]", ["mine.yaml: a value contains itself, or is nested too deeply"]),
    (b"[" * 100_000, ["mine.yaml: a value contains itself, or is nested too deeply"]),
    (b"model: !!python/object/apply:os.getcwd []", ["mine.yaml: line 1: could not determine a constructor"]),
    (b"null: 4", ["mine.yaml: a key is null or of another type that no key can have; write text"]),
    (b"model: 1\nmodel: 2", ["mine.yaml: line 2: found duplicate key model"]),
    (b"model: '${a: <}'", ["model: token recognition error at: '<'; write an interpolation such as ${seed}, or"]),
    (b"model: ${nope}", ["space.model: Interpolation key 'nope' not found; write that of a key, such as ${seed}, "]),
    (b"model: ${nope:1}", ["space.model: Unsupported interpolation type nope; write that of a key, such as ${seed}, "]),
    (b"model: '${scale:1,2}'", ["${scale:...}: 2 values; it takes one for each of tiny, small, base"]),
]
# Each takes up to a second; every sixth does so in the quick suite.
ROWS = [pytest.param(*row, marks=[] if at % 6 == 0 else pytest.mark.slow) for at, row in enumerate(COMMANDS)]
FILE_ROWS = [pytest.param(*row, marks=[] if at % 6 == 0 else pytest.mark.slow) for at, row in enumerate(FILES)]


def check_refused(result, messages):
    code, _, error = result
    assert code == 2, error
    assert all(message in error for message in messages), error
    assert not fuzz.PYTHONS_WORDS.search(error)


@pytest.mark.parametrize(("arguments", "messages"), ROWS, ids=lambda value: " ".join(value)[:60])
def test_a_malformed_command_is_refused(command, monkeypatch, arguments, messages):  # noqa: F811
    monkeypatch.delenv("PARETOFORMER_STORAGE", raising=False)
    check_refused(command(*BASE, *arguments), messages)
    assert not list(command.folder.iterdir())


@pytest.mark.parametrize(("content", "messages"), FILE_ROWS, ids=lambda value: str(value)[:40])
def test_a_malformed_file_of_a_space_is_refused(command, content, messages):  # noqa: F811
    file = command.folder / "my" / "space" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    check_refused(command("--config-dir", "my", "+space=mine", *BASE[1:]), messages)
    assert [path for path in command.folder.rglob("*") if path.is_file()] == [file]


SLICE = range(1010, 1030)  # of the cases of python -m tests.fuzz


@pytest.mark.parametrize("number", [pytest.param(n, marks=[] if n % 20 == 0 else pytest.mark.slow) for n in SLICE])
def test_a_random_malformed_case_is_refused_or_accepted(number):
    given = fuzz.case(0, number)
    problem, message = fuzz.attempt(given)
    assert not problem, f"{given.command} {given.arguments}\n{message}"


@pytest.mark.parametrize(
    ("code", "message", "left", "problem"),
    [
        (2, "task: length=0: it must be a whole number", [], ""),
        (1, "task: length=0: it must be a whole number", [], "exit code 1"),
        (2, "task: length=0: it must be a whole number", ["a.db"], "left behind: a.db"),
        (2, "", [], "no message"),
        (
            2,
            "task: '<' not supported between 'str' and 'int'; it must be",
            [],
            "Python's words: not supported",
        ),
        (2, "width=0: it must be a whole number", [], "the message does not say where"),
        (2, "task: length=0: bad", [], "the message does not say what is accepted"),
    ],
)
def test_what_the_fuzz_objects_to(code, message, left, problem):
    assert fuzz._problem(fuzz.Case([], where=["task"]), code, message, left).startswith(problem)
    assert bool(fuzz._problem(fuzz.Case([], where=["task"]), code, message, left)) == bool(problem)
