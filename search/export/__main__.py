"""The command that exports a member of a stored study's front to a folder.

``python -m search.export STUDY --knee --to FOLDER``; ``--help`` lists the options. The study is only read.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from search.config import add_storage_option, default_storage, hide_passwords, refuse, without_password
from search.study.selection import Selection, add_options, select
from spaces.dimensions import ConfigError

NEEDED = ("onnx", "onnxruntime", "onnxscript")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.export",
        description="Export a member of the front of a stored study to a folder that runs without this project.",
    )
    parser.add_argument("study", metavar="STUDY", help="name of a study")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new or an empty folder")
    add_options(parser)
    group = parser.add_argument_group("register it in MLflow")
    group.add_argument("--register", metavar="NAME", help="as a new version of the registered model NAME")
    group.add_argument("--alias", default="champion", help="of this version; by default champion")
    group.add_argument(
        "--tracking-uri", metavar="URI", type=without_password, help="by default MLFLOW_TRACKING_URI or else mlflow.db"
    )
    add_storage_option(parser)
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(given)
    try:
        _check_packages()
        _export(asked, hide_passwords(shlex.join(["python", "-m", "search.export", *given])))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ConfigError as error:
        return refuse(hide_passwords(str(error)))
    return 0


def _check_packages() -> None:
    from importlib.util import find_spec

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"{', '.join(missing)} not installed: pip install 'paretoformer[export]'")


def _export(asked: argparse.Namespace, command: str) -> None:
    import json

    import optuna

    from search.export.card import Origin, card
    from search.export.folder import check_new_folder, export, new_folder
    from search.programs.interface import check_exportable
    from search.study.confirmations import read_repetitions
    from search.study.records import Objectives, front
    from search.study.storage import load_study, open_read_only
    from search.study.store import TrialStore
    from spaces.build import task_of
    from spaces.instantiate import instantiate
    from spaces.tasks import Task

    check_new_folder(asked.to)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open_read_only(asked.storage or default_storage()) as storage:
        store = TrialStore(load_study(storage, asked.study))
        identity, records, ceilings = store.identity(), store.records(), store.ceilings()
        repeated = read_repetitions(store.study)
    task = instantiate(Task, identity["task"], "task")
    check_exportable(task)
    if task.subtasks and asked.register is not None:
        raise ConfigError("--register: this study has several tasks; a registered model has one")
    objectives = Objectives.of(task, identity["costs"], ceilings)
    member = select(front(records, objectives), objectives, Selection.of(asked))
    if not member.weights:
        raise ConfigError(f"trial {member.number} has no weights: they were not kept, see weights_mb")
    if not Path(member.weights).is_file():
        raise ConfigError(
            f"trial {member.number}: there is no {member.weights}; worker {member.worker} wrote it, and it is removed"
            " when the trial leaves the front"
        )
    repetitions = list(repeated.get(member.number, {}).values())
    _print(f"trial {member.number}: reading the data")
    architecture = dict(member.architecture)
    with new_folder(asked.to) as folder:
        found = export(architecture, Path(member.weights), task, folder, report=_print)
        origin = Origin(asked.study, member, objectives, identity, command, repetitions)
        fitted = task_of(architecture, task)
        for part, results in found.items():
            settings = json.loads((folder / part / "preprocessing.json").read_text(encoding="utf-8"))
            text = card(origin, fitted.subtasks.get(part, fitted), settings, results, part)
            (folder / part / "README.md").write_text(text, encoding="utf-8")
    for part, results in found.items():
        for result in results[1:]:
            program = f"{part} {result.file} in {result.runtime}".lstrip()
            if result.problem:
                _print(f"{program}: not possible: {result.problem}")
            else:
                _print(f"{program}: free {' and '.join(result.free)}, largest error {result.error:.1e}")
    if task.subtasks:
        _print(f"{asked.to} has a folder for each task with its programs and its card, README.md.")
    else:
        _print(f"{asked.to} has the model and its card, README.md.")
    if asked.register is not None:
        _register(asked, member.number)


def _register(asked: argparse.Namespace, trial: int) -> None:
    from importlib.util import find_spec

    from search.tracking.registry import register

    found = find_spec("search.export.served")  # MLflow runs this file, so it is not imported here
    assert found is not None
    assert found.origin is not None
    address = register(
        asked.to,
        Path(found.origin),
        name=asked.register,
        alias=asked.alias,
        study=asked.study,
        trial=trial,
        uri=asked.tracking_uri,
    )
    _log_link(asked)
    _print(f"registered: mlflow models serve -m {address} --env-manager local")


def _log_link(asked: argparse.Namespace) -> None:
    """Bring the note of the study in MLflow up to date, which then links to the registered model."""
    from search.study.storage import open_read_only
    from search.study.stored import load_stored
    from search.tracking.stored import log_stored

    with open_read_only(asked.storage or default_storage()) as storage:
        log_stored(load_stored(storage, asked.study), uri=asked.tracking_uri)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
