"""Malformed commands, spaces and data files: ``python -m tests.fuzz --count 1500 --seed 0``.

Case ``i`` of a seed is always the same; ``--only I`` runs one and prints its messages. A case passes if it is refused
with exit code 2 and a message that says where and what is accepted, in plain words, with nothing left behind; or if it
is accepted, up to the opening of the storage. Every ``TO_THE_END``-th accepted case is run to its end: one trial of one
epoch. Cases run in child processes, so that a crash of one ends no other.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

TO_THE_END = 5
TIME_LIMIT_S, MEMORY_LIMIT = 120, 24 * 2**30  # of CPU time, which other processes do not change
TOO_LONG = f"took more than {TIME_LIMIT_S} s"
USED_UP = "of the time budget were used up before the first trial"  # of a run that is right and has too little of it
QUICK = ["tracking=none", "latency=flops", "n_trials=1", "baselines=false", "sampler=random", "pruner=none"]
VALUES = [
    *["null", "true", "abc", "''", "-1", "0", "1", "2", "3", "7", "0.5", "-0.5", "1.5", "1e30", "nan", "inf", "-inf"],
    *[
        "100000",
        "1000000000000",
        "[]",
        "{}",
        "[1,2]",
        "[a]",
        "[[a]]",
        "[null]",
        "{a:1}",
        "{choice:[1,2]}",
        "ä",
        "'a b'",
    ],
    *["{choice:[]}", "{choice:{a:1}}", "{int:[1,2]}", "{int:[2,1]}", "{int:[a,b]}", "{float:[0.1,0.2]}", "{float:1}"],
    *["{float:[0.1,nan]}", "{int:[1,3],step:0}", "{choice:[1,abc]}", "{choice:[16,nan]}", "{clip:8}", "{share:2}"],
    *["{choice:[0.1,x],as:share}", "{_target_:os.getcwd}", "{_target_:5}", "${nope}", "???", "'${oc.env:NO_SUCH}'"],
]
TARGETS = [
    "os",
    "os.getcwd",
    "builtins.print",
    "no.such.Class",
    "",
    "a..b",
    "spaces.tasks.recall.Recall",
    "torch.nn.Linear",
]
SPACES = ["smoke"] * 6 + ["nlp", "translation", "generation", "vision", "speech", "text", "multitask", "long"]
PYTHONS_WORDS = re.compile(
    r"Traceback|not supported between|has no attribute|object is not|invalid literal|unhashable|expected str|NoneType|"
    r"unexpected keyword|positional argument|object at 0x|index out of range|KeyError|TypeError|AttributeError|"
    r"ValueError|can only concatenate|cannot unpack|codec can't|full_key|object_type|<class |pydantic|RuntimeError|"
    r"could not convert|must be real number|too many values|not enough values|ndarray|inhomogeneous|Errno"
)
ACCEPTED_WORDS = re.compile(
    r"must |not KEY=VALUE|is not supported|not JSON|unusable|can't be read|no Parquet|, as written by|is not a task|"
    r"no examples|possible|known: |takes|accepts|write |missing|is not among|are not|no such|names? |there are |"
    r"needs?\b|leave|unknown|can't be|choose|use |it holds|cannot|must divide|it is |too|give |empty|contains|no file|"
    r"duplicate|has |not found|is above|only|usage: |mismatched input|extraneous|Ambiguous|Could not"
)


class Accepted(BaseException):
    """The configuration was accepted."""


@dataclass
class Case:
    """A command in a folder with files."""

    arguments: list[str]
    where: list[str] = field(default_factory=list)  # the message must have one of them
    files: dict[str, bytes] = field(default_factory=dict)
    command: str = "run"


def case(seed: int, number: int) -> Case:
    """Case ``number`` of a seed."""
    chance = random.Random(f"{seed} {number}")
    return chance.choices([_command, _space_file, _data_file, _other_command], [60, 20, 15, 5])[0](chance)


def _command(chance: random.Random) -> Case:
    """A run with one or two overrides of any key, among them wrong ones."""
    space = chance.choice(SPACES)
    arguments, where = [f"+space={space}", *QUICK], []
    for _ in range(chance.choice([1, 1, 2])):
        key = chance.choice(_keys(space))
        value = chance.choice(TARGETS if key.endswith("_target_") else VALUES)
        kind = chance.choices(["set", "drop", "add", "misspell"], [70, 8, 14, 8])[0]
        if kind == "add":
            key = (
                f"{key.rpartition('.')[0] or key}.{chance.choice(['extra', 'rope', 'choice', 'as', 'dropout', 'seed'])}"
            )
        if kind == "misspell":
            place = chance.randrange(len(key))
            key = key[:place] + chance.choice("xyz_.") + key[place + 1 :]
        arguments.append(f"~{key}" if kind == "drop" else f"{'++' if kind == 'add' else ''}{key}={value}")
        where.append(key)
    return Case(arguments, [part for key in where for part in key.split(".") if part])


@cache
def _keys(space: str) -> list[str]:
    """The dotted keys of a composed configuration."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from search.budget.scale import register_resolvers
    from search.config import CONF

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tree: Any = OmegaConf.to_container(compose("config", overrides=[f"+space={space}", *QUICK[:2]]))
    return sorted(_leaves(tree))


