"""The command that opens the MLflow UI: ``python -m search.ui [STUDY]``; ``--help`` lists the options.

MLflow is imported only after the command line was parsed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence

from search.config import refuse
from spaces.dimensions import ConfigError

DEFAULT_PORT = 5000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    asked = _parser().parse_args(arguments)

    from search.tracking.mlflow import tracking_uri
    from search.ui.server import path_of, serving

    uri = tracking_uri(asked.uri)
    try:
        path = path_of(uri, asked.experiment, asked.study)
        if uri.startswith("http"):  # it is running
            _show(f"{uri.rstrip('/')}/{path}", browser=asked.browser)
            return 0
        asked_to_end = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked_to_end.set())
        print("Starting MLflow, which takes some seconds", flush=True)  # noqa: T201
        with serving(uri, asked.port) as address:
            _show(f"{address}/{path}", browser=asked.browser)
            print("Ctrl-C ends it.", flush=True)  # noqa: T201
            asked_to_end.wait()
    except ConfigError as error:
        return refuse(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.ui", description="Open the MLflow UI on the studies of this folder, or on one of them."
    )
    parser.add_argument("study", metavar="STUDY", nargs="?", help="name of a study; by default all are listed")
    parser.add_argument("--uri", metavar="URI", help="of MLflow; by default MLFLOW_TRACKING_URI, or mlflow.db here")
    parser.add_argument("--experiment", metavar="NAME", default="paretoformer", help="of MLflow (%(default)s)")
    parser.add_argument("--port", metavar="N", type=int, default=DEFAULT_PORT, help="of the server (%(default)s)")
    parser.add_argument("--browser", action="store_true", help="open the address in a browser")
    return parser


def _show(address: str, *, browser: bool) -> None:
    print(address, flush=True)  # noqa: T201
    if browser:
        webbrowser.open(address)


if __name__ == "__main__":
    sys.exit(main())
