"""The command that measures what storage and decisions cost: ``python -m search.load --storage URL``.

A fake objective takes no time, so all time is that of the storage, of Optuna and of this project. The studies are
filled with trials that have ended; then a worker reads them and decides, and workers run further trials side by side,
of which a table in Markdown is printed; a study grows with each row. The studies are called load-TRIALS; use a database
of their own, and fill it before a gRPC server serves it, which is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from search.config import add_storage_option, default_storage, options, refuse
from spaces.dimensions import ConfigError

HEADER = """
| storage | trials | workers | calls | ms of them | besides | ms a report, 99 % | trials/s | lost |
|---|---|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; 1 if a trial was lost."""
    asked = _parser().parse_args(arguments)

    try:
        with _sigterm_as_exception():
            return int(_measure(asked))
    except ConfigError as error:
        return refuse(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _measure(asked: argparse.Namespace) -> bool:
    """Print the tables; whether a trial was lost."""
    from optuna.samplers import BaseSampler

    from search.load.measure import available_mb, decide, fill, run_workers
    from search.pruning import Pruner
    from spaces.instantiate import instantiate

    url, failed = asked.storage or default_storage(), False
    sampler = instantiate(BaseSampler, options("sampler")[asked.sampler], "sampler", seed=0)
    pruner = instantiate(Pruner, options("pruner")[asked.pruner], "pruner")
    memory_mb = {}
    for trials in asked.trials:
        fill(url, f"load-{trials}", trials)
        found = decide(url, f"load-{trials}", sampler, pruner)
        memory_mb[trials] = found.memory_mb
        _print(
            f"{found.trials} trials: read in {found.read_s:.2f} s, {found.memory_mb:.0f} MB; to propose the next "
            f"{found.propose_ms:.0f} ms, to stop or go on {found.stop_ms:.1f} ms of CPU time"
        )
    _print(HEADER)
    for trials, workers in itertools.product(asked.trials, asked.workers):
        storage = urlsplit(url).scheme.partition("+")[0]
        needed_mb, free_mb = workers * memory_mb[trials], available_mb()
        if needed_mb > free_mb:
            missing = f"not run: {needed_mb / 1e3:.0f} GB needed, {free_mb / 1e3:.0f} GB free"
            _print(f"| {storage} | {trials:,} | {workers} | {missing} |||||")
            continue
        row = run_workers(url, f"load-{trials}", workers=workers, trials=max(asked.run, workers))
        _print(
            f"| {storage} | {row.before:,} | {workers} | "
            f"{row.calls:.0f} | {row.storage_ms:,.0f} | {row.other_ms:,.0f} | "
            f"{row.report_ms:,.1f} / {row.slow_report_ms:,.0f} | {row.trials_per_s:.1f} | "
            f"{', '.join(row.problems) or 'nothing'} |"
        )
        failed = failed or bool(row.problems)
    return failed


@contextlib.contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, which ends the workers too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.load", description="Measure what storage and decisions cost, with a fake objective."
    )
    add_storage_option(parser)
    parser.add_argument("--workers", type=_count, nargs="+", metavar="N", default=[1, 4, 16, 64], help="side by side")
    parser.add_argument(
        "--trials", type=_count, nargs="+", metavar="N", default=[100, 1000, 10000], help="in the study before"
    )
    parser.add_argument("--run", type=_count, metavar="N", default=64, help="trials to run for each row (%(default)s)")
    for group, default in (("sampler", "surrogate"), ("pruner", "ceiling")):
        parser.add_argument(f"--{group}", choices=list(options(group)), default=default, help="(%(default)s)")
    return parser


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number from 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