def _leaves(node: Any, where: str = "") -> Iterator[str]:
    if where:
        yield where
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{where}.{name}" if where else str(name))


def _space_file(chance: random.Random) -> Case:
    """A run of a space of the user's: the YAML of a shipped one with changed bytes, lines or values."""
    import yaml

    from search.config import CONF

    content = (CONF / "space" / f"{chance.choice(SPACES[:10])}.yaml").read_bytes()
    if chance.random() < 0.5:
        tree = yaml.safe_load(content)
        for _ in range(chance.choice([1, 2])):
            _change_value(tree, chance)
        content = yaml.safe_dump(tree, sort_keys=False).encode()
    else:
        content = _change_bytes(content, chance)
    return Case(["--config-dir", "my", "+space=mine", *QUICK], files={"my/space/mine.yaml": content})


def _change_value(node: Any, chance: random.Random) -> None:
    """Replace, remove or rename something in a tree."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(node[key], (dict, list)) and node[key] and chance.random() < 0.7:
        _change_value(node[key], chance)
    elif chance.random() < 0.25:
        del node[key]
    elif chance.random() < 0.2 and isinstance(node, dict):
        node[chance.choice(["x", 5, None, True, "choice", "_target_"])] = node.pop(key)
    else:
        odd = [None, True, -1, 0, 1.5, float("nan"), 10**12, "abc", "", [], {}, [[1]], {"choice": []}, {"int": [2, 1]}]
        node[key] = chance.choice([*odd, "${nope}", {"_target_": "os.getcwd"}, {5: 6}])


def _change_bytes(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 10])):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice([1, 4, 40]))
        odd = [
            b"",
            b"\0",
            b"\xff\xfe",
            b"{",
            b"[" * 9,
            b'"',
            b"\n",
            b"\t",
            b": ",
            b"- ",
            b"&a ",
            b"*a",
            b"\xc3",
            b"nan",
            b"<<: ",
        ]
        changed[start:end] = chance.choice([*odd, bytes(changed[start:end]) * 2, chance.randbytes(8)])
    if chance.random() < 0.15:
        return bytes(changed[: chance.randrange(len(changed) + 1)])
    return bytes(changed)


def _data_file(chance: random.Random) -> Case:
    """A run on data of the user's of which one file has changed bytes, is empty, or is missing."""
    name, arguments, files = chance.choice(_data_sets())
    files, broken = dict(files), chance.choice(sorted(files))
    kind = chance.choices(["bytes", "empty", "missing", "noise", "brackets", "setting"], [60, 6, 6, 8, 4, 16])[0]
    if kind == "missing":
        del files[broken]
    elif kind != "setting":
        noise = {"empty": b"", "noise": chance.randbytes(2000), "brackets": b"[" * 100_000}
        files[broken] = noise[kind] if kind in noise else _change_bytes(files[broken], chance)
    else:
        keys = [
            "text",
            "label",
            "length",
            "train",
            "tokens",
            "vocabulary",
            "side",
            "patch",
            "seconds",
            "classes",
            "metric",
        ]
        arguments = [*arguments, f"++task.{chance.choice(keys)}={chance.choice(VALUES)}"]
    return Case(["+space=smoke", *arguments, *QUICK], ["task", name], files)


@cache
def _data_sets() -> list[tuple[str, list[str], dict[str, bytes]]]:
    """Names, arguments and files of small valid data sets."""
    from audio_files import write_recordings
    from image_files import write_arrays, write_images
    from text_tables import FORMATS, write_table

    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def add(name: str, arguments: list[str], path: Path) -> None:
            paths = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            found.append((name, arguments, {str(each.relative_to(root)): each.read_bytes() for each in paths}))

        columns = ["task.text=review", "task.label=stars", "task.length=16"]
        for ending in FORMATS:
            add("file", ["task=table", f"task.file=a.{ending}", *columns], write_table(root / f"a.{ending}"))
        add("folder", ["task=images", "task.folder=images"], write_images(root / "images"))
        add("folder", ["task=recordings", "task.folder=wav"], write_recordings(root / "wav"))
        add("file", ["task=arrays", "task.file=a.npz"], write_arrays(root / "a.npz"))
    return found


def _other_command(chance: random.Random) -> Case:
    """A command that reads studies or tables."""
    name = chance.choice(["front", "tables", "costs", "compare"])
    words = [
        "a",
        "--storage",
        "sqlite:///no.db",
        "nonsense",
        "--why",
        "-1",
        "x",
        "--export",
        "a.txt",
        "--seeds",
        "0",
        "*",
    ]
    words += ["--plot", "no/such/a.svg", "--within", "2", "--knee", "", "--jobs", "--strategies", "[", "a.json.gz"]
    files = {"a.json.gz": chance.randbytes(100), "a": b"x"}
    return Case(chance.choices(words, k=chance.choice([1, 2, 3])), files=files, command=name)


