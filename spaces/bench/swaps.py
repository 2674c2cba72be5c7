"""Milliseconds of a checkpoint whose attention is replaced in all layers, by length of the text.

What swaps of mechanisms alone gain: embedding, feed-forward networks and norms stay. Latency does not depend on what
the weights are, so replacements take over the projections of queries, keys and values and are not distilled; how much
worse they predict is what ``python -m search.compress STUDY --library`` tells. Where a text is longer than the
checkpoint's table of positions, the table is repeated. The time is CPU time of one text on one thread, to which other
processes do not add, the minimum of interleaved rounds. For texts written token by token see
:mod:`spaces.bench.decoding`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Shape
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.models.block import NoAttention
from spaces.models.checkpoint import DEMONSTRATION, Checkpoint
from spaces.models.pretrained import PretrainedNetwork
from spaces.spec import TaskSpec
from spaces.tasks import Batch

WHOLE = "softmax (whole)"
SWAPS: Mapping[str, Callable[[Shape], Mechanism]] = {
    WHOLE: SoftmaxAttention,
    "window 8 + first": lambda shape: LongformerAttention(shape, window=min(8, shape.length - 1), global_tokens=1),
    "window 64 + first": lambda shape: LongformerAttention(shape, window=min(64, shape.length - 1), global_tokens=1),
    "linformer, rank 32": lambda shape: LinformerAttention(shape, rank=min(32, shape.length)),
    "linear, elu + 1": lambda shape: LinearAttention(shape, feature_map="elu"),
    "linear, hedgehog": lambda shape: LinearAttention(shape, feature_map="hedgehog"),
    "no attention": NoAttention,
}


class Body(PretrainedNetwork):
    """The embedding and all layers of a checkpoint, for texts of ``length`` tokens."""

    def __init__(self, source: Checkpoint, mechanism: Callable[[Shape], Mechanism], length: int) -> None:
        shape = Shape(source.width, source.heads, length)
        super().__init__(
            [mechanism(shape) for _ in range(source.depth)],
            spec=TaskSpec(length=length, vocabulary=source.vocabulary, classes=2, per_token=False),
            source=source,
            rows=source.vocabulary,
            width=source.width,
            layers="spread",
            feed_forward=1.0,
            dropout=0.0,
        )
        self.positions = None  # of another length
        self.load(source)
        table = source.position_table()
        self.positions = nn.Parameter(table.repeat(-(-length // len(table)), 1)[:length])

    def classify(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The mean of the hidden states."""
        return self.features(x).mean(1)


def argument_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m spaces.bench.swaps", description=__doc__)
    default = "(default: %(default)s)"
    parser.add_argument("--checkpoint", default=DEMONSTRATION, help=f"an encoder of texts {default}")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[128, 512, 2048], metavar="TOKENS", help=f"of the texts {default}"
    )
    parser.add_argument("--rounds", type=int, default=5, help=f"samples of each {default}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; returns the exit code."""
    asked = argument_parser().parse_args(arguments)
    try:
        for name, value in (("lengths", min(asked.lengths)), ("rounds", asked.rounds)):
            if value < 1:
                raise ValueError(f"--{name}={value}: it must be at least 1")
        source = Checkpoint(asked.checkpoint)
        if source.causal or not source.family.tokens:
            raise ValueError(f"{source.kind} is no encoder of texts")
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    torch.set_num_threads(1)
    found = [measure(source, length, asked.rounds) for length in asked.lengths]
    print(f"{'':20}" + "".join(f"{f'{length} tokens':>18}" for length in asked.lengths))  # noqa: T201
    for name in SWAPS:
        cells = [f"{ms[name]:.1f} ms {ms[WHOLE] / ms[name]:5.2f}x" for ms in found]
        print(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells))  # noqa: T201
    return 0


@torch.inference_mode()
def measure(source: Checkpoint, length: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds of a text of ``length`` tokens with each of ``SWAPS``, the minimum of ``rounds``."""
    ids = torch.randint(source.vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    networks = {name: Body(source, swap, length).eval() for name, swap in SWAPS.items()}
    found: dict[str, list[float]] = {name: [] for name in networks}
    for at in range(rounds + 1):
        for name, network in networks.items():
            before = time.process_time()
            network(Batch(ids, None, ids))
            if at:  # the first call allocates memory
                found[name].append(1e3 * (time.process_time() - before))
    return {name: min(times) for name, times in found.items()}


if __name__ == "__main__":
    sys.exit(main())
