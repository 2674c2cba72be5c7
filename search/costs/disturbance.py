"""How well latencies repeat on a busy machine: two trainings and two other processes run while networks are measured.

Random networks of a study's space are measured in turns on the quiet machine, twice, and then one by one, as trials do,
while there are two processes that train as workers do, one that computes and one that streams memory.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from search.costs.exclusive import WaitWhileMeasuring
from search.costs.stored import measured_costs, random_networks
from search.pareto import Floats
from search.study.stored import StoredStudy
from spaces.architecture import Architecture
from spaces.build import build, task_of
from spaces.instantiate import instantiate
from spaces.space import Space
from spaces.tasks import Task

SETTLE_S = 5.0  # until the other processes have begun
MEMORY = 4_000_000  # numbers that are streamed: 32 MB


def compare_disturbed(stored: StoredStudy, count: int, *, report: Callable[[str], None]) -> str:
    """The comparison as lines of text.

    Args:
        stored: whose space, task and settings of the latency are used.
        count: of networks.
        report: called with what is done next.

    Raises:
        ConfigError: the study's latencies are not measured, or its space has fewer networks.
    """
    identity, costs = stored.store.identity(), measured_costs(stored)
    networks = random_networks(Space(identity["space"]), count, option=f"--disturbed {count}")
    report(f"{count} networks on the quiet machine, in turns, twice")
    quiet, again = (np.array([timing.ms for timing in costs.timings(networks)]) for _ in range(2))
    with disturbed(networks[len(networks) // 2], identity["task"]):
        report("the same one by one, beside two trainings and two other processes")
        start = time.perf_counter()
        loaded = np.array([costs.timings([network])[0].ms for network in networks])
        seconds = (time.perf_counter() - start) / count
    return "\n".join(
        [
            f"{count} networks of {quiet.min():.3g} to {quiet.max():.3g} ms; {seconds:.2f} s each on the busy machine",
            agreement("quiet again", again, quiet),
            agreement("busy", loaded, quiet),
            share_of_time(stored),
        ]
    )


def agreement(name: str, measured: Floats, truth: Floats) -> str:
    """A line: the rank correlation, the median and the largest relative error, and the bias."""
    error = measured / truth - 1
    return (
        f"{name:23} Spearman {spearmanr(measured, truth).statistic:.4f}  median error {np.median(np.abs(error)):5.1%}  "
        f"largest {np.abs(error).max():5.1%}  bias {np.median(error):+.1%}"
    )


def share_of_time(stored: StoredStudy) -> str:
    """A line: the share of the study's trials that measuring took."""
    records: Sequence[Any] = stored.store.records()
    measuring, training = sum(each.latency_s for each in records), sum(each.training_s for each in records)
    share = measuring / max(measuring + training, 1e-9)
    return f"measuring took {share:.1%} of the time of the study's {len(records)} trials ({measuring:.1f} s)"


@contextmanager
def disturbed(architecture: Architecture, task: Mapping[str, Any]) -> Iterator[None]:
    """Run two trainings and two other processes, until the context ends."""
    context = multiprocessing.get_context("spawn")
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(_train, (architecture, dict(task)))] * 2
    work += [(_compute, ()), (_stream, ())]
    processes = [context.Process(target=target, args=arguments, daemon=True) for target, arguments in work]
    for process in processes:
        process.start()
    try:
        time.sleep(SETTLE_S)
        if ended := [process.exitcode for process in processes if not process.is_alive()]:
            raise RuntimeError(f"{len(ended)} of the disturbing processes have ended")
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _train(architecture: Architecture, settings: Mapping[str, Any]) -> None:
    wait_while_measuring = WaitWhileMeasuring()
    torch.set_num_threads(1)
    task = instantiate(Task, settings, "task")
    network, task = build(architecture, task), task_of(architecture, task)
    optimizer = torch.optim.AdamW(network.parameters())
    while True:
        for batch in task.batches("train", task.batch_size):
            wait_while_measuring()
            optimizer.zero_grad()
            task.loss(network(batch), batch).backward()
            optimizer.step()


def _compute() -> None:
    while True:
        pass


def _stream() -> None:
    numbers = np.ones(MEMORY)
    while True:
        numbers *= 1.0000001
