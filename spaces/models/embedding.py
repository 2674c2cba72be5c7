"""Input embeddings of the model's width: a lookup table for ids, a projection or convolutions for frames.

A frame is a vector of a continuous input, such as a column of a spectrogram or an image patch (Dosovitskiy et al., "An
Image is Worth 16x16 Words", 2021, equation 1). Speech recognisers put two convolutions in front of spectrograms (Dong
et al., "Speech-Transformer", 2018); here they have stride 1 and keep the number of frames.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.tasks import TaskSpec

FRONT_ENDS = ("linear", "convolution")


class Embedding(nn.Module):
    """Ids ``(batch, n)`` or frames ``(batch, n, features)`` to ``(batch, n, width)``; 0 at padding.

    Args:
        spec: the task's specification.
        width: features per token.
        front_end: for frames: ``linear``, or ``convolution`` with kernel sizes 5 and 3.
    """

    def __init__(self, spec: TaskSpec, *, width: int, front_end: str = "linear") -> None:
        super().__init__()
        if front_end not in FRONT_ENDS:
            raise ValueError(f"front_end={front_end!r}: it must be {' or '.join(FRONT_ENDS)}")
        convolves = front_end == "convolution"
        if convolves and spec.features is None:
            raise ValueError("front_end='convolution': it is for frames, and this task has token ids")
        if convolves and spec.causal:
            raise ValueError("front_end='convolution': it sees later frames, and this task is causal")
        self.first: nn.Module
        if spec.features is None:
            assert spec.vocabulary is not None, "a TaskSpec has one of the two"
            self.first = nn.Embedding(spec.vocabulary, width)
        else:
            self.first = nn.Conv1d(spec.features, width, 5, padding=2) if convolves else nn.Linear(spec.features, width)
        self.second = nn.Conv1d(width, width, 3, padding=1) if convolves else None

    def forward(self, inputs: Tensor, padding: Tensor | None) -> Tensor:
        """``padding`` is the padding mask, ``(batch, n)`` bool or None; inputs at padding are ignored."""
        if self.second is None:
            return _zero_padding(self.first(inputs), padding)
        x = F.gelu(self.first(_zero_padding(inputs, padding).transpose(1, 2))).transpose(1, 2)
        # The second convolution must see zeros at padding, as it does beyond the end of an unpadded sequence.
        return _zero_padding(self.second(_zero_padding(x, padding).transpose(1, 2)).transpose(1, 2), padding)


def _zero_padding(x: Tensor, padding: Tensor | None) -> Tensor:
    return x if padding is None else x.masked_fill(padding[..., None], 0.0)
