"""Where the time of a mechanism goes, by PyTorch's profiler: which limit a faster one would have to lift.

For each implementation, as in ``python -m spaces.bench``, the shares of the fastest of several passes in matrix
products, in the fused kernel of softmax attention, in operators that copy, in the other operators (elementwise,
reductions, sorting) and outside of them, which is Python, dispatch and our own autograd functions; the billions of
floating-point operations per second of the matrix products, to compare with those of softmax attention's; and the
megabytes that the operators which copy or compute elementwise read, from the shapes of their arguments.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from spaces.bench.implementations import select
from spaces.bench.measure import PASSES, BenchConfig, Subject

PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::mkldnn_linear")
COPIES = (
    *("aten::copy_", "aten::cat", "aten::clone", "aten::stack", "aten::fill_", "aten::constant_pad_nd"),
    *("aten::gather", "aten::scatter_", "aten::index", "aten::index_select", "aten::index_put_"),
)
FUSED = "scaled_dot_product"
PASSES_PROFILED = 5


class Limits(NamedTuple):
    """Of one pass: milliseconds; shares of them; billions of operations a second; megabytes."""

    ms: float
    products: float
    fused: float
    copies: float
    others: float
    outside: float
    gflops: float
    megabytes: float


def argument_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m spaces.bench.limits", description=__doc__)
    default = "(default: %(default)s)"
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="as for python -m spaces.bench")
    parser.add_argument("--length", type=int, default=2048, help=f"in tokens {default}")
    parser.add_argument("--batch", type=int, default=4, help=f"sequences {default}")
    parser.add_argument("--pass", dest="kind", choices=PASSES, default=PASSES[0], help=default)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile and print the table; returns the exit code."""
    asked = argument_parser().parse_args(arguments)
    try:
        if min(asked.length, asked.batch) < 1:
            raise ValueError(f"--length={asked.length} --batch={asked.batch}: they must be at least 1")
        chosen = [each for each in select(asked.only) if each.installed]
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    torch.set_num_threads(1)
    config = BenchConfig(asked.batch, 128, 4, torch.float32, "cpu", 1)
    print(f"{'':32}      ms  products fused copies others outside GFLOP/s MB read")  # noqa: T201
    for each in chosen:
        found = limits(Subject(each, config, asked.length).passes()[asked.kind])
        shares = "".join(f"{share:7.0%}" for share in found[1:6])
        print(f"{each.name:32}{found.ms:8.2f}   {shares}{found.gflops:8.0f}{found.megabytes:8.0f}")  # noqa: T201
    return 0


def limits(step: Callable[[], object]) -> Limits:
    """Where the time of the fastest of several calls of ``step`` goes."""
    from torch.profiler import ProfilerActivity, profile, record_function

    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True) as profiled:
        for _ in range(PASSES_PROFILED):
            with record_function("step"):
                step()
    events: Any = profiled.events() or []
    # Other processes make the other passes slower, wherever they interrupt them.
    fastest = min((each for each in events if each.name == "step"), key=lambda each: each.cpu_time_total)
    first, last = fastest.time_range.start, fastest.time_range.end
    us, flops, read = {"products": 0.0, "fused": 0.0, "copies": 0.0, "others": 0.0}, 0.0, 0.0
    for each in events:
        if not each.name.startswith("aten::") or not first <= each.time_range.start < last:
            continue
        kind = _kind(each.name)
        us[kind] += each.self_cpu_time_total
        flops += each.flops if kind == "products" and each.flops else 0
        # Operators that call others read nothing themselves; views, which take less, do not either.
        if kind in ("copies", "others") and not each.cpu_children and each.self_cpu_time_total >= 1:
            read += sum(4 * math.prod(shape) for shape in each.input_shapes or [] if shape and _is_shape(shape))
    total = float(fastest.cpu_time_total)
    products, fused, copies, others = (value / total for value in us.values())
    outside = 1 - products - fused - copies - others
    rate = flops / us["products"] / 1e3 if us["products"] else 0.0
    return Limits(total / 1e3, products, fused, copies, others, outside, rate, read / 1e6)


def _is_shape(shape: Sequence[Any]) -> bool:
    """False of an argument that is a list of tensors, whose shapes are not told apart."""
    return all(isinstance(size, int) for size in shape)


def _kind(name: str) -> str:
    if name in PRODUCTS:
        return "products"
    if FUSED in name:
        return "fused"
    return "copies" if name in COPIES else "others"


if __name__ == "__main__":
    sys.exit(main())
