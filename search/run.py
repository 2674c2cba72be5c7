"""The command that searches: compose and check a configuration, open the study, run trials, print the front.

``python -m search.run +space=nlp``; ``--help`` lists all options.
"""

from __future__ import annotations

import os
import sys
import time

from search.workers.compose import run_command


def main(*, used_s: float = 0.0) -> None:
    """Run; invalid input ends with a message and exit code 2. ``used_s`` seconds of the run have passed before."""
    if code := run_command(sys.argv[1:], ["search.run", *sys.argv[1:]], used_s=used_s):
        sys.exit(code)


if __name__ == "__main__":
    try:
        main(used_s=time.process_time())  # the CPU-seconds of Python's start and of the imports above
    except SystemExit as end:
        if end.code != 1:
            raise
        # At once: after PyTorch was imported Python takes seconds to end, on a busy machine more than a budget allows.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
