"""Time and peak memory of every mechanism by sequence length, compared with softmax attention and public packages.

An implementation that takes too long at some length is skipped from there on, with a message. The packages are those of
the extra "peers"; those that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaces.bench.implementations import BASELINE, Implementation, select

if TYPE_CHECKING:
    from spaces.bench.measure import BenchConfig, Measurement

MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
DTYPES = ("float32", "float64", "bfloat16", "float16")


def argument_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spaces.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "(default: %(default)s)"
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[128 << i for i in range(7)], help=f"in tokens {default}"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="mechanisms, or settings such as reformer-4-causal; softmax is always measured",
    )
    parser.add_argument("--rounds", type=int, default=5, help=f"samples per implementation {default}")
    parser.add_argument("--batch", type=int, default=4, help=f"sequences {default}")
    parser.add_argument("--width", type=int, default=128, help=f"features per token {default}")
    parser.add_argument("--heads", type=int, default=4, help=default)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=default)
    parser.add_argument("--threads", type=int, default=1, help=f"CPU threads {default}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=default)
    parser.add_argument(
        "--limit",
        type=float,
        default=6.0,
        metavar="S",
        help=f"skip what takes longer than S seconds for a forward and backward pass {default}",
    )
    parser.add_argument("--out", type=Path, default=Path("paretoformer-bench"), help=f"folder {default}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the CSV file and the page; returns the exit code."""
    args = argument_parser().parse_args(arguments)
    try:
        run(args)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Run the benchmark.

    Raises:
        ValueError: the arguments are invalid.
    """
    for name in ("rounds", "batch", "width", "heads", "threads", "limit"):
        if getattr(args, name) <= 0:
            raise ValueError(f"--{name}={getattr(args, name)}: it must be above 0")
    lengths = sorted(set(args.lengths))
    if lengths[0] < 2:
        raise ValueError(f"--lengths {lengths[0]}: it must be at least 2")
    if args.width % args.heads:
        raise ValueError(f"--width={args.width} --heads={args.heads}: heads must divide width")
    implementations = select(args.only)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device=cuda: PyTorch finds no GPU; it must be cpu")
    from spaces.bench.measure import BenchConfig, preload
    from spaces.bench.page import write_page
    from spaces.bench.report import tables, write_csv

    torch.set_num_threads(args.threads)
    config = BenchConfig(args.batch, args.width, args.heads, getattr(torch, args.dtype), args.device, args.threads)
    say(_header(args, torch.__version__))
    missing = sorted({each.package.partition(".")[0] for each in implementations if not each.installed})
    if missing:
        say(f"not installed, so skipped: {', '.join(missing)}; pip install '.[peers]' installs all packages")
    implementations = [each for each in implementations if each.installed]
    preload(implementations)
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[tuple[str, int], Measurement] = {}
    too_slow: dict[str, str] = {}
    for length in lengths:
        results |= _at(length, implementations, config, args, too_slow)
        write_csv(args.out / "bench.csv", implementations, lengths, results)
    text = tables(implementations, lengths, results)
    say(f"\n{text}")
    write_page(args.out / "bench.html", text, implementations, lengths, results)
    say(f"\nWritten as a table and as plots: {args.out / 'bench.csv'}, {args.out / 'bench.html'}")


def _at(
    length: int,
    implementations: Sequence[Implementation],
    config: BenchConfig,
    args: argparse.Namespace,
    too_slow: dict[str, str],
) -> dict[tuple[str, int], Measurement]:
    """The measurements at one length; ``too_slow`` maps implementations to skip to the reason, and is updated."""
    from spaces.bench.measure import Measurement, Subject, measure_in_rounds, probe

    peaks: dict[str, int] = {}
    subjects: dict[str, Subject] = {}
    for number, each in enumerate(implementations, start=1):
        progress(f"length {length}  memory {number}/{len(implementations)}  {each.name}")
        found = too_slow.get(each.name) or probe(each, config, length, args.limit)
        if not isinstance(found, str):
            seconds, peaks[each.name] = found
            if seconds > args.limit and each.name != BASELINE:
                found = too_slow[each.name] = f"a pass takes {seconds:.1f} s at length {length}"
        if not isinstance(found, str):
            subjects[each.name] = Subject(each, config, length)
            continue
        say(f"length {length}: {each.name} is skipped: {found}")
        if each.name == BASELINE:  # nothing to compare with
            return {}
    seconds_of = measure_in_rounds(
        subjects, args.rounds, args.device, lambda text: progress(f"length {length}  {text}")
    )
    say(f"length {length}: {len(subjects)} measured in {args.rounds} rounds")
    return {(name, length): Measurement(seconds_of[name], peaks[name]) for name in subjects}


def _header(args: argparse.Namespace, version: str) -> str:
    """The conditions of the benchmark."""
    malloc = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in MALLOC)
    return (
        f"batch {args.batch}, width {args.width}, heads {args.heads}, {args.dtype}, {args.device}, "
        f"threads {args.threads}; torch {version}, {platform.machine()}\n{malloc}"
    )


def say(text: str) -> None:
    """Print a line, replacing the progress line."""
    progress("")
    print(text, flush=True)  # noqa: T201


def progress(text: str) -> None:
    """Show progress in a terminal line that the next call replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
