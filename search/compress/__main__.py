"""What compresses a stored study's parent, and how good its predictions are: ``python -m search.compress STUDY``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.config import add_storage_option, default_storage, refuse
from spaces.dimensions import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.compress",
        description=(
            "Show the library of a study of a compression: the damage of each replacement, and the milliseconds that it"
            " saves. With --mixes, compare predicted with measured damages and latencies. The study is only read."
        ),
    )
    parser.add_argument("study", metavar="STUDY", help="name of a study")
    parser.add_argument("--mixes", metavar="COUNT", type=_count, default=0, help="random networks that are measured")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of their choice; by default 0")
    add_storage_option(parser)
    asked = parser.parse_args(arguments)

    import optuna

    from search.compress.accuracy import show
    from search.study.storage import open_read_only

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        url = asked.storage or default_storage()
        with open_read_only(url) as storage:
            show(url, storage, asked.study, mixes=asked.mixes, seed=asked.seed)
    except ConfigError as error:
        return refuse(error)
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 3:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number from 3")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
