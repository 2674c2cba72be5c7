"""Dimensions: search distributions that YAML may have in place of a fixed value.

A mapping with one of the keys ``choice``, ``int`` or ``float`` is a dimension, at any depth::

    depth: {int: [1, 6]}                         also: step, log
    lr: {float: [1.0e-4, 3.0e-3], log: true}     also: step
    width: {choice: [64, 128]}                   values, or lists of values
    mixer: {choice: {small: {...}, big: {...}}}  named branches; their dimensions are conditional
    window: {choice: [8, 32], as: clip}          relative to the sequence length, see :mod:`spaces.relative`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

RELATIVE = ("share", "clip")  # kinds of values relative to the sequence length
Value = bool | int | float | str | None


class ConfigError(ValueError):
    """Invalid configuration; each line of the message names the place, the problem and the accepted values."""


class Trial(Protocol):
    """The three methods of ``optuna.Trial`` that dimensions use."""

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of ``choices``."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """An integer from ``low`` to ``high``."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """A number from ``low`` to ``high``."""


@dataclass(frozen=True)
class Choice:
    """One of several options by label (a categorical distribution); an option may contain further dimensions."""

    options: Mapping[Value, Any]
    relative: str | None = None

    def suggest(self, trial: Trial, name: str) -> Any:
        """Sample an option from ``trial``."""
        return self.options[trial.suggest_categorical(name, list(self.options))]

    def labels(self) -> list[Value]:
        """The labels of the options, in the order of :meth:`bounds`."""
        labels = list(self.options)
        return sorted(labels, key=self.options.__getitem__) if self.ordered else labels

    @property
    def ordered(self) -> bool:
        """Whether all options are numbers."""
        return all(isinstance(value, int | float) for value in self.options.values())

    def bounds(self) -> list[Any]:
        """Every option; numbers in ascending order."""
        return [self.options[label] for label in self.labels()]

    def values(self) -> list[tuple[Value, Any]]:
        """Every label with its option."""
        return list(self.options.items())


@dataclass(frozen=True)
class Int:
    """An integer from ``low`` to ``high``, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    relative: str | None = None

    def suggest(self, trial: Trial, name: str) -> int:
        """Sample a value from ``trial``."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def labels(self) -> list[int]:
        """The labels of :meth:`bounds`, which are the values themselves."""
        return self.bounds()

    def bounds(self) -> list[int]:
        """The lowest and the highest value."""
        return sorted({self.low, self.high})

    def values(self) -> list[tuple[Value, Any]]:
        """Every value with its label, which is the value itself."""
        return [(value, value) for value in range(self.low, self.high + 1, self.step)]


@dataclass(frozen=True)
class Float:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    relative: str | None = None

    def suggest(self, trial: Trial, name: str) -> float:
        """Sample a value from ``trial``."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def labels(self) -> list[float]:
        """The labels of :meth:`bounds`, which are the values themselves."""
        return self.bounds()

    def bounds(self) -> list[float]:
        """The lowest and the highest value."""
        return sorted({self.low, self.high})

    def values(self) -> list[tuple[Value, Any]] | None:
        """Every value with its label, which is the value itself; None if there is no step, so infinitely many."""
        if self.step is None:
            return [(self.low, self.low)] if self.low == self.high else None
        steps = round((self.high - self.low) / self.step)
        values = (min(self.low + n * self.step, self.high) for n in range(steps + 1))  # min: floating-point error
        return [(value, value) for value in values]


Dimension = Choice | Int | Float
KEYS = {"choice": ("choice", "as"), "int": ("int", "step", "log", "as"), "float": ("float", "step", "log", "as")}


