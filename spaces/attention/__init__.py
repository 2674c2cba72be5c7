"""Attention mechanisms: one file each, under the contract that this module defines.

A mechanism maps a sequence to a sequence of the same shape. It is constructed from a :class:`Shape` and, by keyword,
its own settings under the paper's names. What it cannot do raises ``ValueError`` in the constructor, with the reason,
on the meta device as well. There are no capability flags: a mechanism that was constructed works.

Random parts (hash rotations, random features, random block plans) are drawn from the global generator in the
constructor and cached in buffers. ``forward`` draws nothing, so a loaded ``state_dict`` reproduces all outputs exactly.

**Cross-attention** (optional): ``encode_source`` reduces another sequence, the source, to a :class:`SourceCache`, once;
``cross_attend`` lets tokens attend to it, as often as needed. An output depends on its own token and on the source
only, so a decoder may pass all its tokens or one at a time, needs no causal mask there and no padding mask of its own.

**Decoding token by token** (optional, causal mechanisms only): ``init_cache`` gives the :class:`DecodeCache` before the
first token, ``decode_step`` maps a token and a cache to an output and the next cache. The outputs are those of
``forward``. Caches are immutable: a step does not change the cache it was given, so several continuations may share
one. ``prefill`` reads several tokens at once, from the first one on, and gives the cache after them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from spaces.dimensions import check_whole


@dataclass(frozen=True)
class Shape:
    """The sizes that every mechanism is built for.

    Args:
        width: features per token (the hidden size), a multiple of ``heads``.
        heads: attention heads.
        length: the longest sequence of ``forward``, and the longest source of ``encode_source``; shorter ones are fine.
        causal: whether output ``t`` depends on inputs ``0..t`` only.

    Raises:
        ValueError: a size is no positive integer, or ``heads`` does not divide ``width``.
    """

    width: int
    heads: int
    length: int
    causal: bool = False

    def __post_init__(self) -> None:
        check_whole(1, width=self.width, heads=self.heads, length=self.length)
        if self.width % self.heads:
            raise ValueError(f"width={self.width}, heads={self.heads}: heads must divide width")

    @property
    def head_dim(self) -> int:
        """Features per head."""
        return self.width // self.heads


class DecodeCache(NamedTuple):
    """What a mechanism keeps of the tokens so far: keys and values, or the state of a recurrence."""

    position: int  # of the next token, from 0
    tensors: tuple[Tensor, ...]  # the mechanism's own; the first dimension of each is the batch


class SourceCache(NamedTuple):
    """What a mechanism keeps of a source for cross-attention."""

    tensors: tuple[Tensor, ...]  # the mechanism's own; the first dimension of each is the batch
    padding: Tensor | None  # the source's padding mask, (batch, n) bool


class Mechanism(nn.Module, ABC):
    """Sequence in, sequence out.

    A subclass implements :meth:`mix`; for cross-attention also :meth:`source_tensors` and :meth:`mix_source`, or else
    the class attribute ``no_cross_attention`` gives the reason; for decoding :meth:`initial_tensors` and
    :meth:`mix_step`, or else ``no_decoding``, and :meth:`mix_prompt`, if it can read several tokens at once.

    Args:
        shape: the sizes, and whether it is causal.
    """

    no_cross_attention: ClassVar[str] = ""
    no_decoding: ClassVar[str] = ""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim = shape.width, shape.heads, shape.head_dim
        self.length, self.causal = shape.length, shape.causal

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Mix the tokens of ``x`` with each other.

        Args:
            x: ``(batch, n, width)`` with ``n <= length``.
            padding: padding mask, ``(batch, n)`` bool, true at padding. Neither the content nor the amount of padding
                changes the output of any other token; the output at padding is 0.

        Returns:
            ``(batch, n, width)``.
        """
        self._check_length(x)
        if padding is None:
            return self.mix(x, None)
        # 0 * NaN is NaN, so padded tokens are replaced by 0 rather than multiplied by 0.
        x = x.masked_fill(padding[..., None], 0.0)
        return self.mix(x, padding).masked_fill(padding[..., None], 0.0)

    def _check_length(self, x: Tensor) -> None:
        if x.shape[1] > self.length:
            raise ValueError(f"a sequence of {x.shape[1]} tokens: this mechanism was built for length={self.length}")

    @abstractmethod
    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Implement :meth:`forward`; ``x`` is 0 at padding, and outputs at padding are set to 0 afterwards."""

    def encode_source(self, source: Tensor, padding: Tensor | None = None) -> SourceCache:
        """Compute what :meth:`cross_attend` needs of another sequence.

        Args:
            source: ``(batch, n, width)`` with ``n <= length``.
            padding: padding mask of ``source``, ``(batch, n)`` bool, true at padding. Neither the content nor the
                amount of padding changes any output; where a source is all padding, the output is 0.

        Raises:
            ValueError: the mechanism is causal, or has no cross-attention.
        """
        if self.causal:
            raise ValueError("causal=True: to attend to another sequence, construct the mechanism with causal=False")
        self._check_length(source)
        if padding is not None:
            source = source.masked_fill(padding[..., None], 0.0)
        return SourceCache(self.source_tensors(source, padding), padding)

    def cross_attend(self, x: Tensor, cache: SourceCache) -> Tensor:
        """Let the tokens of ``x`` ``(batch, m, width)``, for any ``m``, attend to a source; returns that shape."""
        mixed = self.mix_source(x, cache)
        return mixed if cache.padding is None else mixed.masked_fill(cache.padding.all(1)[:, None, None], 0.0)

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """Implement :meth:`encode_source`; ``source`` is 0 at padding.

        Raises:
            ValueError: with the reason, if the mechanism has no cross-attention.
        """
        raise ValueError(self.no_cross_attention or f"{type(self).__name__} cannot attend to another sequence")

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """Implement :meth:`cross_attend`; outputs of a sample whose source is all padding are set to 0 afterwards."""
        raise NotImplementedError

    def init_cache(self, batch: int) -> DecodeCache:
        """The cache before the first token of ``batch`` sequences.

        Raises:
            ValueError: the mechanism cannot decode token by token.
        """
        if not self.causal:
            raise ValueError("causal=False: only a causal mechanism can decode token by token")
        return DecodeCache(0, self.initial_tensors(batch))

    def decode_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, DecodeCache]:
        """Map one token ``(batch, width)`` to its output, of the same shape, and to the next cache."""
        if cache.position >= self.length:
            raise ValueError(f"token {cache.position + 1}: this mechanism was built for length={self.length}")
        y, tensors = self.mix_step(x[:, None], cache)
        return y[:, 0], DecodeCache(cache.position + 1, tensors)

    def prefill(self, x: Tensor) -> tuple[Tensor, DecodeCache]:
        """Read a prompt, whose tokens are the first ones.

        Args:
            x: ``(batch, n, width)`` with ``1 <= n <= length``, without padding.

        Returns:
            The outputs of :meth:`forward`, up to rounding, and the cache after the last token.

        Raises:
            ValueError: the prompt is too long, or the mechanism cannot decode token by token.
        """
        self._check_length(x)
        self.init_cache(len(x))
        y, tensors = self.mix_prompt(x)
        return y, DecodeCache(x.shape[1], tensors)

    def initial_tensors(self, batch: int) -> tuple[Tensor, ...]:
        """The tensors of :meth:`init_cache`.

        Raises:
            ValueError: with the reason, if the mechanism cannot decode token by token.
        """
        raise ValueError(self.no_decoding or f"{type(self).__name__} cannot decode token by token")

    def mix_step(self, x: Tensor, cache: DecodeCache) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Implement :meth:`decode_step` for ``x`` ``(batch, 1, width)``: the output and the next tensors."""
        raise NotImplementedError

    def mix_prompt(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Implement :meth:`prefill`: the outputs and the tensors of the cache; token by token unless overridden."""
        cache, outputs = self.init_cache(len(x)), []
        for token in x.unbind(1):
            y, cache = self.decode_step(token, cache)
            outputs.append(y)
        return torch.stack(outputs, dim=1), cache.tensors

    def new_zeros(self, *shape: int) -> Tensor:
        """Zeros on the device and in the precision of the parameters."""
        return next(self.parameters()).new_zeros(shape)

    def split_heads(self, x: Tensor) -> Tensor:
        """``(batch, n, heads * head_dim)``, for any number of heads, to ``(batch, heads, n, head_dim)``, a view."""
        return x.unflatten(-1, (x.shape[-1] // self.head_dim, self.head_dim)).transpose(1, 2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """``(batch, heads, n, head_dim)`` to ``(batch, n, width)``."""
        return x.transpose(1, 2).flatten(2)
