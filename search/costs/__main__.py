"""The latencies of a study's networks, measured again: ``python -m search.costs STUDY``.

By default all networks of a study are measured in turns and compared with the timings that the study holds, see
:mod:`search.costs.drift`. ``--profiles`` measures the front under other loads, see :mod:`search.costs.profiles`;
``--disturbed`` tells how well latencies repeat while other processes work, see :mod:`search.costs.disturbance`;
``--predicted`` how well they are predicted from those of a few networks, see :mod:`search.costs.predicted`. The study
is only read. Run it on the machine that ran the study.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.config import add_storage_option, default_storage, refuse
from spaces.dimensions import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.costs", description="Measure the latencies of a study's networks again."
    )
    parser.add_argument("study", metavar="STUDY", help="a study whose latencies were measured on this machine")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--profiles", action="store_true", help="the front: larger batches, training steps, decoding")
    chosen.add_argument(
        "--disturbed",
        type=int,
        nargs="?",
        const=40,
        metavar="N",
        help="how well the latencies of N networks (default 40) repeat while two trainings and two other processes run",
    )
    chosen.add_argument(
        "--predicted",
        type=int,
        nargs="?",
        const=60,
        metavar="N",
        help="how well the latencies of N networks (default 60) are predicted from those of 30 others",
    )
    add_storage_option(parser)
    asked = parser.parse_args(arguments)
    try:
        _measure(asked)
    except ConfigError as error:
        return refuse(error)
    return 0


def _measure(asked: argparse.Namespace) -> None:
    from search.costs.disturbance import compare_disturbed
    from search.costs.drift import drift
    from search.costs.predicted import compare_predictors
    from search.costs.profiles import profile_front
    from search.report.status import stdout_console
    from search.study.storage import open_read_only
    from search.study.stored import load_stored

    console = stdout_console()
    with open_read_only(asked.storage or default_storage()) as storage:
        stored = load_stored(storage, asked.study)
        if asked.profiles:
            console.print(profile_front(stored))
        elif asked.disturbed is not None:
            console.print(compare_disturbed(stored, asked.disturbed, report=console.print))
        elif asked.predicted is not None:
            console.print(compare_predictors(stored, asked.predicted, report=console.print))
        else:
            console.print(drift(stored.store))


if __name__ == "__main__":
    sys.exit(main())
