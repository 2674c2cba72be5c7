"""Whether the parts of a run fit each other: the data, the space and the task, and the measurement of latency."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search.costs.meter import Meter
from search.costs.modes import check_mode
from search.costs.runtimes import EXECUTED_BY, check_runtimes, quantization_of
from search.training.check import validate_settings
from search.training.divergence import reason_to_prune
from spaces.architecture import key
from spaces.build import build, invalid_corners, task_of
from spaces.dimensions import ConfigError
from spaces.space import Space
from spaces.tasks import Task
from spaces.tasks.sources.checks import check_data


def validate_data(task: Task) -> None:
    """Read the data and check it.

    Raises:
        ConfigError: it is invalid.
    """
    try:
        check_data(task)
    except ValueError as error:
        raise ConfigError(f"task: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not reason_to_prune(error):  # it is not out of memory
            raise
        raise ConfigError(
            "task: its data do not fit into memory; it must be smaller, such as task.length or task.train"
        ) from error


def validate_latency(meter: Meter, space: Space, task: Task) -> None:
    """Check the device, the run-times, the mode, and that the task has sequences of the length to measure.

    Raises:
        ConfigError: the device cannot be reached, a run-time is not installed or unsuitable for the task, the space has
            no language models to decode with, or some settings of the input leave no such sequences.
    """
    check_runtimes(meter.runtimes, task)
    _ = meter.hardware  # asks the device
    for quantization in dict.fromkeys(map(quantization_of, space.corners())):
        if quantization != "none" and meter.device != "cpu":
            raise ConfigError(
                f"model.quantization={quantization}: its kernels are for CPUs, and latency.device={meter.device}; "
                "fix space.model.quantization=none, or time on the CPU"
            )
        needed = EXECUTED_BY.get(quantization, meter.runtimes)
        if not set(needed) & set(meter.runtimes):
            raise ConfigError(
                f"model.quantization={quantization} is executed by the run-time {' or '.join(needed)} alone, and"
                f" latency.runtimes has {', '.join(meter.runtimes)}; add it, or choose latency=fastest"
            )
    if meter.mode != "forward":
        check_mode(meter.mode, build(next(space.largest()), task))
    if meter.length is None:
        return
    for given in {key(corner.get("input") or {}): corner for corner in space.corners()}.values():
        try:
            task_of(given, task).sample(1, meter.length)
        except ValueError as error:
            raise ConfigError(f"latency: {error}") from error


def validate_space(space: Space, task: Task) -> None:
    """Build the networks at every corner of the space.

    Raises:
        ConfigError: the data does not fit corners that the message lists.
    """
    problems = invalid_corners(space, task)
    for settings in space.train_corners():
        try:
            validate_settings(settings, task)
        except ConfigError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"these corners of the space are invalid for the task:\n{lines}{_advice(problems)}")


def _advice(problems: Sequence[str]) -> str:
    """Overrides that narrow or drop the first invalid mechanism, if there is one."""
    invalid = next((match for problem in problems if (match := re.match(r"attention\.(\w+):? (\w+)=", problem))), None)
    if invalid is None:
        return ""
    name, setting = invalid.groups()
    return f"\nnarrow it, 'space.attention.{name}.{setting}=...', or drop it, '~space.attention.{name}'"
