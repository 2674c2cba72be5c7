"""What a token is made of, as features of the model's width: ids by a table, frames by a projection or a convolution.

A frame is a vector of a sequence that is continuous by nature, such as a spectrogram's or an image's patch
(Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, equation 1). For spectrograms speech recognisers put two
convolutions in front (Dong et al., "Speech-Transformer", 2018); here they keep the number of frames.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.tasks import TaskSpec

FRONT_ENDS = ("linear", "convolution")


class Embedding(nn.Module):
    """Ids ``(batch, n)`` or frames ``(batch, n, features)`` to ``(batch, n, width)``; 0 at padding.

    Args:
        spec: the task's.
        width: features per token.
        front_end: of frames: ``linear``, or ``convolution`` over five, then three neighbouring frames.
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
            assert spec.vocabulary is not None, "sizes have one of the two"
            self.first = nn.Embedding(spec.vocabulary, width)
        else:
            self.first = nn.Conv1d(spec.features, width, 5, padding=2) if convolves else nn.Linear(spec.features, width)
        self.second = nn.Conv1d(width, width, 3, padding=1) if convolves else None

    def forward(self, inputs: Tensor, padding: Tensor | None) -> Tensor:
        """``padding`` is ``(batch, n)`` bool or None; what stands there changes nothing."""
        if self.second is None:
            return _without(self.first(inputs), padding)
        x = F.gelu(self.first(_without(inputs, padding).transpose(1, 2))).transpose(1, 2)
        # Beyond a sequence's end the second convolution sees zeros, however much padding is there.
        return _without(self.second(_without(x, padding).transpose(1, 2)).transpose(1, 2), padding)


def _without(x: Tensor, padding: Tensor | None) -> Tensor:
    return x if padding is None else x.masked_fill(padding[..., None], 0.0)
