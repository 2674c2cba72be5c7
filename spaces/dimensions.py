"""Dimensions: what one line of a space's YAML may say instead of a fixed value.

A mapping with one of the keys ``choice``, ``int`` or ``float`` is a dimension, wherever it stands::

    depth: {int: [1, 6]}                         also: step, log
    lr: {float: [1.0e-4, 3.0e-3], log: true}     also: step
    width: {choice: [64, 128]}                   values, or lists of values
    mixer: {choice: {small: {...}, big: {...}}}  named branches; what stands in a branch exists only when it is drawn
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Value = bool | int | float | str | None


class ConfigError(ValueError):
    """What a user asked for can't be; each line of the message names where, what, and what would be accepted."""


class Trial(Protocol):
    """What a dimension asks of the sampler: three methods of ``optuna.Trial``."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of ``choices``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """An integer of ``low..high``."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number of ``low..high``."""


@dataclass(frozen=True)
class Choice:
    """One of several options, told apart by their labels; an option may hold further dimensions."""

    options: Mapping[Value, Any]

    def suggest(self, trial: Trial, name: str) -> Any:
        """Let ``trial`` draw an option."""
        return self.options[trial.suggest_categorical(name, list(self.options))]

    def labels(self) -> list[Value]:
        """What the sampler calls the options, in the order of :meth:`ends`."""
        labels = list(self.options)
        numeric = all(isinstance(value, int | float) for value in self.options.values())
        return sorted(labels, key=self.options.__getitem__) if numeric else labels

    def ends(self) -> list[Any]:
        """Every option, numbers ascending."""
        return [self.options[label] for label in self.labels()]

    def values(self) -> list[tuple[Value, Any]]:
        """Every value, and what the sampler calls it."""
        return list(self.options.items())


@dataclass(frozen=True)
class Int:
    """An integer from ``low`` to ``high``, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> int:
        """Let ``trial`` draw a value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def labels(self) -> list[int]:
        """What the sampler calls the :meth:`ends`: themselves."""
        return self.ends()

    def ends(self) -> list[int]:
        """The lowest and the highest value."""
        return sorted({self.low, self.high})

    def values(self) -> list[tuple[Value, Any]]:
        """Every value, twice: the sampler calls it by itself."""
        return [(value, value) for value in range(self.low, self.high + 1, self.step)]


@dataclass(frozen=True)
class Float:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        """Let ``trial`` draw a value."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def labels(self) -> list[float]:
        """What the sampler calls the :meth:`ends`: themselves."""
        return self.ends()

    def ends(self) -> list[float]:
        """The lowest and the highest value."""
        return sorted({self.low, self.high})

    def values(self) -> list[tuple[Value, Any]] | None:
        """Every value, twice: the sampler calls it by itself; None where there is no step between them."""
        if self.step is None:
            return [(self.low, self.low)] if self.low == self.high else None
        steps = round((self.high - self.low) / self.step)
        values = (min(self.low + n * self.step, self.high) for n in range(steps + 1))  # sums are rounded
        return [(value, value) for value in values]


Dimension = Choice | Int | Float
UNDERSTOOD = {"choice": ("choice",), "int": ("int", "step", "log"), "float": ("float", "step", "log")}


def parse(node: object, where: str) -> Dimension | None:
    """The dimension that ``node`` spells, or None if it is a plain value.

    Raises:
        ConfigError: it is meant as a dimension and isn't one.
    """
    if not isinstance(node, Mapping):
        return None
    kinds = [key for key in node if key in UNDERSTOOD]
    if not kinds:
        return None
    kind = kinds[0]
    for key in node:
        if key not in UNDERSTOOD[kind]:
            understood = ", ".join(UNDERSTOOD[kind])
            raise ConfigError(f"{where}: {key!r} means nothing beside {kind!r}; it understands {understood}")
    if kind == "choice":
        return _choice(node["choice"], where)
    return _range(kind, node, where)


def _choice(options: object, where: str) -> Choice:
    if isinstance(options, Mapping) and options:
        return Choice({str(label): option for label, option in options.items()})
    if isinstance(options, str) or not isinstance(options, (Sequence, Mapping)):
        raise ConfigError(f"{where}: choice={options!r}; write a list of values or a mapping of named branches")
    if not options:
        raise ConfigError(f"{where}: the choice is empty; list at least one value")
    labelled: dict[Value, Any] = {}
    for option in options:
        if isinstance(option, Mapping):
            raise ConfigError(f"{where}: {option!r} in a list; name such branches: choice: {{name: {option!r}}}")
        label = ", ".join(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else option
        if label in labelled:
            raise ConfigError(f"{where}: {option!r} stands twice in the choice")
        labelled[label] = option
    return Choice(labelled)


def _range(kind: str, node: Mapping[str, Any], where: str) -> Int | Float:
    ends, step, log = node[kind], node.get("step"), node.get("log", False)
    if not (isinstance(ends, Sequence) and len(ends) == 2 and all(_fits(kind, end) for end in ends)):
        numbers = "integers" if kind == "int" else "finite numbers"
        raise ConfigError(f"{where}: {kind}={ends!r}; write two {numbers}, [low, high]")
    low, high = ends
    if low > high:
        raise ConfigError(f"{where}: low {low} is above high {high}")
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log={log!r}; write true or false")
    if log and low <= 0:
        raise ConfigError(f"{where}: low {low} on a logarithmic scale; it must be above 0")
    if step is not None:
        if log:
            raise ConfigError(f"{where}: step and log exclude each other")
        if not _fits(kind, step) or step <= 0:
            raise ConfigError(
                f"{where}: step={step!r}; it must be {'an integer' if kind == 'int' else 'a number'} above 0"
            )
        steps = (high - low) / step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            raise ConfigError(f"{where}: high {high} is not low {low} plus a multiple of step {step}")
    if kind == "int":
        return Int(low, high, step=step or 1, log=log)
    return Float(float(low), float(high), step=step, log=log)


def _fits(kind: str, value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind == "float" and isinstance(value, float) and math.isfinite(value))


def check_whole(least: int, **settings: object) -> None:
    """Raise ``ValueError``, naming the setting, unless each is a whole number from ``least``."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r}: it must be a whole number from {least}")


def check_number(least: float, most: float = math.inf, **settings: object) -> None:
    """Raise ``ValueError``, naming the setting, unless each is a number of ``least`` to ``most``."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            wanted = f"from {least:g}" if math.isinf(most) else f"of {least:g} to {most:g}"
            raise ValueError(f"{name}={value!r}: it must be a number {wanted}")
