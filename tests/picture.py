"""The command that makes the picture of the main README: ``python -m tests.picture``; it takes minutes.

It searches as that README says, in an empty folder, and draws the front.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / ".github" / "front.svg"
SEARCH = ["search.run", "+space=nlp", "seed=3"]  # as the README says


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=PICTURE)
    draw(parser.parse_args().to.resolve())


def draw(picture: Path) -> None:
    """Search, and draw the front to ``picture``."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (SEARCH, ["search.front", "nlp-recall", "--plot", str(picture)]):
            subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)


if __name__ == "__main__":
    main()
