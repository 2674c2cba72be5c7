"""Nyström attention: tokens attend to a few landmarks, landmarks to all tokens, an inverse in between.

Xiong et al., "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", 2021, section 3:
softmax(q k'^T) pinv(softmax(q' k'^T)) softmax(q' k^T) v, where the landmarks q' and k' are means over equal segments of
the tokens that are not padding. O(length * landmarks + landmarks^3) time; exact softmax attention, as far as the
iteration for the inverse has converged, once every token is a landmark. It cannot be causal: a segment's mean holds its
last token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Mechanism, Memory, equal_query_key
from spaces.attention.kernels.blocks import overlapping

BLOCK = 32  # tokens convolved together


class NystromformerAttention(Mechanism):
    """Attention through landmarks.

    Args:
        landmarks: segments, 1..length; a sequence with fewer tokens has as many as tokens.
        pinv_iterations: steps of the iteration for the pseudo-inverse, at least 1.
        conv_kernel_size: taps of a convolution over each head's values that is added, an odd number; 0 for none.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        length: int,
        causal: bool = False,
        landmarks: int,
        pinv_iterations: int = 6,
        conv_kernel_size: int = 0,
    ) -> None:
        super().__init__(width=width, heads=heads, length=length, causal=causal)
        if causal:
            raise ValueError("causal=True: nystromformer's landmarks are means over segments, later tokens included")
        if not 1 <= landmarks <= length:
            raise ValueError(f"landmarks={landmarks}: with length {length} it must be 1..{length}")
        if pinv_iterations < 1:
            raise ValueError(f"pinv_iterations={pinv_iterations}: it must be at least 1")
        if conv_kernel_size != 0 and (conv_kernel_size < 0 or conv_kernel_size % 2 == 0):
            raise ValueError(f"conv_kernel_size={conv_kernel_size}: it must be odd, or 0 for no convolution")
        self.landmarks, self.pinv_iterations = landmarks, pinv_iterations
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        equal_query_key(self.query, self.key)
        self.taps = None
        if conv_kernel_size:
            self.taps = nn.Parameter(torch.randn(heads, conv_kernel_size) * conv_kernel_size**-0.5)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention through landmarks and, if asked, the convolution."""
        v = self.split(self.value(x))
        mixed = self._through_landmarks(x, *self._landmarks(x, v, padding))
        if self.taps is not None:
            mixed = mixed + convolved(v, self.taps)
        return self.output(self.merge(mixed))

    def source_memory(self, source: Tensor, source_padding: Tensor | None) -> tuple[Tensor, ...]:
        """Its landmarks and what they see."""
        if self.taps is not None:
            raise ValueError(
                f"conv_kernel_size={self.taps.shape[1]}: tokens of one sequence have no neighbours in another;"
                " to attend to it, construct the mechanism with conv_kernel_size=0"
            )
        return self._landmarks(source, self.split(self.value(source)), source_padding)

    def mix_across(self, x: Tensor, memory: Memory) -> Tensor:
        """Attention through the landmarks of another sequence."""
        return self.output(self.merge(self._through_landmarks(x, *memory.kept)))

    def _through_landmarks(self, x: Tensor, k_marks: Tensor, mixed: Tensor, used: Tensor | None = None) -> Tensor:
        """Attention of tokens to what :meth:`_landmarks` gives."""
        return F.scaled_dot_product_attention(self.split(self.query(x)), k_marks, mixed, attn_mask=used)

    def _landmarks(self, source: Tensor, v: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """Attention of landmarks to tokens, the inverse.

        Landmarks of queries too are means over ``source``: means over what looks at it would let that see itself.

        Returns:
            The landmarks' keys and what they see, both ``(batch, heads, landmarks, head_width)``, and, with padding,
            which of them there are, ``(batch, 1, 1, landmarks)`` bool.
        """
        means, used = _segments(source, padding, min(self.landmarks, source.shape[1]))
        marks = means @ source  # the mean of projections is the projection of the mean
        q_marks, k_marks = self.split(self.query(marks)), self.split(self.key(marks))
        seen = None if padding is None else ~padding[:, None, None]
        mixed = F.scaled_dot_product_attention(q_marks, self.split(self.key(source)), v, attn_mask=seen)
        mixed = pseudo_inverse(self._between(q_marks, k_marks, used), self.pinv_iterations) @ mixed
        return (k_marks, mixed) if used is None else (k_marks, mixed, used)

    def _between(self, q: Tensor, k: Tensor, used: Tensor | None) -> Tensor:
        """The landmarks' attention to each other, ``(batch, heads, landmarks, landmarks)``; 0 where one is not used."""
        logits = q @ k.mT * self.head_width**-0.5
        if used is None:
            return logits.softmax(-1)
        # The lowest number instead of minus infinity: a row without landmarks stays finite until it is zeroed.
        weights = logits.masked_fill(~used, torch.finfo(logits.dtype).min).softmax(-1)
        return weights.masked_fill(~(used & used.mT), 0.0)


def _segments(x: Tensor, padding: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """Weights that take the mean over each segment, and which segments hold a token at all.

    Returns:
        ``(1 or batch, count, n)``, and ``(batch, 1, 1, count)`` bool or, without padding, None, for all.
    """
    real = ~padding if padding is not None else torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
    rank = real.cumsum(1) - 1
    segment = rank * count // real.sum(1, keepdim=True).clamp(min=1)
    members = (segment[:, None] == torch.arange(count, device=x.device)[:, None]) & real[:, None]
    counts = members.sum(2, keepdim=True)
    means = members.to(x.dtype) / counts.clamp(min=1)
    return means, None if padding is None else (counts > 0).mT[:, None]


def pseudo_inverse(a: Tensor, iterations: int) -> Tensor:
    """Of matrices ``(..., m, m)`` without negative entries, by the paper's third-order iteration; 0 for 0."""
    norms = a.sum(-1).amax(-1) * a.sum(-2).amax(-1)  # of each matrix: samples must not mix
    z = a.mT / norms.masked_fill(norms == 0, 1.0)[..., None, None]
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * unit - az @ (15 * unit - az @ (7 * unit - az))) / 4
    return z


def convolved(v: Tensor, taps: Tensor) -> Tensor:
    """``v`` ``(batch, heads, n, d)`` convolved over ``n`` with ``taps`` ``(heads, size)``, zeros beyond both ends.

    A block of tokens is a band matrix times the tokens around it: several times faster than a convolution on a CPU.
    """
    n, size = v.shape[2], taps.shape[1]
    padded = F.pad(v, (0, 0, size // 2, size // 2 + -n % BLOCK))
    around = overlapping(padded, BLOCK + size - 1, BLOCK).transpose(0, 1).mT  # (heads, batch, blocks, d, tokens)
    band = F.pad(taps, (BLOCK - 1, BLOCK - 1)).unfold(1, BLOCK + size - 1, 1).flip(1)  # (heads, block, tokens)
    blocks = (around.flatten(1, 3) @ band.mT).unflatten(1, around.shape[1:4])
    return blocks.permute(1, 0, 2, 4, 3).flatten(2, 3)[:, :, :n]
