"""Peak memory of a process that loads, checks and reads a large data set, which is generated with a fixed seed."""

from __future__ import annotations

import argparse
import csv
import os
import random
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spaces.tasks import Task

COUNTS = {"texts": 1_000_000, "images": 100_000}
WORDS = 20_000  # distinct words of the generated texts
SIDE = 32  # pixels of a generated image


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate the data, load them as a task, read every training batch once, and print the peak memory."""
    parser = argparse.ArgumentParser(prog="python -m spaces.bench.memory", description=__doc__)
    parser.add_argument("data", choices=COUNTS, help="texts of 10 to 50 words, or images of 32 by 32 pixels in colour")
    parser.add_argument("--count", type=int, help="texts or images (default: 1,000,000 or 100,000)")
    given = parser.parse_args(arguments)
    run(given.data, given.count or COUNTS[given.data])
    return 0


def run(data: str, count: int) -> None:
    """Measure ``count`` generated ``texts`` or ``images``."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PARETOFORMER_CACHE"] = f"{folder}/cache"
        task = _texts(Path(folder), count) if data == "texts" else _images(Path(folder), count)
        batches = _read(task)
    sys.stdout.write(f"{count} {data}, {batches} training batches: peak memory {peak_gib():.2f} GiB\n")


def peak_gib() -> float:
    """The largest resident set of this process so far, with the pages of mapped files."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _texts(folder: Path, count: int) -> Task:
    from spaces.tasks.table import Table

    generator, path = random.Random(0), folder / "texts.csv"
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 9))) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for row in range(count):
            writer.writerow((" ".join(generator.choices(words, k=generator.randint(10, 50))), row % 5))
    return Table(file=str(path), train=count)


def _images(folder: Path, count: int) -> Task:
    import numpy as np
    from PIL import Image

    from spaces.tasks.images import Images

    generator, classes = np.random.default_rng(0), 10
    for number in range(classes):
        (folder / "images" / str(number)).mkdir(parents=True)
    for number in range(count):
        pixels = generator.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / str(number % classes) / f"{number}.bmp")
    return Images(folder=str(folder / "images"), side=SIDE, train=count)


def _read(task: Task) -> int:
    from spaces.tasks.sources.checks import check_data

    check_data(task)
    return sum(1 for _ in task.batches("train", 32, shuffle=0))


if __name__ == "__main__":
    sys.exit(main())
