"""Every command, link, path and table of a README: commands compose or parse, links lead to files, lines stay short."""

import re
import shlex
import sys
import textwrap
from pathlib import Path

import fuzz
import picture
import pytest
import thousand
import yaml
from checkpoints import with_checkpoint
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from search import compare, front, ranking, tables
from search.budget.scale import register_resolvers, with_default_space
from search.compress import __main__ as compression
from search.compress import accuracy
from search.config.schema import validate_config
from search.costs import __main__ as costs
from search.export import __main__ as export
from search.load import __main__ as load
from search.programs import inference
from search.proxy import __main__ as proxy
from search.pruning import __main__ as pruning
from search.report import __main__ as report
from search.report import beside
from search.samplers import __main__ as samplers
from search.sync import __main__ as sync
from search.ui import __main__ as ui
from spaces.bench import __main__ as bench
from spaces.bench import decoding, memory
from spaces.bench import limits as bench_limits
from spaces.bench import swaps as bench_swaps
from spaces.space import Space

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "search").rglob("*.md"), *(ROOT / "spaces").rglob("*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^][]*\]\(([^)\s]+)\)|^\[[^][]+\]: (\S+)", re.MULTILINE)
PLACEHOLDERS = {"NUMBER": "1", "FILE": "front.svg", "N": "1", "$seed": "1"}
INVENTED = re.compile(r"\b(mine|pool|parity|NAME)\b|\.\.\.")  # names of what a reader would add


def blocks(text, *languages):
    return [textwrap.dedent(code) for _, language, code in BLOCK.findall(text) if language in languages]


def commands(text):
    """The arguments of every ``python -m`` in code, from the module's name on."""
    lines = [line for code in blocks(text, "sh") for line in code.splitlines()]
    lines += [line[2:] for code in blocks(text, "") for line in code.splitlines() if line.startswith("$ ")]
    lines += [" ".join(code.split()) for code in CODE.findall(BLOCK.sub("", text))]
    for line in lines:
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            if "python" in words:
                yield words[words.index("python") + 2 :]
            elif words and words[0].startswith("+space="):  # short for a search
                yield ["search.run", *words]


