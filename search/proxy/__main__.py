"""The command that serves the database of studies to workers that have ``storage.url=grpc://host:port``.

``python -m search.proxy``; ``--help`` lists the options. One process holds the connections to the database, and its
password, for hundreds of workers. gRPC's connections are neither encrypted nor protected by a password, so by default
only this machine reaches them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from search.config import add_storage_option, default_storage, refuse
from spaces.dimensions import ConfigError

THREADS = 15  # and connections to the database


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is interrupted, with ``arguments``, by default those of the command line."""
    asked = _parser().parse_args(arguments)

    from concurrent.futures import ThreadPoolExecutor

    import optuna

    from search.study.database import open_database
    from search.study.set_once import SetOnceStorage

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        # Not retried here: each worker retries its own calls, and notices when it takes too long.
        url = asked.storage or default_storage()
        storage = open_database(url, SetOnceStorage, connections=THREADS)
    except ConfigError as error:
        return refuse(error)
    print(f"Workers reach it by storage.url=grpc://{asked.host}:{asked.port}; Ctrl-C ends it.", flush=True)  # noqa: T201
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    try:
        optuna.storages.run_grpc_proxy_server(
            optuna.storages.get_storage(storage),
            host=asked.host,
            port=asked.port,
            thread_pool=ThreadPoolExecutor(THREADS),
        )
    except ImportError as error:
        return refuse(f"{error}: pip install 'paretoformer[grpc]'")
    except RuntimeError as error:  # of gRPC, such as a port in use
        return refuse(f"--host {asked.host} --port {asked.port}: {error}; choose a free port")
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.proxy", description="Serve the database of studies to workers by gRPC."
    )
    add_storage_option(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (%(default)s); others reach it without a password",
    )
    parser.add_argument("--port", type=int, default=13000, help="(%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
