"""Time and memory of every mechanism over the length, beside softmax attention and public packages.

What takes too long at some length is left out from there on, and it says so. The packages are those of the extra
peers; what is not installed is left out as well.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.bench.implementations import Implementation, chosen

if TYPE_CHECKING:
    from spaces.bench.measure import Measured, Setting

BASELINE = "softmax"
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
DTYPES = ("float32", "float64", "bfloat16", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the table and the page; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m spaces.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "(default: %(default)s)"
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[128 << i for i in range(7)], help=f"in tokens {default}"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="mechanisms, or settings such as reformer-4-causal"
    )
    parser.add_argument("--rounds", type=int, default=5, help=f"samples of each {default}")
    parser.add_argument("--batch", type=int, default=4, help=f"sequences {default}")
    parser.add_argument("--width", type=int, default=128, help=f"features per token {default}")
    parser.add_argument("--heads", type=int, default=4, help=default)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=default)
    parser.add_argument("--threads", type=int, default=1, help=f"of the processor {default}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=default)
    parser.add_argument(
        "--limit", type=float, default=6.0, metavar="S", help=f"seconds a forward and backward pass may take {default}"
    )
    parser.add_argument("--out", type=Path, default=Path("paretoformer-bench"), help=f"folder {default}")
    given = parser.parse_args(arguments)
    try:
        run(given)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(given: argparse.Namespace) -> None:
    """Do as the arguments say.

    Raises:
        ValueError: they do not fit.
    """
    for name in ("rounds", "batch", "width", "heads", "threads", "limit"):
        if getattr(given, name) <= 0:
            raise ValueError(f"--{name}={getattr(given, name)}: it must be above 0")
    lengths = sorted(set(given.lengths))
    if lengths[0] < 2:
        raise ValueError(f"--lengths {lengths[0]}: it must be at least 2")
    if given.width % given.heads:
        raise ValueError(f"--width={given.width} --heads={given.heads}: heads must divide width")
    wanted = chosen(given.only)
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device=cuda: PyTorch sees no GPU here; it must be cpu")
    from spaces.bench.measure import Setting, prepare
    from spaces.bench.page import write_page
    from spaces.bench.report import tables, write_csv

    torch.set_num_threads(given.threads)
    setting = Setting(given.batch, given.width, given.heads, getattr(torch, given.dtype), given.device, given.threads)
    say(_header(given, torch.__version__))
    missing = sorted({each.package.partition(".")[0] for each in wanted if not each.installed})
    if missing:
        say(f"not installed, so left out: {', '.join(missing)}; the extra peers brings all packages")
    wanted = [each for each in wanted if each.installed]
    prepare(wanted)
    given.out.mkdir(parents=True, exist_ok=True)
    results: dict[tuple[str, int], Measured] = {}
    too_slow: dict[str, str] = {}
    for length in lengths:
        results |= _at(length, wanted, setting, given, too_slow)
        write_csv(given.out / "bench.csv", wanted, lengths, results)
    text = tables(wanted, lengths, results)
    say(f"\n{text}")
    write_page(given.out / "bench.html", text, wanted, lengths, results)
    say(f"\nThe same as a table and as curves: {given.out / 'bench.csv'}, {given.out / 'bench.html'}")


def _at(
    length: int,
    wanted: Sequence[Implementation],
    setting: Setting,
    given: argparse.Namespace,
    too_slow: dict[str, str],
) -> dict[tuple[str, int], Measured]:
    """What was measured at one length; ``too_slow`` says, and learns, what is not to be tried, and why."""
    from spaces.bench.measure import Measured, Subject, in_rounds, probe

    peaks: dict[str, int] = {}
    subjects: dict[str, Subject] = {}
    for number, each in enumerate(wanted, start=1):
        progress(f"length {length}  memory {number}/{len(wanted)}  {each.name}")
        found = too_slow.get(each.name) or probe(each, setting, length, given.limit)
        if not isinstance(found, str):
            seconds, peaks[each.name] = found
            if seconds > given.limit and each.name != BASELINE:
                found = too_slow[each.name] = f"a pass takes {seconds:.1f} s at length {length}"
        if not isinstance(found, str):
            subjects[each.name] = Subject(each, setting, length)
            continue
        say(f"length {length}: {each.name} is left out: {found}")
        if each.name == BASELINE:  # there is nothing to compare with
            return {}
    seconds_of = in_rounds(subjects, given.rounds, given.device, lambda text: progress(f"length {length}  {text}"))
    say(f"length {length}: {len(subjects)} measured in {given.rounds} rounds")
    return {(name, length): Measured(seconds_of[name], peaks[name]) for name in subjects}


def _header(given: argparse.Namespace, version: str) -> str:
    """What the numbers hold for."""
    malloc = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in MALLOC)
    return (
        f"batch {given.batch}, width {given.width}, heads {given.heads}, {given.dtype}, {given.device}, "
        f"threads {given.threads}; torch {version}, {platform.machine()}\n{malloc}"
    )


def say(text: str) -> None:
    """Print, in the place of a line of progress."""
    progress("")
    print(text, flush=True)  # noqa: T201


def progress(text: str) -> None:
    """Show what is going on in one line of a terminal, which the next replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