FOUND = {" ".join(words): (name, words) for name, text in TEXTS.items() for words in commands(text)}  # each once
QUICK = [" ".join(words) for words in commands(TEXTS["README.md"])]
COMMANDS = [
    pytest.param(words, id=f"{name}: {command}", marks=[] if command in QUICK else pytest.mark.slow)
    for command, (name, words) in FOUND.items()
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_composes_or_parses(words, monkeypatch):
    module, *given = words
    given = [PLACEHOLDERS.get(word, re.sub(r"\$seed\b", "1", word)) for word in given]
    if module == "search.run":
        if not {"--help", "--cfg", "--config-dir"} & set(given):
            check_composition(given)
        return

    def reached(*_, **__):
        raise SystemExit("parsed")

    monkeypatch.setattr(front, "_list_studies", reached)
    monkeypatch.setattr("search.study.stored.load_stored", reached)
    monkeypatch.setattr("search.study.storage.open_read_only", reached)
    monkeypatch.setattr("search.study.database.open_database", reached)
    monkeypatch.setattr("search.load.measure.fill", reached)
    monkeypatch.setattr("search.ui.server.path_of", reached)
    monkeypatch.setattr(compare, "compare", check_names)
    monkeypatch.setattr(accuracy, "show", reached)
    monkeypatch.setattr(beside, "show", reached)
    monkeypatch.setattr(bench, "run", reached)
    monkeypatch.setattr(memory, "run", reached)
    monkeypatch.setattr(decoding, "run", reached)
    monkeypatch.setattr(bench_limits, "select", reached)
    monkeypatch.setattr(bench_swaps, "Checkpoint", reached)
    monkeypatch.setattr(export, "_export", reached)
    monkeypatch.setattr(inference, "load", reached)
    monkeypatch.setattr(fuzz, "supervise", reached)
    monkeypatch.setattr(picture, "draw", reached)
    monkeypatch.setattr(thousand, "measure", reached)
    monkeypatch.setattr(ranking, "_planned", reached)
    for without_options in (pruning, samplers):
        monkeypatch.setattr(without_options, "main", reached)
    assert module not in ("search.pruning", "search.samplers") or not given
    monkeypatch.setattr(sys, "argv", [module, *given])
    entry = {
        "search.front": front.main,
        "tests.fuzz": fuzz.main,
        "tests.picture": picture.main,
        "tests.thousand": thousand.main,
        "search.compare": compare.main,
        "search.tables": tables.main,
        "search.costs": costs.main,
        "search.report": report.main,
        "search.compress": compression.main,
        "spaces.bench": bench.main,
        "spaces.bench.memory": memory.main,
        "spaces.bench.decoding": decoding.main,
        "spaces.bench.limits": bench_limits.main,
        "spaces.bench.swaps": bench_swaps.main,
        "search.pruning": pruning.main,
        "search.samplers": samplers.main,
        "search.export": export.main,
        "search.predict": inference.main,
        "search.sync": sync.main,
        "search.ui": ui.main,
        "search.proxy": proxy.main,
        "search.load": load.main,
        "search.ranking": ranking.main,
    }[module]
    with pytest.raises(SystemExit, match=r"^parsed$"):
        entry()


def check_composition(overrides):
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(
            compose("config", overrides=list(with_checkpoint(*with_default_space(overrides)))), resolve=True
        )
    validate_config(config)
    Space(config["space"])


def check_names(given):
    from search.replay.tables import public, shipped

    for name in given.strategies:
        if not INVENTED.search(name):
            compare.strategy(name)
    assert all(INVENTED.search(name) or name in [*shipped(), *public()] for name in given.tables)
    raise SystemExit("parsed")


def test_the_readmes_hold_commands_of_every_kind():
    modules = {words[0] for parameter in COMMANDS for words in parameter.values}
    assert modules == {
        "tests.fuzz",
        "tests.picture",
        "tests.thousand",
        "search.run",
        "search.front",
        "search.compare",
        "search.tables",
        "search.ranking",
        "search.costs",
        "search.report",
        "search.compress",
        "search.pruning",
        "search.samplers",
        "search.export",
        "search.predict",
        "search.sync",
        "search.ui",
        "search.proxy",
        "search.load",
        "spaces.bench",
        "spaces.bench.memory",
        "spaces.bench.decoding",
        "spaces.bench.limits",
        "spaces.bench.swaps",
    }


OPTIONS = re.findall(r"^\| [^|]* \| `([^|]*)` \|$", TEXTS["search/README.md"].split("| to |")[1], re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_the_table_composes(option):
    check_composition(["+space=nlp", *shlex.split(option)])


@pytest.mark.slow
def test_the_readme_of_the_search_lists_every_space():
    listed = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", TEXTS["search/README.md"], re.MULTILINE))
    assert set(listed) == {path.stem for path in (ROOT / "conf" / "space").glob("*.yaml")}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for space, task in listed.items():
            target = yaml.safe_load((ROOT / "conf" / "task" / f"{task}.yaml").read_text())
            composed = compose("config", overrides=[f"+space={space}"]).task._target_
            assert composed.split(".")[-2] == task, (space, target)


SNIPPETS = [
    pytest.param(code, id=f"{name} {number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(blocks(text, "python"))
    # tests/test_plain.py and tests/test_tutorial.py run these, and look at what becomes of them.
    if name not in ("search/pruning/README.md", "search/TUTORIAL.md")
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_python_snippet_runs(code):
    exec(compile(code, "README.md", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name):
    for inline, reference in LINK.findall(BLOCK.sub("", TEXTS[name])):
        target, _, heading = (inline or reference).partition("#")
        if target.startswith("https://"):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "CHANGELOG.md"])  # it has names of the past
def test_paths_in_code_exist(name):
    for code in CODE.findall(BLOCK.sub("", TEXTS[name])):
        if re.fullmatch(r"(search|spaces|conf|tests|\.ci)/[\w/.*]+", code) and not INVENTED.search(code):
            assert list(ROOT.glob(code)), code


@pytest.mark.parametrize("name", TEXTS)
def test_lines_and_tables_fit_a_page(name):
    lines = TEXTS[name].splitlines()
    assert not [line for line in lines if len(line) > 120]
    tables = [re.sub(r"`|\[|\]\([^)]*\)", "", line) for line in lines if re.match(r" *\|", line)]  # as rendered
    assert not [line for line in tables if len(line) > 100]


def test_the_main_readme_has_at_most_120_lines():
    assert len(TEXTS["README.md"].splitlines()) <= 120


def test_the_chinese_readme_has_the_commands_links_and_sections_of_the_english_one():
    english, chinese = TEXTS["README.md"], TEXTS["README.zh.md"]
    assert list(commands(chinese)) == list(commands(english))
    links = [
        [target for each in LINK.findall(text) for target in each if target and not target.startswith("README")]
        for text in (english, chinese)
    ]
    assert sorted(links[0]) == sorted(links[1])
    for pattern in (r"^## ", r"^- ", r"^\d\. ", r"^\|"):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1], pattern
    numbers = [sorted(set(re.findall(r"\b\d+\.\d\d+\b|\b\d+ ?%", text))) for text in (english, chinese)]
    assert numbers[0] == numbers[1], "results"


def test_the_picture_is_that_of_the_command_below_it_and_has_the_labels_of_today():
    caption = re.search(r"^\*The front of `python -m (.*)`", TEXTS["README.md"], re.MULTILINE)[1]
    assert shlex.split(caption) == picture.SEARCH
    drawn = re.sub(r"<!--.*?-->", "", picture.PICTURE.read_text(), flags=re.DOTALL)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawn)
    labels = ["accuracy on the validation split", "latency (ms), logarithmic scale", "majority class"]
    assert [label for label in labels if label not in texts] == []
    assert re.search(r"\d+ of 36 trials are on the front; stopped before training: \d+", " ".join(texts))


def test_the_version_is_that_of_the_changelog():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    released = re.search(r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$", TEXTS["CHANGELOG.md"], re.MULTILINE)
    assert version[1] == released[1]
