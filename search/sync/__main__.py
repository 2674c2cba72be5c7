"""The command that logs to MLflow what is missing of a stored study, as after its server was away.

``python -m search.sync STUDY``; ``--help`` lists the options. The study is only read. torch, Optuna and MLflow are
imported only after the command line was parsed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.config import add_storage_option, default_storage, refuse, without_password
from spaces.dimensions import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    asked = _parser().parse_args(arguments)

    import optuna

    from search.study.storage import open_read_only
    from search.study.stored import load_stored
    from search.tracking.stored import log_stored

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with open_read_only(asked.storage or default_storage()) as storage:
            logged = log_stored(load_stored(storage, asked.study), uri=asked.uri, experiment=asked.experiment)
    except ConfigError as error:
        return refuse(error)
    return 0 if logged else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.sync", description="Log the trials of a stored study that are missing in MLflow."
    )
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    add_storage_option(parser)
    parser.add_argument(
        "--uri",
        metavar="URI",
        type=without_password,
        help="of MLflow; by default MLFLOW_TRACKING_URI, or mlflow.db here",
    )
    parser.add_argument("--experiment", metavar="NAME", default="paretoformer", help="of MLflow (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
