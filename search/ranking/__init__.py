"""Rank mechanisms by multi-query associative recall: ``python -m search.ranking`` trains each at three sizes.

The order that is known of published models, softmax > gated delta rule > gated linear attention > sliding window >
linear attention (Arora et al., "Zoology", 2023, figure 2; Arora et al., "Based", 2024; Yang et al., "Gated Delta
Networks", 2024), is that of long trainings with many keys. The command prints where these trainings contradict it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, product
from typing import Any, NamedTuple

from search.config import refuse
from spaces.dimensions import ConfigError, check_above, check_whole

DEPTH, BATCH, LENGTH, VALIDATION, TEST = 2, 32, 64, 200, 500
MARGIN = 0.02  # accuracies closer than this count as equal
MECHANISMS: Mapping[str, Mapping[str, Any]] = {  # from the best to the worst
    "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
    "delta": {"_target_": "spaces.attention.delta.DeltaAttention", "decay": "token"},
    "gated": {"_target_": "spaces.attention.gated.GatedAttention", "decay": "token"},
    "window": {"_target_": "spaces.attention.longformer.LongformerAttention", "window": 16, "global_tokens": 0},
    "linear": {"_target_": "spaces.attention.linear.LinearAttention", "feature_map": "elu"},
}


class Size(NamedTuple):
    """A network of two blocks and its task."""

    width: int
    heads: int
    pairs: int
    vocabulary: int

    @property
    def state(self) -> int:
        """Numbers in the recurrent state of a block of linear attention."""
        return self.width**2 // self.heads

    def __str__(self) -> str:
        return f"width {self.width}, state {self.state}, {self.pairs} pairs, {self.vocabulary} tokens"


SIZES = (Size(16, 1, 4, 32), Size(32, 2, 8, 64), Size(32, 2, 8, 256))


class Training(NamedTuple):
    """One training: a mechanism at a size, with a learning rate and a seed."""

    mechanism: str
    size: Size
    lr: float
    seed: int
    rows: int
    epochs: int

    def architecture(self) -> dict[str, Any]:
        """The architecture that is trained."""
        model = {"_target_": "spaces.models.encoder.Encoder", "depth": DEPTH}
        return {
            "model": model | {"width": self.size.width, "heads": self.size.heads},
            "pattern": [self.mechanism] * DEPTH,
            "attention": {self.mechanism: dict(MECHANISMS[self.mechanism])},
            "train": {"epochs": self.epochs, "lr": self.lr, "batch_size": BATCH, "schedule": "cosine"},
        }


def train(training: Training) -> tuple[float, float]:
    """The accuracies on validation and test of a training."""
    import logging
    import warnings

    import torch

    from search.confirm.training import Setting
    from search.confirm.training import train as train_network
    from search.training.device import Device
    from spaces.tasks.mqar import MQAR

    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    size = training.size
    task = MQAR(
        length=LENGTH,
        pairs=size.pairs,
        vocabulary=size.vocabulary,
        causal=True,
        train=training.rows,
        validation=VALIDATION,
        test=TEST,
        seed=training.seed,
    )
    found = train_network(training.architecture(), Setting(task, Device()), seed=training.seed)
    return found.validation[task.metric], found.test[task.metric]


def accuracies(trainings: Sequence[Training], results: Sequence[tuple[float, float]]) -> dict[tuple[Size, str], float]:
    """Accuracy on test by size and mechanism: the mean over seeds, at the learning rate that is best on validation."""
    rates: dict[tuple[Size, str], dict[float, list[tuple[float, float]]]] = {}
    for training, result in zip(trainings, results, strict=True):
        rates.setdefault((training.size, training.mechanism), {}).setdefault(training.lr, []).append(result)
    found = {}
    for key, by_rate in rates.items():
        best = max(by_rate.values(), key=lambda each: sum(validation for validation, _ in each) / len(each))
        found[key] = sum(test for _, test in best) / len(best)
    return found


def contradictions(measured: Mapping[str, float]) -> list[str]:
    """The pairs of mechanisms whose accuracies are in the opposite of the known order, by more than ``MARGIN``."""
    names = [name for name in MECHANISMS if name in measured]
    return [
        f"{worse} {measured[worse]:.2f} is better than {better} {measured[better]:.2f}"
        for better, worse in combinations(names, 2)
        if measured[worse] > measured[better] + MARGIN
    ]


def report(measured: Mapping[tuple[Size, str], float], sizes: Sequence[Size]) -> str:
    """The table, and below it what contradicts the known order."""
    names = [name for name in MECHANISMS if any((size, name) in measured for size in sizes)]
    lines = [f"| size | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for size in sizes:
        lines.append(f"| {size} | {' | '.join(f'{measured[size, name]:.2f}' for name in names)} |")
    lines += ["", f"The known order: {' > '.join(names)}."]
    for size in sizes:
        found = contradictions({name: measured[size, name] for name in names})
        lines.append(f"{size}: {'; '.join(found) or 'as known'}.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the table, and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        trainings = _planned(given)
    except ValueError as error:
        return refuse(ConfigError(str(error)))
    print(f"{len(trainings)} trainings of {given.rows} rows, {given.epochs} epochs", file=sys.stderr)  # noqa: T201
    results = []
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            for training, result in zip(trainings, pool.map(train, trainings), strict=True):
                shown = f"{training.mechanism}, {training.size}, lr {training.lr:g}, seed {training.seed}"
                print(f"{shown}: {result[1]:.3f}", file=sys.stderr, flush=True)  # noqa: T201
                results.append(result)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            return 130
    print(report(accuracies(trainings, results), SIZES[: given.sizes]))  # noqa: T201
    return 0


def _planned(given: argparse.Namespace) -> list[Training]:
    check_whole(1, jobs=given.jobs, rows=given.rows, epochs=given.epochs, seeds=given.seeds)
    for lr in given.lr:
        check_above(0.0, lr=lr)
    if unknown := sorted(set(given.only) - set(MECHANISMS)):
        raise ValueError(f"--only: unknown mechanism {unknown[0]!r}; known: {', '.join(MECHANISMS)}")
    if not 1 <= given.sizes <= len(SIZES):
        raise ValueError(f"--sizes={given.sizes}: it must be 1..{len(SIZES)}")
    chosen = product(SIZES[: given.sizes], given.only or MECHANISMS, given.lr, range(given.seeds))
    return [Training(name, size, lr, seed, given.rows, given.epochs) for size, name, lr, seed in chosen]


def _parser() -> argparse.ArgumentParser:
    default = "(default: %(default)s)"
    parser = argparse.ArgumentParser(prog="python -m search.ranking", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, default=len(SIZES), help=f"how many of the three {default}")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="mechanisms (default: all)")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.01], help="of which the best counts (default: 0.01)")
    parser.add_argument("--rows", type=int, default=4000, help=f"of the training split {default}")
    parser.add_argument("--epochs", type=int, default=8, help=default)
    parser.add_argument("--seeds", type=int, default=1, help=default)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    return parser
