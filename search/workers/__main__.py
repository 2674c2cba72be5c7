"""A further worker of a run, started by it: reads the configuration from standard input, then runs trials.

It stops when its standard input is closed, so that it never outlives the run that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from search.config import parse_duration
from search.workers.run import run


def main() -> None:
    """Run trials until the run ends or stops."""
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_input, daemon=True).start()
    config, ends_at, used_s = given["config"], given["ends_at"], 0.0
    if ends_at is not None:
        used_s = parse_duration(config["budget"], "budget") - (ends_at - time.time())
    code = run(config, used_s=max(0.0, used_s), further=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: Python takes seconds to end after PyTorch was imported, and the run that started this process waits.
    os._exit(code)


def _stop_with_input() -> None:
    """Stop this process as by SIGTERM when its standard input is closed."""
    os.read(0, 1)  # not sys.stdin, whose lock a thread must not hold when Python ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
