"""Attention by locality-sensitive hashing (LSH): a token attends to tokens whose queries hash to the same bucket.

Kitaev et al., "Reformer: The Efficient Transformer", 2020, section 2. Keys are normalised queries; logits are not
divided by sqrt(head_dim), as in the authors' code. In every hashing round tokens are sorted by bucket and cut into
chunks; a chunk attends to itself and to the one before, the first chunk to the last. Rounds are merged as one softmax
in which a key counts once for every round in which it is attended to. A token attends to itself only if to no other. A
large number of buckets is factorised into two hashes, as in the authors' code. O(hashes * length * (bucket_size +
sqrt(bucket_count))) time, O(hashes * length * bucket_size) memory; exact attention with one or two chunks.

Chunk membership depends on all tokens, later ones included: a causal output attends to no later token and has no
gradient with respect to it, but its value may still change with it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Shape
from spaces.attention.kernels.rotary import rotary

# Added to logits: a token's attention to itself yields to any other key, a masked key yields to both. Finite, so that
# a fully masked row, such as that of a padded token, stays finite.
TO_ITSELF, MASKED = -1e3, -1e4


class ReformerAttention(Mechanism):
    """Attention within chunks of tokens sorted by LSH bucket.

    Give either ``bucket_size`` or ``bucket_count``; the other follows from ``length``.

    Args:
        bucket_size: tokens per chunk, 1..length.
        bucket_count: number of buckets, an even number of 2..length; above 32, rounded up by at most a third.
        hashes: hashing rounds, at least 1.
        rope: whether to apply rotary position embeddings, after hashing; see :mod:`spaces.attention.kernels.rotary`.
    """

    no_cross_attention = (
        "reformer cannot attend to another sequence: its keys are its queries, so they belong to the same tokens"
    )
    no_decoding = "reformer cannot decode token by token: later tokens decide who shares a chunk"

    def __init__(
        self,
        shape: Shape,
        *,
        bucket_size: int | None = None,
        bucket_count: int | None = None,
        hashes: int = 1,
        rope: bool = False,
    ) -> None:
        super().__init__(shape)
        if hashes < 1:
            raise ValueError(f"hashes={hashes}: it must be at least 1")
        self.hashes = hashes
        width, length = shape.width, shape.length
        self.bucket_size, directions = _sizes(length, bucket_size, bucket_count)
        self.factors = _factors(directions)
        self.query_key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.rotary = rotary(shape.head_dim, self._filled(length), enabled=rope)
        self.directions: Tensor
        self.register_buffer("directions", torch.randn(shape.heads, shape.head_dim, hashes * sum(self.factors)))
        to_itself = F.pad(torch.eye(self.bucket_size) * TO_ITSELF, (self.bucket_size, 0))
        self.to_itself: Tensor
        self.register_buffer("to_itself", to_itself, persistent=False)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Sort by bucket, attend within chunks, merge the rounds."""
        n = x.shape[1]
        missing = self._filled(n) - n
        if missing:
            padding = x.new_zeros(x.shape[:2], dtype=torch.bool) if padding is None else padding
            x, padding = F.pad(x, (0, 0, 0, missing)), F.pad(padding, (0, missing), value=True)
        qk, v = self.query_key(x), self.split_heads(self.value(x))
        order = self._order(self.split_heads(qk), padding)
        mixed = _merged(self._attend(self.split_heads(self.rotary(qk)), v, order, padding), order)
        output: Tensor = self.output(self.merge_heads(mixed[:, :, :n]))
        return output

    def _filled(self, n: int) -> int:
        """``n`` rounded up to whole chunks, at least two."""
        return max(2, -(-n // self.bucket_size)) * self.bucket_size

    @torch.no_grad()
    def _order(self, qk: Tensor, padding: Tensor | None) -> Tensor:
        """Indices of tokens sorted by bucket, then by position, padding last: ``(batch, heads, hashes, n)``."""
        projected = (qk @ self.directions).unflatten(-1, (self.hashes, -1)).transpose(2, 3)
        buckets = torch.zeros_like(projected[..., 0], dtype=torch.long)
        for part in projected.split(self.factors, dim=-1):
            nearest = part.abs().argmax(-1, keepdim=True)
            opposite = part.gather(-1, nearest) < 0
            buckets = buckets * (2 * part.shape[-1]) + (nearest + part.shape[-1] * opposite).squeeze(-1)
        if padding is not None:
            buckets = buckets.masked_fill(padding[:, None, None], math.prod(2 * factor for factor in self.factors))
        return buckets.sort(dim=-1, stable=True).indices

    def _attend(self, qk: Tensor, v: Tensor, order: Tensor, padding: Tensor | None) -> Tensor:
        """Unnormalised attention within the chunks of each round: ``(batch, heads, hashes, n, head_dim + 2)``.

        A row, in the order of ``order``, holds 2^(logits - highest) times the values, the sum of 2^(logits - highest),
        and highest, the largest logit. (Logits are multiplied by log2(e): on a CPU exp2 is ten times as fast as exp
        where the result underflows.)
        """
        chunks = order.unflatten(-1, (-1, self.bucket_size))
        before = chunks.roll(1, dims=3)
        if padding is not None:  # the first chunk attends to the last one that is not all padding
            real = ((~padding).sum(1) + self.bucket_size - 1) // self.bucket_size
            last = torch.where(real > 1, real - 1, 1).view(-1, 1, 1, 1, 1)
            before[..., :1, :] = chunks.take_along_dim(last, dim=3)
        seen = torch.cat([before, chunks], dim=-1)

        q = _rows(qk * math.log2(math.e), chunks)
        k, v = _rows(torch.cat([F.normalize(qk, dim=-1), v], dim=-1), seen).chunk(2, dim=-1)
        logits = q @ k.transpose(-1, -2) + self.to_itself
        if padding is not None:
            masked = padding[:, None, None].expand_as(order).gather(-1, seen.flatten(-2)).view_as(seen)
            logits.add_(masked[..., None, :].to(logits.dtype), alpha=MASKED)
        if self.causal:  # in floating point: several times faster than a comparison and masked_fill
            later = (seen.float()[..., None, :] - chunks.float()[..., None]).clamp_(0, 1)
            logits.add_(later, alpha=MASKED)
        highest = logits.detach().amax(-1, keepdim=True)
        weights = logits.sub_(highest).exp2_()
        return torch.cat([weights @ v, weights.sum(-1, keepdim=True), highest], dim=-1).flatten(3, 4)


def _merged(rounds: Tensor, order: Tensor) -> Tensor:
    """One softmax over all rounds, in the original token order: ``(batch, heads, n, head_dim)``."""
    positions = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rounds = _rows(rounds, torch.empty_like(order).scatter_(-1, order, positions))
    sums, highest = rounds[..., :-1], rounds[..., -1:].detach()
    total = (sums * (highest - highest.amax(2, keepdim=True)).exp2()).sum(2)
    return total[..., :-1] / total[..., -1:]


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of ``x`` ``(*groups, n, d)`` by ``index`` ``(*groups, *rows)``: ``(*groups, *rows, d)``.

    Selecting rows of one flat matrix is several times faster than ``gather``.
    """
    groups = x.shape[:-2]
    first = torch.arange(groups.numel(), device=x.device) * x.shape[-2]
    index = index + first.view(*groups, *[1] * (index.dim() - len(groups)))
    return x.flatten(0, -2).index_select(0, index.flatten()).unflatten(0, index.shape)


def _factors(directions: int) -> list[int]:
    """Directions of one hash, or of two whose combinations give at least as many buckets."""
    if directions <= 16:
        return [directions]
    first = math.ceil((directions / 2) ** 0.5)
    return [first, math.ceil(directions / (2 * first))]


def _sizes(length: int, bucket_size: int | None, bucket_count: int | None) -> tuple[int, int]:
    """The chunk size, and the number of hash directions; each direction and its opposite are two buckets."""
    if bucket_size is not None and bucket_count is None:
        if not 1 <= bucket_size <= length:
            raise ValueError(f"bucket_size={bucket_size}: with length {length} it must be 1..{length}")
        return bucket_size, -(-length // (2 * bucket_size))
    if bucket_count is not None and bucket_size is None:
        if bucket_count % 2 or not 2 <= bucket_count <= length:
            raise ValueError(
                f"bucket_count={bucket_count}: with length {length} it must be an even number of 2..{length}"
            )
        return -(-length // bucket_count), bucket_count // 2
    raise ValueError(f"bucket_size={bucket_size}, bucket_count={bucket_count}: give exactly one of them")
