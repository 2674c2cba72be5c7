"""The command that reads stored studies: lists them, prints a front, explains a trial, exports a front.

``python -m search.front STUDY``; ``--help`` lists the options. Only ``--confirm`` writes to the storage. torch and
Optuna are imported only after the command line was parsed, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.config import add_storage_option, default_storage, hide_passwords, refuse
from search.study import selection
from search.study.selection import Selection
from spaces.architecture import describe, pattern, settings
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from search.study.stored import StoredStudy

FORMATS = (".json", ".csv")
PLOT_FORMATS = (".svg", ".png", ".html")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    chosen_by = Selection.of(asked)
    options = asked.why is not None or asked.export or asked.plot or asked.confirm is not None or asked.beside
    if asked.study is None and (options or not chosen_by.is_empty):
        parser.error("--why, --export, --plot, --confirm, --beside and the choice of a member need the name of a study")

    import optuna

    from search.study.storage import open_read_only
    from search.study.stored import load_stored

    url = asked.storage or default_storage()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with open_read_only(url) as storage:
            if asked.study is None:
                _list_studies(storage)
            else:
                _print_study(load_stored(storage, asked.study), asked.why, asked.export, asked.plot, chosen_by)
            if asked.beside:
                from search.report.beside import show

                show(storage, [asked.study, *asked.beside])
        if asked.confirm is not None:
            from search.confirm.command import confirm

            confirm(url, asked.study, asked.confirm)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except ConfigError as error:
        return refuse(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.front",
        description="Show the front of a stored study, or explain a trial. Only --confirm writes to the study.",
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="name of a study; by default all studies are listed")
    parser.add_argument("--why", metavar="N", type=int, help="explain why trial N was stopped or is not on the front")
    parser.add_argument("--export", metavar="FILE", type=_export_path, help="write the front to a .json or .csv file")
    parser.add_argument("--plot", metavar="FILE", type=_plot_path, help="draw the front as .svg, .png or .html")
    parser.add_argument(
        "--confirm", metavar="COUNT", type=int, help="train the members again with so many fresh seeds; resumable"
    )
    parser.add_argument(
        "--beside",
        metavar="STUDY",
        action="append",
        default=[],
        help="show the front of this study of the same data beside it, with latencies measured now; may be repeated",
    )
    selection.add_options(parser)
    add_storage_option(parser)
    return parser


def _export_path(text: str, formats: Sequence[str] = FORMATS) -> Path:
    if Path(text).suffix not in formats:
        raise argparse.ArgumentTypeError(f"{text}: the file name must end in {' or '.join(formats)}")
    return Path(text)


def _plot_path(text: str) -> Path:
    return _export_path(text, PLOT_FORMATS)


def _list_studies(storage: BaseStorage) -> None:
    """Print a table with a row per study."""
    import optuna

    from search.report.status import stdout_console
    from search.report.studies import studies_table
    from search.study.storage import load_study
    from search.study.store import TrialStore

    names = optuna.get_all_study_names(storage)
    if names:
        stores = {name: TrialStore(load_study(storage, name)) for name in names}
        console = stdout_console()
        console.print(studies_table(stores, width=console.width))
    else:
        print("There are no studies.")  # noqa: T201


def _print_study(
    stored: StoredStudy, number: int | None, file: Path | None, plot: Path | None, chosen_by: Selection
) -> None:
    """Print the front or the explanation of a trial, and write the front to files."""
    from search.report.answers import Description, trained_again
    from search.report.console import FrontPrinter
    from search.report.timings import format_time
    from search.study.records import front

    store, objectives = stored.store, stored.objectives
    described = Description.of(store, objectives, stored.dimensions)
    printer = FrontPrinter(objectives, stored.dimensions, store.baselines())
    if number is None:
        printer.print_front(store.records())
        if again := trained_again(front(store.records(), objectives), described.repetitions, objectives):
            printer.print(again)
        if end := store.run_end():
            reason, at = end
            printer.print(hide_passwords(f"The last run ended at {format_time(at)}: {reason}."))
    else:
        for line in _explain(stored, number):
            printer.print(hide_passwords(line))
    if not chosen_by.is_empty:
        printer.print(_chosen(stored, chosen_by))
    if file is not None:
        _export(stored, file)
        printer.print(f"The front was written to {file}.")
    if plot is not None:
        _plot(stored, plot)
        printer.print(f"The plot was written to {plot}.")


def _chosen(stored: StoredStudy, chosen_by: Selection) -> str:
    """The member of the front that is chosen."""
    from search.study.records import front

    objectives = stored.objectives
    member = selection.select(front(stored.store.records(), objectives), objectives, chosen_by)
    numbers = [f"{objectives.metric} {member.metric:.4f}"]
    numbers += [f"{name} {member.costs[name]:.4g}" for name in objectives.costs]
    what = describe(member.architecture, stored.dimensions)
    return f"{chosen_by} chooses trial {member.number}: {', '.join(numbers)}, {what}."


def _explain(stored: StoredStudy, number: int) -> list[str]:
    from search.report.explain import explain

    store = stored.store
    size, records = len(store.study.get_trials(deepcopy=False)), store.all_records()
    if not 0 <= number < size:
        existing = f"trials 0 to {size - 1}" if size else "no trials yet"
        raise ConfigError(f"trial {number}: the study {store.study.study_name!r} has {existing}")
    first = store.number(number)  # a dashboard of Optuna shows the other numbers too
    lines = [] if first == number else [f"trial {number} is trial {first}, started again"]
    if first not in records:
        return [*lines, f"trial {first}: queued"]
    return lines + list(explain(first, records, store.earlier(first), stored.objectives, stored.dimensions))


def _plot(stored: StoredStudy, file: Path) -> None:
    """Draw the front."""
    from search.report.intervals import samples
    from search.report.picture import save
    from search.study.confirmations import read_repetitions

    try:
        store = stored.store
        name, objectives = store.study.study_name, stored.objectives
        repeated = samples(read_repetitions(store.study), objectives)
        save(file, store.records(), objectives, title=name, baselines=store.baselines(), repeated=repeated)
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error


def _export(stored: StoredStudy, file: Path) -> None:
    """Write the front: as JSON with architectures that can be built, or as CSV with a column for each setting."""
    from search.report.rows import export_rows
    from search.study.records import front

    objectives = stored.objectives
    rows = export_rows(front(stored.store.records(), objectives), objectives)
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            if file.suffix == ".json":
                json.dump(rows, stream, indent=2)
                return
            for row in rows:
                architecture = row.pop("architecture")
                row |= {"pattern": pattern(architecture), **settings(architecture)}
            columns = dict.fromkeys(name for row in rows for name in row) or [
                "trial",
                objectives.metric,
                *objectives.costs,
            ]
            writer = csv.DictWriter(stream, list(columns))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