def parse(node: object, where: str) -> Dimension | None:
    """The dimension that ``node`` is or describes, or None if it is a plain value.

    Raises:
        ConfigError: ``node`` has a key of a dimension and is not a valid one.
    """
    if isinstance(node, Dimension):
        return node
    if not isinstance(node, Mapping):
        return None
    kinds = [key for key in node if key in KEYS]
    if not kinds:
        return None
    kind = kinds[0]
    for key in node:
        if key not in KEYS[kind]:
            accepted = ", ".join(KEYS[kind])
            raise ConfigError(f"{where}: unknown key {key!r} in a dimension {kind!r}; it accepts {accepted}")
    if node.get("as", RELATIVE[0]) not in RELATIVE:
        raise ConfigError(f"{where}: as={node['as']!r}; it must be {' or '.join(RELATIVE)}")
    dimension = _choice(node["choice"], where) if kind == "choice" else _range(kind, node, where)
    return replace(dimension, relative=node["as"]) if "as" in node else dimension


def _choice(options: object, where: str) -> Choice:
    if isinstance(options, Mapping) and options:
        return Choice({str(label): option for label, option in options.items()})
    if isinstance(options, str) or not isinstance(options, (Sequence, Mapping)):
        raise ConfigError(f"{where}: choice={options!r}; it must be a list of values or a mapping of named branches")
    if not options:
        raise ConfigError(f"{where}: the choice is empty; list at least one value")
    labelled: dict[Value, Any] = {}
    for option in options:
        if isinstance(option, Mapping):
            advice = f"branches need names: choice: {{name: {option!r}}}"
            raise ConfigError(f"{where}: {option!r} in a list of values; {advice}")
        label = ", ".join(map(str, option)) if isinstance(option, Sequence) and not isinstance(option, str) else option
        if label in labelled:
            raise ConfigError(f"{where}: duplicate option {option!r}")
        labelled[label] = option
    return Choice(labelled)


def _range(kind: str, node: Mapping[str, Any], where: str) -> Int | Float:
    bounds, step, log = node[kind], node.get("step"), node.get("log", False)
    if not (isinstance(bounds, Sequence) and len(bounds) == 2 and all(_is_number(kind, bound) for bound in bounds)):
        numbers = "integers" if kind == "int" else "finite numbers"
        raise ConfigError(f"{where}: {kind}={bounds!r}; it must be two {numbers}, [low, high]")
    low, high = bounds
    if low > high:
        raise ConfigError(f"{where}: low {low} is above high {high}")
    if not isinstance(log, bool):
        raise ConfigError(f"{where}: log={log!r}; it must be true or false")
    if log and low <= 0:
        raise ConfigError(f"{where}: log: low {low} must be above 0")
    if step is not None:
        if log:
            raise ConfigError(f"{where}: step and log are mutually exclusive")
        if not _is_number(kind, step) or step <= 0:
            raise ConfigError(
                f"{where}: step={step!r}; it must be {'an integer' if kind == 'int' else 'a number'} above 0"
            )
        steps = (high - low) / step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            raise ConfigError(f"{where}: high {high} is not low {low} plus a multiple of step {step}")
    if kind == "int":
        return Int(low, high, step=step or 1, log=log)
    return Float(float(low), float(high), step=step, log=log)


def _is_number(kind: str, value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind == "float" and isinstance(value, float) and math.isfinite(value))


def check_whole(least: int, most: float = math.inf, /, **settings: object) -> None:
    """Raise ``ValueError``, naming the setting, unless each is an integer from ``least`` to ``most``."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            wanted = f"from {least}" if math.isinf(most) else f"from {least} to {most}"
            raise ValueError(f"{name}={value!r}: it must be a whole number {wanted}")


def check_number(least: float, most: float = math.inf, /, **settings: object) -> None:
    """Raise ``ValueError``, naming the setting, unless each is a finite number from ``least`` to ``most``."""
    for name, value in settings.items():
        if not _is_number("float", value) or not least <= value <= most:  # type: ignore[operator]
            wanted = f"from {least:g}" if math.isinf(most) else f"of {least:g} to {most:g}"
            raise ValueError(f"{name}={value!r}: it must be a number {wanted}")


def check_above(low: float, **settings: object) -> None:
    """Raise ``ValueError``, naming the setting, unless each is a finite number above ``low``."""
    for name, value in settings.items():
        if not _is_number("float", value) or not value > low:  # type: ignore[operator]
            raise ValueError(f"{name}={value!r}: it must be a number above {low:g}")
