"""Settings of architectures as features of a Gaussian process.

Most candidates were among those of the last decision, so an :class:`Encoder` reads each of them once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats

CATEGORY_DISTANCE = 2**0.5  # between any two values of a categorical setting
MAX_KEPT = 4  # tables that are kept, in units of those encoded last; then all others are forgotten


class Described(Protocol):
    """What is encoded, such as a candidate or a trial; it must not change."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """By name."""

    @property
    def costs(self) -> Mapping[str, float]:
        """Those that are known."""


class Encoded(NamedTuple):
    """Features ``(architectures, features)``, the setting ``(features,)`` that each belongs to, and their number.

    ``flops`` and ``epochs``, ``(architectures,)``, are NaN where they are not known.
    """

    features: Floats
    owners: NDArray[np.intp]
    settings: int
    flops: Floats
    epochs: Floats


class _Table(NamedTuple):
    settings: Mapping[str, Any]
    costs: Mapping[str, float]


def encode(tables: Sequence[Mapping[str, Any]]) -> tuple[Floats, NDArray[np.intp], int]:
    """Features, owners and count as in :class:`Encoded`; ``tables`` are the settings of architectures by name.

    Numbers are on a logarithmic scale, if all are positive, and scaled to a range of 1; a categorical setting has a
    feature for each value, so that two values are ``CATEGORY_DISTANCE`` apart. The squared distance of two patterns of
    mechanisms is the mean over the blocks, with the shorter one repeated. Settings without differences are left out.
    An architecture without a setting, such as one of another mechanism, gets the midpoint of the range: the pattern, a
    categorical setting, tells the two apart.
    """
    return Encoder().encode([_Table(table, {}) for table in tables])[:3]


class Encoder:
    """Encodes as :func:`encode` does, and knows by identity what it has encoded before."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._described: list[Described] = []  # kept, so that no identity is given to another one
        self._rows: dict[int, int] = {}  # by identity
        self._values: dict[str, dict[Any, int]] = {}  # by setting: its values, numbered; None, for none, is 0
        self._codes = np.zeros((0, 0), dtype=np.intp)  # (described, settings): numbers of values
        self._numbers = np.zeros((0, 0))  # (described, settings): values; NaN where they are no numbers
        self._flops = np.zeros(0)

    def encode(self, described: Sequence[Described]) -> Encoded:
        """Those of the last call are not read again."""
        names = list(map(id, described))
        found = list(map(self._rows.get, names))
        if None in found:
            new = {name: each for name, each, row in zip(names, described, found, strict=True) if row is None}
            if len(self._rows) + len(new) > MAX_KEPT * len(described):
                self._forget()
                new = dict(zip(names, described, strict=True))
            self._read(new)
            found = list(map(self._rows.get, names))
        rows = np.array(found, dtype=np.intp)
        codes, numbers = self._codes[rows].T, self._numbers[rows].T
        columns: list[Floats] = []
        owners: list[int] = []
        epochs = np.full(len(rows), math.nan)
        for name, setting in sorted(zip(self._values, range(len(self._values)), strict=True)):
            column = _column(codes[setting], numbers[setting], self._values[name])
            owners.extend([owners[-1] + 1 if owners else 0] * len(column))
            columns.extend(column)
            if name == "train.epochs":
                epochs = numbers[setting]
        features = np.array(columns).reshape(len(columns), len(rows)).T
        count = owners[-1] + 1 if owners else 0
        return Encoded(features, np.array(owners, dtype=np.intp), count, self._flops[rows], epochs)

    def _read(self, new: Mapping[int, Described]) -> None:
        """Number the values of what is given by identity."""
        tables = [each.settings for each in new.values()]
        for name in (name for table in tables for name in table):
            self._values.setdefault(name, {None: 0})
        codes = np.zeros((len(new), len(self._values)), dtype=np.intp)
        numbers = np.full(codes.shape, math.nan)
        for setting, (name, known) in enumerate(self._values.items()):
            for row, table in enumerate(tables):
                value = table.get(name)
                try:
                    codes[row, setting] = known.setdefault(value, len(known))
                except TypeError:  # a list
                    codes[row, setting] = known.setdefault(repr(value), len(known))
                if isinstance(value, int | float) and not isinstance(value, bool):
                    numbers[row, setting] = value
        held, more = len(self._codes), ((0, 0), (0, codes.shape[1] - self._codes.shape[1]))
        if any(more[1]):  # settings that none had before
            self._codes = np.pad(self._codes, more)
            self._numbers = np.pad(self._numbers, more, constant_values=math.nan)
        self._codes = np.concatenate([self._codes, codes])
        self._numbers = np.concatenate([self._numbers, numbers])
        self._flops = np.append(self._flops, [each.costs.get("flops", math.nan) for each in new.values()])
        self._rows.update(zip(new, range(held, held + len(new)), strict=True))
        self._described.extend(new.values())


def _column(codes: NDArray[np.intp], numbers: Floats, values: Mapping[Any, int]) -> Sequence[Floats]:
    """The features, each ``(architectures,)``, of a setting; none if it does not differ.

    Args:
        codes: ``(architectures,)``: numbers of values; 0 where there is none.
        numbers: ``(architectures,)``: the values that are numbers, otherwise NaN.
        values: that some architecture may have, in the order of their numbers.
    """
    present = np.flatnonzero(np.bincount(codes, minlength=len(values)))
    if np.count_nonzero(present) < 2:
        return []
    if not np.any(np.isnan(numbers) & (codes > 0)):
        numbers = np.log(numbers) if np.nanmin(numbers) > 0 else numbers
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        return [np.nan_to_num((numbers - low) / (high - low), nan=0.5)]
    place = np.zeros(len(values), dtype=np.intp)
    place[present] = np.arange(len(present))
    known = list(values)
    return list(_one_hot([known[code] for code in present.tolist()])[:, place[codes]])


def _one_hot(values: Sequence[Any]) -> Floats:
    """Features ``(features, values)`` of the values of a categorical setting, or of one with a value per block."""
    tuples = [value if isinstance(value, tuple) else (value,) for value in values]
    blocks = max(map(len, tuples))
    found = []
    for block in range(blocks):
        own = [value[block % len(value)] for value in tuples]
        codes = {value: code for code, value in enumerate(sorted(set(own), key=repr))}
        one_hot = np.zeros((len(codes), len(own)))
        one_hot[[codes[value] for value in own], np.arange(len(own))] = CATEGORY_DISTANCE / (2 * blocks) ** 0.5
        found.append(one_hot)
    return np.concatenate(found)