def run(given: Case, *, to_the_end: bool) -> tuple[str, str]:
    """What is wrong with a case, empty if nothing is, and its messages."""
    out, error = io.StringIO(), io.StringIO()
    before = set(given.files)
    code: Any = 0
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = _call(given, to_the_end=to_the_end) or 0
    except SystemExit as exit_:
        code = exit_.code or 0
    except Accepted:
        return "", "accepted"
    except TimeoutError:
        return TOO_LONG, ""
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    message = error.getvalue()
    left = sorted(str(each) for each in Path().rglob("*") if each.is_file() and str(each) not in before)
    if code == 0 or (code == 1 and USED_UP in message):
        return "", "accepted"
    return _problem(given, code, message, left), message


def _problem(given: Case, code: Any, message: str, left: list[str]) -> str:
    if code != 2:
        return f"exit code {code}"
    if left:
        return f"left behind: {', '.join(left)}"
    if not message.strip():
        return "no message"
    if found := PYTHONS_WORDS.search(message):
        return f"Python's words: {found[0]}"
    if given.where and not any(part in message for part in given.where):
        return "the message does not say where"
    if not ACCEPTED_WORDS.search(message):
        return "the message does not say what is accepted"
    return ""


def _too_long(*_: object) -> None:
    raise TimeoutError


def _call(given: Case, *, to_the_end: bool) -> Any:
    import importlib

    from hydra.core.global_hydra import GlobalHydra

    import search.assemble as assemble

    @functools.wraps(assemble.open_storage)
    def accept(**_: Any) -> None:
        raise Accepted

    module = importlib.import_module({"costs": "search.costs.__main__"}.get(given.command, f"search.{given.command}"))
    GlobalHydra.instance().clear()
    ended = [*given.arguments, "++space.train.epochs=1"] if to_the_end else given.arguments
    sys.argv = [given.command, *ended]
    opened, assemble.open_storage = assemble.open_storage, assemble.open_storage if to_the_end else accept
    try:
        return module.main()
    finally:
        assemble.open_storage = opened


def work(seed: int, numbers: list[int]) -> None:
    """Run cases and print a line of JSON before and after each; end after one that took too long.

    Its exception may have ended an import, after which nothing works.
    """
    import search.assemble  # noqa: F401 - takes its time once, outside of any case

    printed, accepted = sys.stdout, 0
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for number in numbers:
        print(json.dumps({"begun": number}), file=printed, flush=True)
        problem, message = attempt(case(seed, number))
        if message == "accepted":
            accepted += 1
            if accepted % TO_THE_END == 0:
                problem, message = attempt(case(seed, number), to_the_end=True)
        print(json.dumps({"ended": number, "problem": problem, "message": message}), file=printed, flush=True)
        if problem == TOO_LONG:
            return


def attempt(given: Case, *, to_the_end: bool = False) -> tuple[str, str]:
    """Run a case in a folder of its own, which is removed."""
    home, folder = Path.cwd(), tempfile.mkdtemp(prefix="fuzz-")
    try:
        os.chdir(folder)
        for name, content in given.files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)
        return run(given, to_the_end=to_the_end)
    finally:
        os.chdir(home)
        shutil.rmtree(folder, ignore_errors=True)


def supervise(seed: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Run cases in a child process, and in a further one after a crash; the results."""
    results: list[dict[str, Any]] = []
    while numbers:
        command = [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--cases", ",".join(map(str, numbers))]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, check=False)
        lines = [json.loads(line) for line in child.stdout.splitlines() if line.startswith('{"')]
        results += [line for line in lines if "ended" in line]
        begun, ended = ({line[key] for line in lines if key in line} for key in ("begun", "ended"))
        results += [
            {"ended": number, "problem": f"died: {child.returncode}", "message": ""} for number in begun - ended
        ]
        if not begun:
            raise RuntimeError("a child process could not begin")
        numbers = [number for number in numbers if number not in begun]
    return results


def main() -> int:
    """Run the cases, print those that fail, and the counts; 1 if any fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="I")
    parser.add_argument("--cases", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.cases:
        work(asked.seed, [int(number) for number in asked.cases.split(",")])
        return 0
    if asked.only is not None:
        given = case(asked.seed, asked.only)
        print(given.command, given.arguments, *given.files)
        print(*attempt(given), sep="\n")
        return 0
    shares = [list(range(job, asked.count, asked.jobs)) for job in range(asked.jobs)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        results = [each for found in pool.map(lambda share: supervise(asked.seed, share), shares) for each in found]
    for each in sorted(results, key=lambda each: each["ended"]):
        if each["problem"]:
            given = case(asked.seed, each["ended"])
            print(f"{each['ended']}: {each['problem']}: {given.command} {given.arguments}\n{each['message'][-1500:]}\n")
    counts = Counter(
        "failed" if r["problem"] else "accepted" if r["message"] == "accepted" else "refused" for r in results
    )
    print(f"seed {asked.seed}: {len(results)} cases: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts)))
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
