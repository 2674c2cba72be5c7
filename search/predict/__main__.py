"""The command that predicts with an exported model: ``python -m search.predict FOLDER FILE``."""

from __future__ import annotations

import signal
import sys

from search.programs.inference import main

if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end silently if the reader of the output does, such as head
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(prog="python -m search.predict"))
