"""A password is in no file that a run writes, in no message and on no command line."""

import sys
from pathlib import Path

import pytest
from test_run import TINY, command  # noqa: F401 - a fixture

from search import front, tables
from search.config import check_no_password, hide_passwords
from search.costs import __main__ as costs
from search.export import __main__ as export
from search.proxy import __main__ as proxy
from search.report import __main__ as report
from search.sync import __main__ as sync
from spaces.dimensions import ConfigError

SECRET = "hunter2"
DEAD = f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/none"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("at postgresql://me:hunter2@host/db, twice", "at postgresql://me:***@host/db, twice"),
        ("postgresql://me:hun@ter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hunter2/@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:hunter2@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?password=hunter2", "postgresql://host/db?password=***"),
        ("postgresql://host/db?user=me&password=hunter2&sslmode=require", "...?user=me&password=***&sslmode=require"),
        ("postgresql://host/db?sslpassword=hunter2", "postgresql://host/db?sslpassword=***"),
        ("host=here Password=hunter2 dbname=db", "host=here Password=*** dbname=db"),
        ("https://host/?access_token=hunter2", "https://host/?access_token=***"),
        *((text, text) for text in ("postgresql://me@host/db", "sqlite:///a:b@c.db", "space.train.token_dropout=0.1")),
    ],
)
def test_passwords_in_urls_are_hidden(text, hidden):
    assert hide_passwords(text).endswith(hidden.removeprefix("..."))
    if text == hidden:
        check_no_password([text])
    else:
        with pytest.raises(ConfigError) as caught:
            check_no_password(["+space=nlp", text])
        assert not any(part in str(caught.value) for part in ("hun", "ter2"))


def everything_written(folder):
    """The bytes of all files, by their path, and the paths themselves."""
    for path in sorted(folder.rglob("*")):
        yield path, str(path).encode()
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of libraries, when MLflow is imported
def test_no_file_that_a_run_writes_has_the_password(command, monkeypatch):  # noqa: F811
    address = f"sqlite:///file:studies.db?password={SECRET}&uri=true"  # SQLite ignores settings that it does not know
    monkeypatch.setenv("PARETOFORMER_STORAGE", address)
    arguments = [argument for argument in TINY if argument != "tracking=none"]
    code, out, error = command(*arguments, "storage=postgresql")
    assert code == 0, error
    assert SECRET not in out + error
    written = dict(everything_written(command.folder))
    assert [path.name for path in written if "studies.db" in path.name]
    assert [path for path in written if path.suffix == ".yaml" and b"password=***" in written[path]], (
        "MLflow's artifact"
    )
    assert [path for path, content in everything_written(command.folder) if SECRET.encode() in content] == []


FAILING = [  # arguments of search.run, with the password in the environment
    ["storage=postgresql"],
    ["storage=postgresql", "n_trials=0"],
    ["storage=postgresql", "+storage.more=1"],
    ["storage=postgresql", "warm_start=other"],
    ["storage=postgresql", "storage.heartbeat_s=${storage.url}"],
    ["storage=postgresql", "study=[${storage.url}]"],
    ["storage=postgresql", "space.model.width=${storage.url}"],
    ["storage=postgresql", "task.seed=${storage.url}"],
    ["storage=postgresql", "device=${storage.url}"],
    ["storage=${oc.env:PARETOFORMER_STORAGE}"],
    ["storage.url=${oc.env:PARETOFORMER_STORAGE}", "space.modl=1"],
    [f"storage.url={DEAD}"],
    [f"storage.ulr={DEAD}"],
    [f"+space.pattern={{a: '{DEAD}'}}"],
    [f"tracking.uri=https://me:{SECRET}@host", "n_trials=0"],
    ["-m", f"storage.url={DEAD}"],
]


ROWS = [
    pytest.param(
        arguments,
        id=" ".join(arguments).replace(DEAD, "URL")[:60],
        marks=[pytest.mark.slow] if at % 4 != 1 else [],
    )
    for at, arguments in enumerate(FAILING)
]


@pytest.mark.parametrize("arguments", ROWS)
def test_no_message_has_the_password(command, monkeypatch, arguments):  # noqa: F811
    monkeypatch.setenv("PARETOFORMER_STORAGE", DEAD)
    code, out, error = command(*TINY, *arguments)
    assert code == 2
    assert error
    assert SECRET not in out + error
    assert not list(command.folder.iterdir())


@pytest.mark.parametrize("where", ["the environment", "the command line"])
@pytest.mark.parametrize("name", ["front", "tables", "costs", "export", "report", "sync", "proxy"])
def test_no_command_shows_the_password(name, where, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [] if name == "proxy" else ["study", *{"tables": ["other"], "export": ["--to", "a"]}.get(name, [])]
    if where == "the environment":
        monkeypatch.setenv("PARETOFORMER_STORAGE", DEAD)
    else:
        given += ["--storage", DEAD]
    main = {
        "front": front.main,
        "tables": tables.main,
        "costs": costs.main,
        "export": export.main,
        "report": report.main,
        "sync": sync.main,
        "proxy": proxy.main,
    }[name]
    for arguments, expected in ((given, 2), (["--help"], 0)):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
        printed = capsys.readouterr()
        assert code == expected
        assert SECRET not in printed.out + printed.err
        if arguments != ["--help"]:
            assert "***" in printed.err
            assert ("can't be opened" if where == "the environment" else "no place for a password") in printed.err
    assert not list(Path.cwd().iterdir())
