"""Microseconds of the next token for every causal mechanism, beside GPT-2 of transformers with its own cache.

Each is a language model of the same width, heads and depth, with random weights, whose cache holds a text. The time is
CPU time, to which other processes do not add, the minimum of interleaved rounds. The share of Python is the share of a
step during which no operator of PyTorch runs, by its profiler, which makes both slower. It needs the extra "peers".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spaces.attention import Shape

VOCABULARY = 256
PEER = "GPT-2 of transformers"
PROFILED = 100  # steps
Step = Callable[[], object]


def argument_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m spaces.bench.decoding", description=__doc__)
    default = "(default: %(default)s)"
    parser.add_argument("--length", type=int, default=256, help=f"tokens in the cache {default}")
    parser.add_argument("--width", type=int, default=128, help=f"features per token {default}")
    parser.add_argument("--heads", type=int, default=4, help=default)
    parser.add_argument("--depth", type=int, default=2, help=f"blocks {default}")
    parser.add_argument("--rounds", type=int, default=5, help=f"samples of each {default}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table; returns the exit code."""
    asked = argument_parser().parse_args(arguments)
    try:
        for name in ("length", "width", "heads", "depth", "rounds"):
            if getattr(asked, name) < 1:
                raise ValueError(f"--{name}={getattr(asked, name)}: it must be at least 1")
        if asked.width % asked.heads:
            raise ValueError(f"--width={asked.width} --heads={asked.heads}: heads must divide width")
        run(asked)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


def run(asked: argparse.Namespace) -> None:
    """Measure every model in turns."""
    import torch

    from spaces.attention import Shape

    torch.set_num_threads(1)
    shape = Shape(asked.width, asked.heads, asked.length + 1, causal=True)
    with torch.inference_mode():
        subjects = steps(shape, asked.depth)
        if find_spec("transformers") is not None:
            subjects = {PEER: peer_step(shape, asked.depth), **subjects}
        microseconds = measure(subjects, asked.rounds)
        shares = {name: python_share(step) for name, step in subjects.items()}
        print(f"{'':24}us a token  of {PEER}  Python")  # noqa: T201
        for name, us in microseconds.items():
            ratio = f"{us / microseconds[PEER]:.2f}" if PEER in microseconds else "?"
            print(f"{name:24}{us:10.0f}  {ratio:>{3 + len(PEER)}}  {shares[name]:6.0%}")  # noqa: T201


def steps(shape: Shape, depth: int) -> dict[str, Step]:
    """A step of a decoder of each mechanism that can decode, by the mechanism's setting."""
    import torch

    from spaces.attention import Mechanism
    from spaces.bench.implementations import IMPLEMENTATIONS
    from spaces.models.config import ModelConfig
    from spaces.models.decoder import Decoder
    from spaces.spec import TaskSpec

    spec = TaskSpec(length=shape.length, classes=VOCABULARY, per_token=True, vocabulary=VOCABULARY, causal=True)
    config, found = ModelConfig(width=shape.width, feed_forward=4.0), dict[str, Step]()
    for each in IMPLEMENTATIONS:
        setting = each.setting.removesuffix("-causal")
        if each.package or setting in found:
            continue
        torch.manual_seed(0)
        try:
            blocks = [module for module in map(each.create, [shape] * depth) if isinstance(module, Mechanism)]
            network = Decoder(blocks, config, spec=spec).eval()
        except ValueError:  # it is not causal, or cannot decode token by token
            continue
        ids = torch.arange(shape.length)[None] % VOCABULARY
        _, cache = network.prefill(ids[:, :-1])
        found[setting] = partial(network.decode_step, ids[:, -1], cache)
    return found


def peer_step(shape: Shape, depth: int) -> Step:
    """A step of GPT-2; its cache is cut afterwards to what it was before."""
    import torch
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {
        "n_positions": shape.length,
        "n_embd": shape.width,
        "n_layer": depth,
        "n_head": shape.heads,
    }
    config = GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes)
    network: Any = GPT2LMHeadModel(config)
    network.eval()
    cache: Any = DynamicCache()
    ids = torch.arange(shape.length)[None] % VOCABULARY
    network(ids[:, :-1], cache)

    def step() -> torch.Tensor:
        logits: torch.Tensor = network(ids[:, -1:], cache).logits
        cache.crop(-1)
        return logits

    return step


def measure(subjects: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Microseconds of CPU time of each step: the minimum of rounds in which all take turns."""
    from spaces.bench.measure import calls_per_sample, seconds_per_call

    calls = {}
    for name, step in subjects.items():
        step()
        calls[name] = calls_per_sample(seconds_per_call(step, 1, "cpu"))
    samples = [
        {name: seconds_per_call(step, calls[name], "cpu") for name, step in subjects.items()} for _ in range(rounds)
    ]
    return {name: 1e6 * min(sample[name] for sample in samples) for name in subjects}


def python_share(step: Step) -> float:
    """The share of the fastest step's time that is not within an operator of PyTorch."""
    from torch.profiler import ProfilerActivity, profile, record_function

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(PROFILED):
            with record_function("step"):
                step()
    events = profiled.events() or []
    # Other processes make the other steps slower, wherever they interrupt them.
    fastest = min((each for each in events if each.name == "step"), key=lambda each: each.cpu_time_total)
    first, last = fastest.time_range.start, fastest.time_range.end
    operators = (each for each in events if each.name.startswith("aten::") and first <= each.time_range.start < last)
    return 1 - sum(each.self_cpu_time_total for each in operators) / float(fastest.cpu_time_total)


if __name__ == "__main__":
    sys.exit(main())
