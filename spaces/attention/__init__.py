"""Attention mechanisms: one file each, under one contract, stated here.

A mechanism maps a sequence to a sequence. It is constructed by keyword, ``width``, ``heads``, ``length`` and
``causal`` first, then its own knobs under the paper's names; what it cannot do raises ``ValueError`` there, with the
reason, on the meta device as well. There are no capability flags: a mechanism that was constructed works.

Whatever it draws at random (hash rotations, fixed tables) is drawn from the global generator at construction and kept
in a buffer: ``forward`` never draws, so a saved model repeats its outputs exactly.

Some can also let the tokens of one sequence attend to those of another, a source: ``read`` takes the source to a
memory, once, and ``look`` takes tokens and that memory to outputs, as often as wanted. Every output depends on its own
token and on the source alone, so that a decoder may ask for all its tokens at once or for one at a time, sees no later
token and needs no padding of its own. What cannot says so, with the reason, in ``read``.

A causal mechanism can also be run one token at a time, as text is generated: ``begin`` gives the state before the first
token and ``step`` takes a token and a state to an output and the next state, and over a sequence the outputs are those
of ``forward``. States are values: a step leaves the state it was given as it was, so that two continuations may start
from one. What cannot decode says so, with the reason, in ``begin``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class State(NamedTuple):
    """What a mechanism that decodes has kept of the tokens so far."""

    position: int  # of the next token, from 0
    memory: tuple[Tensor, ...]  # the mechanism's own; the first dimension of each tensor is the batch


class Memory(NamedTuple):
    """What a mechanism has kept of a source."""

    kept: tuple[Tensor, ...]  # the mechanism's own; the first dimension of each tensor is the batch
    padding: Tensor | None  # the source's, (batch, n) bool


class Mechanism(nn.Module, ABC):
    """Sequence in, sequence out.

    Args:
        width: features per token.
        heads: attention heads; must divide ``width``.
        length: the longest sequence it will be given or, across, attend to; shorter ones are always welcome.
        causal: if true, output ``t`` depends on inputs ``0..t`` alone.

    Raises:
        ValueError: the sizes do not fit each other or the mechanism; the message names the values.
    """

    def __init__(self, *, width: int, heads: int, length: int, causal: bool = False) -> None:
        super().__init__()
        for name, value in (("width", width), ("heads", heads), ("length", length)):
            if value < 1:
                raise ValueError(f"{name}={value}: it must be at least 1")
        if width % heads:
            raise ValueError(f"width={width}, heads={heads}: heads must divide width")
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.length, self.causal = length, causal

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Mix the tokens of ``x`` with each other.

        Args:
            x: ``(batch, n, width)`` with ``n <= length``.
            padding: ``(batch, n)`` bool, true where a token is padding. Neither the content nor the amount of padding
                changes any other token's output; the output at padding is 0.

        Returns:
            ``(batch, n, width)``.
        """
        self._check_length(x)
        if padding is None:
            return self.mix(x, None)
        # 0 * NaN is NaN: what stands in the padding must be replaced, not multiplied away.
        x = x.masked_fill(padding[..., None], 0.0)
        return self.mix(x, padding).masked_fill(padding[..., None], 0.0)

    def _check_length(self, x: Tensor) -> None:
        if x.shape[1] > self.length:
            raise ValueError(f"a sequence of {x.shape[1]} tokens: this mechanism was built for length={self.length}")

    @abstractmethod
    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Do the work of :meth:`forward`; ``x`` is 0 at padding, and padding's output is zeroed afterwards."""

    def across(self, x: Tensor, source: Tensor, source_padding: Tensor | None = None) -> Tensor:
        """Let the tokens of ``x`` attend to those of ``source``: :meth:`read`, then :meth:`look`."""
        return self.look(x, self.read(source, source_padding))

    def read(self, source: Tensor, source_padding: Tensor | None = None) -> Memory:
        """Take in what tokens of other sequences will attend to.

        Args:
            source: ``(batch, n, width)`` with ``n <= length``.
            source_padding: ``(batch, n)`` bool, true where a token of ``source`` is padding. Neither its content
                nor its amount changes anything; where there is nothing else, the output is 0.

        Raises:
            ValueError: the mechanism is causal, or cannot attend to another sequence.
        """
        if self.causal:
            raise ValueError("causal=True: to attend to another sequence, construct the mechanism with causal=False")
        self._check_length(source)
        if source_padding is not None:
            source = source.masked_fill(source_padding[..., None], 0.0)
        return Memory(self.source_memory(source, source_padding), source_padding)

    def look(self, x: Tensor, memory: Memory) -> Tensor:
        """Let the tokens of ``x``, ``(batch, m, width)`` for any ``m``, attend to what was read; of that shape too."""
        mixed = self.mix_across(x, memory)
        return mixed if memory.padding is None else mixed.masked_fill(memory.padding.all(1)[:, None, None], 0.0)

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """What :meth:`read` keeps of ``source``, 0 at padding, or a ``ValueError`` that says why there can be none."""
        raise ValueError(f"{type(self).__name__} has no way to attend to another sequence")

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """Do the work of :meth:`look`; the output of a sample whose source is all padding is zeroed afterwards."""
        raise NotImplementedError

    def begin(self, batch: int) -> State:
        """The state before the first token of ``batch`` sequences.

        Raises:
            ValueError: the mechanism cannot decode.
        """
        if not self.causal:
            raise ValueError("causal=False: only a causal mechanism can decode token by token")
        return State(0, self.first_memory(batch))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one token, ``(batch, width)``, to its output of that shape and to the next state."""
        if state.position >= self.length:
            raise ValueError(f"token {state.position + 1}: this mechanism was built for length={self.length}")
        y, memory = self.mix_next(x[:, None], state)
        return y[:, 0], State(state.position + 1, memory)

    def first_memory(self, batch: int) -> tuple[Tensor, ...]:
        """The memory that :meth:`begin` starts with, or a ``ValueError`` that says why there can be none."""
        raise ValueError(f"{type(self).__name__} has no way to decode token by token")

    def mix_next(self, x: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Do the work of :meth:`step`, for ``x`` ``(batch, 1, width)``."""
        raise NotImplementedError

    def zeros(self, *shape: int) -> Tensor:
        """Zeros on the device and in the precision of the parameters."""
        return next(self.parameters()).new_zeros(shape)

    def split(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to ``(batch, heads, n, head_width)``, a view; as many heads as ``width`` holds."""
        return x.unflatten(-1, (x.shape[-1] // self.head_width, self.head_width)).transpose(1, 2)

    def merge(self, x: Tensor) -> Tensor:
        """``(batch, heads, n, head_width)`` to ``(batch, n, width)``."""
        return x.transpose(1, 2).flatten(2)


@torch.no_grad()
def equal_query_key(query: nn.Linear, key: nn.Linear, *, head_width: int = 1) -> None:
    """Start the key projection as a copy of the query projection; where heads share a key, as the mean of theirs.

    At the start a token then attends most to tokens like itself, which is half of what associative recall needs;
    measured, small models learn recall within seconds with it and not at all without. Training separates the two.
    """
    heads = key.out_features // head_width
    key.weight.copy_(query.weight.unflatten(0, (heads, -1, head_width)).mean(1).flatten(0, 1))
