"""The command that predicts with an exported model: ``python -m search.predict FOLDER FILE``."""

from __future__ import annotations

import sys

from search.programs.inference import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m search.predict"))
