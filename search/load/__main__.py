"""The command that measures what storage and decisions cost: ``python -m search.load --storage URL``.

A fake objective takes no time, so all time is that of the storage, of Optuna and of this project. Two tables are
printed: workers that run trials side by side in a study that has trials already, and what one worker needs to read the
trials and to decide. The studies are called load-TRIALS; use a database of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence

from search.config import add_storage_option, default_storage, options, refuse
from spaces.dimensions import ConfigError


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

    from search.load.measure import decide, fill, run_workers
    from search.pruning import Pruner
    from spaces.instantiate import instantiate

    url, failed = asked.storage or default_storage(), False
    sampler = instantiate(BaseSampler, options("sampler")[asked.sampler], "sampler", seed=0)
    pruner = instantiate(Pruner, options("pruner")[asked.pruner], "pruner")
    for trials in asked.trials:
        fill(url, name := f"load-{trials}", trials)
        found = decide(url, name, sampler, pruner)
        _print(
            f"{found.trials} trials: read in {found.read_s:.2f} s, {found.memory_mb:.0f} MB; to propose the next "
            f"{found.propose_ms:.0f} ms, to stop or go on {found.stop_ms:.1f} ms of CPU time"
        )
        for workers in asked.workers:
            row = run_workers(url, name, workers=workers, trials=max(asked.run, 2 * workers))
            _print(
                f"{row.before:6} trials {row.workers:3} workers: a trial {row.storage_ms:.0f} ms in the storage "
                f"({row.calls:.0f} calls) and {row.other_ms:.0f} ms besides, a report {row.report_ms:.1f} ms "
                f"(99 %: {row.slow_report_ms:.0f}), "
                f"{row.trials_per_s:.1f} trials/s; {', '.join(row.problems) or 'nothing lost'}"
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
        "--trials", type=_count, nargs="+", metavar="N", default=[100, 1000], help="in the study before"
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
