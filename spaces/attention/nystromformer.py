"""Nyström attention: a low-rank approximation of the attention matrix through a few landmarks.

Xiong et al., "Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention", 2021, section 3: softmax(q
k'^T) pinv(softmax(q' k'^T)) softmax(q' k^T) v, where the landmarks q' and k' are means over equal segments of the
tokens that are not padding. O(length * landmarks + landmarks^3) time; exact softmax attention, up to the convergence of
the iterative pseudo-inverse, if every token is a landmark. It cannot be causal: a segment's mean includes its last
token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Shape, SourceCache
from spaces.attention.kernels.blocks import overlapping
from spaces.attention.projections import QKVMechanism

BLOCK = 32  # tokens per block of the convolution


class NystromformerAttention(QKVMechanism):
    """Attention through landmarks.

    Args:
        landmarks: number of landmarks, 1..length; in a shorter sequence, at most one per token.
        pinv_iterations: iterations of the pseudo-inverse, at least 1.
        conv_kernel_size: kernel size of the depthwise convolution of the values that is added to the output, an odd
            number; 0 for none.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        landmarks: int,
        pinv_iterations: int = 6,
        conv_kernel_size: int = 0,
    ) -> None:
        super().__init__(shape)
        length = shape.length
        if shape.causal:
            raise ValueError("causal=True: nystromformer's landmarks are means over segments, later tokens included")
        if not 1 <= landmarks <= length:
            raise ValueError(f"landmarks={landmarks}: with length {length} it must be 1..{length}")
        if pinv_iterations < 1:
            raise ValueError(f"pinv_iterations={pinv_iterations}: it must be at least 1")
        if conv_kernel_size != 0 and (conv_kernel_size < 0 or conv_kernel_size % 2 == 0):
            raise ValueError(f"conv_kernel_size={conv_kernel_size}: it must be odd, or 0 for no convolution")
        self.landmarks, self.pinv_iterations = landmarks, pinv_iterations
        self.taps = None
        if conv_kernel_size:
            self.taps = nn.Parameter(torch.randn(shape.heads, conv_kernel_size) * conv_kernel_size**-0.5)

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Attention through landmarks, plus the convolution if there is one."""
        v = self.split_heads(self.value(x))
        mixed = self._through_landmarks(x, *self._landmarks(x, v, padding))
        if self.taps is not None:
            mixed = mixed + convolved(self.zero_padding(v, padding), self.taps)
        return self.output(self.merge_heads(mixed))

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """The landmarks of the source; see :meth:`_landmarks`."""
        if self.taps is not None:
            raise ValueError(
                f"conv_kernel_size={self.taps.shape[1]}: tokens of one sequence have no neighbours in another;"
                " to attend to it, construct the mechanism with conv_kernel_size=0"
            )
        return self._landmarks(source, self.split_heads(self.value(source)), padding)

    def mix_source(self, x: Tensor, cache: SourceCache) -> Tensor:
        """Attention through the landmarks of the source."""
        return self.output(self.merge_heads(self._through_landmarks(x, *cache.tensors)))

    def _through_landmarks(self, x: Tensor, k_marks: Tensor, mixed: Tensor, used: Tensor | None = None) -> Tensor:
        """Attention of tokens to landmarks, with the tensors of :meth:`_landmarks`."""
        return F.scaled_dot_product_attention(self.split_heads(self.query(x)), k_marks, mixed, attn_mask=used)

    def _landmarks(self, source: Tensor, v: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """The factors that depend on the keys: the pseudo-inverse times the attention of landmarks to tokens.

        Query landmarks are means over ``source`` too: means over the attending tokens would mix those with each other.

        Returns:
            The landmarks' keys and their values (after the pseudo-inverse), both ``(batch, heads, landmarks,
            head_dim)``, and, with padding, which landmarks exist, ``(batch, 1, 1, landmarks)`` bool.
        """
        means, used = _segments(source, padding, min(self.landmarks, source.shape[1]))
        marks = means @ source  # the mean of projections is the projection of the mean
        q_marks, k_marks = self.split_heads(self.query(marks)), self.split_heads(self.key(marks))
        seen = None if padding is None else ~padding[:, None, None]
        mixed = F.scaled_dot_product_attention(q_marks, self.split_heads(self.key(source)), v, attn_mask=seen)
        mixed = pseudo_inverse(self._between(q_marks, k_marks, used), self.pinv_iterations) @ mixed
        return (k_marks, mixed) if used is None else (k_marks, mixed, used)

    def _between(self, q: Tensor, k: Tensor, used: Tensor | None) -> Tensor:
        """The landmarks' attention to each other, ``(batch, heads, landmarks, landmarks)``; 0 for unused ones."""
        logits = q @ k.mT * self.head_dim**-0.5
        if used is None:
            return logits.softmax(-1)
        # The lowest finite number instead of minus infinity: a row without landmarks stays finite until it is zeroed.
        weights = logits.masked_fill(~used, torch.finfo(logits.dtype).min).softmax(-1)
        return weights.masked_fill(~(used & used.mT), 0.0)


def _segments(x: Tensor, padding: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """The averaging matrix of the segments, and which segments are not empty.

    Returns:
        ``(1 or batch, count, n)``, and ``(batch, 1, 1, count)`` bool, or None without padding, where none is empty.
    """
    real = ~padding if padding is not None else torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
    rank = real.cumsum(1) - 1
    segment = rank * count // real.sum(1, keepdim=True).clamp(min=1)
    members = (segment[:, None] == torch.arange(count, device=x.device)[:, None]) & real[:, None]
    counts = members.sum(2, keepdim=True)
    means = members.to(x.dtype) / counts.clamp(min=1)
    return means, None if padding is None else (counts > 0).mT[:, None]


def pseudo_inverse(a: Tensor, iterations: int) -> Tensor:
    """The pseudo-inverse of nonnegative matrices ``(..., m, m)`` by the paper's third-order iteration."""
    norms = a.sum(-1).amax(-1) * a.sum(-2).amax(-1)  # per matrix, so that samples of a batch stay independent
    z = a.mT / norms.masked_fill(norms == 0, 1.0)[..., None, None]
    unit = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * unit - az @ (15 * unit - az @ (7 * unit - az))) / 4
    return z


def convolved(v: Tensor, taps: Tensor) -> Tensor:
    """``v`` ``(batch, heads, n, d)`` convolved over ``n`` with ``taps`` ``(heads, size)``, zero-padded.

    Each block of outputs is a band matrix times the tokens around it: several times faster than a CPU convolution.
    """
    n, size = v.shape[2], taps.shape[1]
    padded = F.pad(v, (0, 0, size // 2, size // 2 + -n % BLOCK))
    around = overlapping(padded, BLOCK + size - 1, BLOCK).transpose(0, 1).mT  # (heads, batch, blocks, d, tokens)
    band = F.pad(taps, (BLOCK - 1, BLOCK - 1)).unfold(1, BLOCK + size - 1, 1).flip(1)  # (heads, block, tokens)
    blocks = (around.flatten(1, 3) @ band.mT).unflatten(1, around.shape[1:4])
    return blocks.permute(1, 0, 2, 4, 3).flatten(2, 3)[:, :, :n]
