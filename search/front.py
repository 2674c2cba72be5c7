"""The command that looks at what is stored: a study's front again, why a trial became what it is, which studies exist.

``python -m search.front STUDY``; ``--help`` says the rest. It only reads. Whatever needs torch or Optuna is imported
after the command line was found good, so that help and errors answer at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import default_storage, refuse
from spaces.architecture import pattern, settings
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from search.study.records import Objectives
    from search.study.store import TrialStore

FORMATS = (".json", ".csv")
PLOT_FORMATS = (".svg", ".png", ".html")


@dataclass(frozen=True)
class Stored:
    """A study as its storage holds it."""

    store: TrialStore
    objectives: Objectives
    places: set[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer ``arguments``, by default the command line's; the process's exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.study is None and (asked.why is not None or asked.export is not None or asked.plot is not None):
        parser.error("--why, --export and --plot need the name of a study")

    import optuna

    from search.study.storage import reading

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = asked.storage or default_storage()
    try:
        with reading(url) as storage:
            if asked.study is None:
                _list(storage)
            else:
                _show(_stored(storage, asked.study, url), asked.why, asked.export, asked.plot)
    except ConfigError as error:
        return refuse(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.front",
        description="Show the front of a stored study again, or why a trial is not on it. Nothing is written.",
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="the study's name; without one, those there are")
    parser.add_argument("--why", metavar="N", type=int, help="explain trial N: what it reached, and what beat it")
    parser.add_argument("--export", metavar="FILE", type=_file, help="write the front's members, as .json or .csv")
    parser.add_argument("--plot", metavar="FILE", type=_plot_file, help="draw the front, as .svg, .png or .html")
    parser.add_argument("--storage", metavar="URL", help="the database; by default the one of conf/storage/sqlite.yaml")
    return parser


def _file(text: str, formats: Sequence[str] = FORMATS) -> Path:
    if Path(text).suffix not in formats:
        raise argparse.ArgumentTypeError(f"{text}: its name must end in {' or '.join(formats)}")
    return Path(text)


def _plot_file(text: str) -> Path:
    return _file(text, PLOT_FORMATS)


def _list(storage: RDBStorage) -> None:
    """Print a line a study."""
    import optuna

    from search.study.records import State
    from search.study.store import TrialStore

    names = optuna.get_all_study_names(storage)
    for name in names:
        store = TrialStore(optuna.load_study(study_name=name, storage=storage))
        states = [record.state for record in store.records()]
        complete = states.count(State.COMPLETE)
        print(f"{name:{max(map(len, names))}}  {len(states):5d} trials  {complete:5d} complete")  # noqa: T201
    if not names:
        print("There is no study yet.")  # noqa: T201


def _stored(storage: RDBStorage, name: str, url: str) -> Stored:
    """Read a study, and construct of what it was made with only what judges it."""
    import optuna

    from search.study.records import Objectives
    from search.study.storage import shown
    from search.study.store import TrialStore
    from spaces.build import instantiate
    from spaces.space import Space

    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise ConfigError(f"there is no study {name!r} in {shown(url)}; there are {', '.join(names) or 'none'}")
    study = optuna.load_study(study_name=name, storage=storage)
    missing = [attribute for attribute in ("identity", "ceilings") if attribute not in study.user_attrs]
    if missing:
        raise ConfigError(f"the study {name!r} lacks {' and '.join(missing)}: no search.run has begun it")
    identity = json.loads(study.user_attrs["identity"])
    objectives = Objectives.of(instantiate(identity["task"], "task"), identity["costs"], study.user_attrs["ceilings"])
    return Stored(TrialStore(study), objectives, Space(identity["space"]).dimension_names())


def _show(stored: Stored, number: int | None, file: Path | None, plot: Path | None) -> None:
    """Print the front, or why a trial is on it or not, and write it to files."""
    from search.report.console import Page
    from search.tracking.summaries import without_password

    page = Page(stored.objectives, stored.places)
    if number is None:
        page.show_front(stored.store.records())
    else:
        for line in _why(stored, number):
            page.say(without_password(line))
    if file is not None:
        _export(stored, file)
        page.say(f"The front is in {file}.")
    if plot is not None:
        _plot(stored, plot)
        page.say(f"The plot is in {plot}.")


def _why(stored: Stored, number: int) -> list[str]:
    from search.report.explain import explain

    store = stored.store
    trials = store.study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        there = f"trials 0 to {len(trials) - 1}" if trials else "no trials yet"
        raise ConfigError(f"trial {number}: the study {store.study.study_name!r} has {there}")
    records = store.everything()
    if number in records:
        return list(explain(number, records, store.successors(), stored.objectives, stored.places))
    replaced = trials[number].user_attrs.get("replaces")
    return [f"trial {number}: waiting for a worker" + ("" if replaced is None else f"; replaces trial {replaced}")]


def _plot(stored: Stored, file: Path) -> None:
    """Draw the front."""
    from search.report.figure import save

    try:
        save(file, stored.store.records(), stored.objectives, title=stored.store.study.study_name)
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error


def _export(stored: Stored, file: Path) -> None:
    """Write the front's members: as JSON with architectures that can be built, as CSV one column a setting."""
    from search.study.records import front

    aims = stored.objectives
    rows: list[dict[str, Any]] = [
        {
            "trial": member.number,
            aims.metric: member.metric,
            f"test_{aims.metric}": member.test_metrics.get(aims.metric),
            **member.costs,
            "architecture": member.architecture,
        }
        for member in front(stored.store.records(), aims)
    ]
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            if file.suffix == ".json":
                json.dump(rows, stream, indent=2)
                return
            for row in rows:
                architecture = row.pop("architecture")
                row |= {"pattern": pattern(architecture), **settings(architecture)}
            columns = dict.fromkeys(name for row in rows for name in row) or ["trial", aims.metric, *aims.costs]
            writer = csv.DictWriter(stream, list(columns))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
