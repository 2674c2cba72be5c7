"""The layers between embedding and head that all models share: positions, a short convolution, blocks, a final norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import DecodeCache, Mechanism, SourceCache
from spaces.models.block import Block, FeedForward
from spaces.models.config import ModelConfig
from spaces.models.positions import POSITIONS


class ShortConvolution(nn.Module):
    """A depthwise convolution over three neighbouring tokens with a residual connection, optionally causal.

    It lets one layer store a value with the key next to it, so that associative recall needs one attention layer
    instead of two (Fu et al., "Hungry Hungry Hippos", 2023; Arora et al., "Zoology", 2023).
    """

    def __init__(self, *, width: int, causal: bool) -> None:
        super().__init__()
        convolution = nn.Conv1d(width, width, kernel_size=3, groups=width)
        self.taps = nn.Parameter(convolution.weight.detach()[:, 0].T.contiguous())
        self.bias = nn.Parameter(torch.zeros(width))
        self.pads = (2, 0) if causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to the same shape, zero-padded."""
        return self.convolve(F.pad(x, (0, 0, *self.pads)), x)

    def convolve(self, padded: Tensor, x: Tensor) -> Tensor:
        """The outputs of ``x`` ``(batch, n, width)``; ``padded`` ``(batch, n + 2, width)`` is x with its context."""
        # Three fused sums take half the time of a convolution, a fifth of a small network's total (measured).
        n = x.shape[1]
        output = torch.addcmul(x + self.bias, padded[:, :n], self.taps[0])
        output = torch.addcmul(output, padded[:, 1 : n + 1], self.taps[1])
        return torch.addcmul(output, padded[:, 2:], self.taps[2])


class TrunkCache(NamedTuple):
    """What a causal trunk keeps of the tokens so far."""

    position: int  # of the next token, from 0
    context: Tensor  # the last two inputs of the short convolution, (batch, 2, width)
    blocks: tuple[DecodeCache, ...]  # one per block


class Trunk(nn.Module):
    """Embedded tokens ``(batch, n, width)`` in, features of that shape out.

    Args:
        mechanisms: one per block, first block first.
        config: the settings of the blocks.
        length: the longest sequence.
        causal: whether output t depends on tokens 0..t only; the mechanisms must be causal then.
        cross_mechanisms: one per block, where blocks attend to a source.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        config: ModelConfig,
        *,
        length: int,
        causal: bool,
        cross_mechanisms: Sequence[Mechanism | None] = (),
    ) -> None:
        super().__init__()
        self.positions = POSITIONS[config.positions](length, config.width)
        self.short_convolution = ShortConvolution(width=config.width, causal=causal)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            self._block(mechanism, config, number, cross)
            for number, (mechanism, cross) in enumerate(
                zip(mechanisms, cross_mechanisms or [None] * len(mechanisms), strict=True)
            )
        )
        self.norm = nn.LayerNorm(config.width)

    @staticmethod
    def _block(mechanism: Mechanism, config: ModelConfig, number: int, cross: Mechanism | None) -> Block:
        hidden = config.hidden(number)
        return Block(
            mechanism,
            FeedForward(config.width, hidden, config.activation) if hidden else None,
            norm=lambda: nn.LayerNorm(config.width),
            dropout=config.dropout,
            cross_mechanism=cross,
        )

    def encode_source(self, source: Tensor, padding: Tensor | None) -> tuple[SourceCache, ...]:
        """The cache of ``source`` ``(batch, n, width)`` for the cross-attention of each block."""
        crosses = (block.cross_mechanism for block in self.blocks)
        return tuple(cross.encode_source(source, padding) for cross in crosses if cross is not None)

    def forward(self, x: Tensor, padding: Tensor | None, sources: Sequence[SourceCache] = ()) -> Tensor:
        """``padding`` is ``(batch, n)`` bool or None; ``sources``, if any, is from :meth:`encode_source`."""
        x = self.before_blocks(x, padding)
        for block, source in self._with(sources):
            x = block(x, padding, source)
        output: Tensor = self.norm(x)
        return output

    def before_blocks(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The input of the first block."""
        x = self.positions(x)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)  # for the short convolution
        output: Tensor = self.short_convolution(x)
        return output

    def init_cache(self, batch: int) -> TrunkCache:
        """The cache before the first token of ``batch`` sequences; see :meth:`Mechanism.init_cache`."""
        bias = self.short_convolution.bias
        blocks = tuple(block.mechanism.init_cache(batch) for block in self.blocks)
        return TrunkCache(0, bias.new_zeros(batch, 2, len(bias)), blocks)

    def decode_step(
        self, x: Tensor, cache: TrunkCache, sources: Sequence[SourceCache] = ()
    ) -> tuple[Tensor, TrunkCache]:
        """One embedded token ``(batch, width)`` to its features, as in :meth:`forward`, and the next cache."""
        x = self.positions(x[:, None], cache.position)
        padded = torch.cat([cache.context, x], dim=1)
        x = self.short_convolution.convolve(padded, x)[:, 0]
        caches = []
        for (block, source), block_cache in zip(self._with(sources), cache.blocks, strict=True):
            x, block_cache = block.decode_step(x, block_cache, source)
            caches.append(block_cache)
        return self.norm(x), TrunkCache(cache.position + 1, padded[:, 1:], tuple(caches))

    def prefill(self, x: Tensor, sources: Sequence[SourceCache] = ()) -> tuple[Tensor, TrunkCache]:
        """The first embedded tokens ``(batch, n, width)`` to the features of the last one, and the cache after it."""
        x = self.positions(x)
        context = F.pad(x, (0, 0, 2, 0))[:, -2:]
        x, caches = self.short_convolution(x), []
        for block, source in self._with(sources):
            x, cache = block.prefill(x, source)
            caches.append(cache)
        return self.norm(x[:, -1]), TrunkCache(x.shape[1], context, tuple(caches))

    def _with(self, sources: Sequence[SourceCache]) -> Iterator[tuple[Block, SourceCache | None]]:
        """The blocks, each with its source cache, if there are any."""
        caches: Sequence[SourceCache | None] = sources or [None] * len(self.blocks)
        return zip(self.blocks, caches, strict=True)
