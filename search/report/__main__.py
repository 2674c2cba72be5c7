"""The command that writes a study as one HTML page: ``python -m search.report STUDY``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from search.config import add_storage_option, default_storage, refuse
from spaces.dimensions import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments``, by default those of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Write a stored study as one HTML page that needs no network. The study is only read.",
    )
    parser.add_argument("study", metavar="STUDY", help="name of a study")
    parser.add_argument("--to", metavar="FILE", type=_html_path, help="by default STUDY.html in this folder")
    add_storage_option(parser)
    asked = parser.parse_args(arguments)

    import optuna

    from search.report.page import page
    from search.study.storage import open_read_only
    from search.study.stored import load_stored

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = asked.to or Path(re.sub(r"[^\w.-]", "_", asked.study).lstrip(".") + ".html")
    try:
        with open_read_only(asked.storage or default_storage()) as storage:
            html = page(load_stored(storage, asked.study))
        file.write_text(html, encoding="utf-8")
    except ConfigError as error:
        return refuse(error)
    except OSError as error:
        return refuse(f"{file} can't be written: {error.strerror}")
    print(f"The page was written to {file}.")  # noqa: T201
    return 0


def _html_path(text: str) -> Path:
    if Path(text).suffix != ".html":
        raise argparse.ArgumentTypeError(f"{text}: the file name must end in .html")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
