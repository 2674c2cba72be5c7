"""Compare search strategies: ``python -m search.compare`` replays samplers and pruners on recorded tables.

Nothing is trained: a replay looks up the learning curves in a table, see :mod:`search.replay.simulation`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config import options, refuse
from spaces.dimensions import ConfigError

if TYPE_CHECKING:
    from search.replay.simulation import Outcome
    from search.replay.table import Table

DEFAULT = "surrogate+ceiling"
BASELINES = ("random+none", "tpe+none")
HELD_OUT = (  # not used to choose or tune any rule
    "speech",
    *("nb201-cifar100", "nb201-imagenet"),
    *("nbgraph-arxiv", "nbgraph-computers", "nbgraph-cs", "nbgraph-proteins"),
    *("hpobench-car", "hpobench-kc1", "hpobench-phoneme", "hpobench-vehicle"),
    *("lcdb-554", "lcdb-846", "lcdb-1120", "lcdb-1235", "lcdb-41027"),
)
STRATEGIES = (
    "oracle",
    "cheapest",
    *BASELINES,
    "nsga2+none",
    "nsga3+none",
    "gp+none",
    "tpe+moasha",
    "tpe+latency_conditional",
    "tpe+optimistic",
    "tpe+i_epoch",
    "tpe+accuracy_only",
    "tpe+ceiling",
    "random+gain_rate",
    "tpe+gain_rate",
    "surrogate+none",
    "surrogate+gain_rate",
    DEFAULT,
)


def main() -> None:
    """Parse the command line and exit."""
    parser = argparse.ArgumentParser(prog="python -m search.compare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help="shipped tables, public ones such as nb201-cifar10, or files (default: all shipped)",
    )
    parser.add_argument(
        "--strategies", nargs="+", default=STRATEGIES, metavar="SAMPLER+PRUNER", help="(default: all of them)"
    )
    parser.add_argument("--seeds", type=int, default=100, help="of each strategy on each table (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="simulated workers per search (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--page", type=Path, default=Path("comparison.html"), help="(default: %(default)s)")
    try:
        sys.exit(compare(parser.parse_args()))
    except ConfigError as error:
        sys.exit(refuse(error))
    except KeyboardInterrupt:
        sys.exit(130)


def compare(given: argparse.Namespace) -> int:
    """Replay, print the result tables and write the page; return the exit code."""
    for name, value in (("seeds", given.seeds), ("workers", given.workers), ("jobs", given.jobs)):
        if value < 1:
            raise ConfigError(f"--{name}={value}: it must be at least 1")
    settings = {name: strategy(name) for name in dict.fromkeys(given.strategies)}
    from search.replay.tables import shipped

    tables = given.tables or list(shipped())
    names = [_table(name).name for name in tables]  # errors before anything is replayed
    from search.replay.page import write_page
    from search.replay.statistics import markdown

    outcomes = list(replays(tables, settings, given))
    baselines = [name for name in BASELINES if name in settings] or [next(iter(settings))]
    default = DEFAULT if DEFAULT in settings else next(iter(settings))
    held_out = [name for name in names if name in HELD_OUT]
    text = markdown(outcomes, baselines=baselines, default=default, held_out=held_out)
    print(text)  # noqa: T201
    write_page(given.page, text, outcomes)
    print(f"\nWith plots: {given.page}")  # noqa: T201
    return 0


def strategy(name: str) -> dict[str, Any]:
    """The settings of ``SAMPLER+PRUNER``, as :class:`search.replay.simulation.Strategy` takes them.

    They are those in conf/, or those of other packages in :mod:`search.replay.peers`.

    The baselines sample from the first trial on, as usual elsewhere; the others start with the smallest architecture of
    each mechanism, as ``search.run`` does.
    """
    if name in ("oracle", "cheapest"):
        return {"sampler": options("sampler")["random"], "pruner": options("pruner")["none"], "order": name}
    from search.replay.peers import check_installed, peers

    sampler, _, pruner = name.partition("+")
    smallest = not name.endswith("+none") or name == "surrogate+none"
    found: dict[str, Any] = {"smallest": smallest}
    for group, option in (("sampler", sampler), ("pruner", pruner)):
        own, others = options(group), peers(group)
        if option not in own | others:
            raise ConfigError(f"{name}: unknown {group} {option!r}; known: {', '.join([*own, *others])}")
        if option in others:
            check_installed(group, option)
        found[group] = (own | others)[option]
    return found


def replays(
    tables: Sequence[str], settings: Mapping[str, Mapping[str, Any]], given: argparse.Namespace
) -> Iterator[Outcome]:
    """Replay every strategy on every table with every seed, in parallel processes, with a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    jobs = [(table, name, seed) for table in tables for seed in range(given.seeds) for name in settings]
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ProcessPoolExecutor(given.jobs, initializer=_quiet) as pool,
    ):
        task = progress.add_task("", total=len(jobs))
        running = [pool.submit(_replay, table, name, settings[name], seed, given.workers) for table, name, seed in jobs]
        try:
            for future in as_completed(running):
                progress.advance(task)
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _quiet() -> None:
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


@cache
def _table(name: str) -> Table:
    """The table, read once per process."""
    from search.replay.tables import find

    return find(name)


def _replay(table: str, name: str, settings: Mapping[str, Any], seed: int, workers: int) -> Outcome:
    from search.replay.simulation import Replay, Strategy

    return Replay(_table(table), Strategy(name, **settings), seed=seed, workers=workers).run()


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # before numpy is imported: one core per process
    main()
