"""What a program of a network takes, and random inputs of that kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.spec import TaskSpec

Feed = dict[str, NDArray[Any]]  # inputs by name


@dataclass(frozen=True)
class Interface:
    """What a program takes.

    Attributes:
        length: of the longest example.
        multiple: lengths must be a multiple of it: the stride of the network's embedding.
        padded: whether there is an input ``padding``.
        vocabulary: ids are 0..vocabulary-1; None: inputs are frames.
        features: of a frame.
    """

    length: int
    multiple: int
    padded: bool
    vocabulary: int | None
    features: int | None

    @property
    def least(self) -> int:
        """The least length where lengths are free: two positions, as exporters treat sizes of 1 apart."""
        return min(2 * self.multiple, self.length)

    @classmethod
    def of(cls, spec: TaskSpec, *, stride: int, padded: bool) -> Interface:
        """That of a task whose embedding has ``stride``; a multiple of it is reached by padding."""
        length = -(-spec.length // stride) * stride
        return cls(length, stride, padded or length > spec.length, spec.vocabulary, spec.features)

    def random_feed(self, batch: int, length: int, generator: np.random.Generator) -> Feed:
        """Random inputs, of which, if there is padding, all but the first are padded to a random degree."""
        if self.vocabulary is not None:
            inputs: NDArray[Any] = generator.integers(self.vocabulary, size=(batch, length))
        else:
            inputs = generator.standard_normal((batch, length, self.features or 1)).astype(np.float32)
        if not self.padded:
            return {"inputs": inputs}
        lengths = np.concatenate([[length], generator.integers(1, length + 1, size=batch - 1)])
        padding = np.arange(length) >= lengths[:, None]
        inputs[padding] = 0
        return {"inputs": inputs, "padding": padding}
