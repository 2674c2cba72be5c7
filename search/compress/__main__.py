"""The command that compresses a member of a finished front: ``python -m search.compress STUDY``; or shows how.

torch and Optuna are imported only after the command line was parsed, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from search.config import add_storage_option, default_storage, refuse
from search.study import selection
from search.study.selection import Selection
from search.workers.compose import run_command
from spaces.dimensions import ConfigError

NAME = "compressed"  # of the files that a run is composed of


def main(arguments: Sequence[str] | None = None, *, used_s: float = 0.0) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    asked = _parser().parse_intermixed_args(given)

    import optuna

    from search.compress.accuracy import show
    from search.study.storage import open_read_only

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = asked.storage or default_storage()
    try:
        if asked.library or asked.mixes:
            if asked.overrides or not Selection.of(asked).is_empty:
                raise ConfigError("--library and --mixes only read a study: they have no settings of a run beside them")
            with open_read_only(url) as storage:
                show(url, storage, asked.study, mixes=asked.mixes, seed=asked.seed)
            return 0
        return _compress(url, asked, ["search.compress", *given], used_s)
    except ConfigError as error:
        return refuse(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.compress",
        description=(
            "Compress a member of a study's front, by default the one with the best metric: a further study, which"
            " starts from its weights, searches what its blocks may do without. Then both fronts are shown. The same"
            " command continues. With --library or --mixes a study of a compression is only read."
        ),
    )
    parser.add_argument("study", metavar="STUDY", help="name of a study")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="settings of the run, as for search.run, such as budget=10min"
    )
    selection.add_options(parser)
    group = parser.add_argument_group("read a study of a compression")
    group.add_argument(
        "--library", action="store_true", help="show the damage of each replacement, and the milliseconds that it saves"
    )
    group.add_argument(
        "--mixes", metavar="COUNT", type=_count, default=0, help="and compare what is predicted of random networks"
    )
    group.add_argument("--seed", metavar="N", type=int, default=0, help="of their choice; by default 0")
    add_storage_option(parser)
    return parser


def _compress(url: str, asked: argparse.Namespace, command: Sequence[str], used_s: float) -> int:
    """Run the study of the compression, and show both fronts."""
    from search.compress.member import space_of
    from search.report.beside import show
    from search.study.records import front
    from search.study.storage import open_read_only
    from search.study.stored import load_stored
    from spaces.instantiate import instantiate
    from spaces.tasks import Task

    start = time.monotonic() - used_s
    with open_read_only(url) as storage:
        stored = load_stored(storage, asked.study)
        members, identity = front(stored.store.records(), stored.objectives), stored.store.identity()
    member = selection.select(members, stored.objectives, Selection.of(asked), default_best=True)
    space = space_of(member.architecture, instantiate(Task, identity["task"], "task"))
    study = f"{asked.study}-{member.number}-{NAME}"
    metric = f"{stored.objectives.metric} {member.metric:.4f}"
    print(f"Compressing trial {member.number} of {asked.study}, {metric}, in the study {study}.")  # noqa: T201
    settings: dict[str, Any] = {"study": study, "teacher": f"{asked.study}:{member.number}"}
    settings |= {name: identity[name] for name in ("costs", "seed", "precision") if name in identity}
    settings |= {"storage": {"url": url}} if asked.storage else {}
    with tempfile.TemporaryDirectory() as folder:
        groups: dict[str, Any] = {"space": space, "task": identity["task"], "latency": identity["latency"]}
        for group, tree in groups.items():
            _write(Path(folder) / group / f"{NAME}.yaml", tree)
        _write(Path(folder) / "member" / f"{NAME}.yaml", settings, package="_global_")
        options = [f"{'+' * (group == 'space')}{group}={NAME}" for group in groups]
        arguments = ["--config-dir", folder, *options, f"+member={NAME}", *asked.overrides]
        code = run_command(arguments, command, used_s=time.monotonic() - start)
    if not code:
        with open_read_only(url) as storage:
            show(storage, [asked.study, study])
    return code


def _write(path: Path, tree: Mapping[str, Any], *, package: str = "") -> None:
    """Write a file of Hydra's."""
    path.parent.mkdir()
    header = f"# @package {package}\n" if package else ""
    path.write_text(header + OmegaConf.to_yaml(OmegaConf.create(dict(tree))))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number from 3")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(used_s=time.process_time()))
