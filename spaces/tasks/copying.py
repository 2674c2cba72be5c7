"""Copying: the first tokens of a row must be repeated at its end; generated.

The copying memory problem of Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, in the form of Arjovsky et
al., "Unitary Evolution Recurrent Neural Networks", 2016, section 5.1: content, blanks, a marker, and as many blanks as
there is content, where the content is to be predicted in order. The positions are the same in every row, so attention
to fixed positions suffices; see :mod:`spaces.tasks.selective_copying`. Published models are causal. The inputs after
the marker contain no content, so the task is the same for bidirectional models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator, split_sizes


class Copying(Task):
    """Accuracy of the repeated tokens.

    Args:
        length: tokens per row, at least ``2 * tokens + 1``.
        tokens: tokens of content per row.
        symbols: number of distinct content tokens.
        causal: outputs may depend on earlier inputs only, as in the source.
        train: training rows.
        validation: validation rows.
        test: test rows.
        seed: random seed of the rows.
    """

    batch_size = 16

    def __init__(
        self,
        *,
        length: int = 128,
        tokens: int = 8,
        symbols: int = 14,
        causal: bool = False,
        train: int = 800,
        validation: int = 100,
        test: int = 300,
        seed: int = 0,
    ) -> None:
        check_whole(1, tokens=tokens)
        check_whole(2, symbols=symbols)
        check_whole(0, seed=seed)
        check_whole(2 * tokens + 1, length=length)
        if not isinstance(causal, bool):
            raise ValueError(f"causal={causal!r}: it must be true or false")
        self.tokens, self.symbols, self.seed = tokens, symbols, seed
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        # Token ids: content, then the blank, then the marker.
        self.blank, self.marker = symbols, symbols + 1
        self.spec = TaskSpec(length=length, vocabulary=symbols + 2, classes=symbols, per_token=True, causal=causal)
        self.chance = 1 / symbols  # symbols are drawn uniformly

    def positions(self, rows: int, available: int, generator: torch.Generator) -> Tensor:
        """Ascending positions of the content among the first ``available`` tokens, ``(rows, tokens)``."""
        return torch.arange(self.tokens).expand(rows, -1)

    def examples(self, split: Split) -> Batch:
        """Rows ``(rows, length)``; ``labels`` are the content at the last ``tokens`` positions."""
        generator = split_generator(self.seed, split)
        rows, before_marker = self.sizes[split], self.spec.length - self.tokens - 1
        content = torch.randint(self.symbols, (rows, self.tokens), generator=generator)
        inputs = torch.full((rows, self.spec.length), self.blank)
        inputs.scatter_(1, self.positions(rows, before_marker, generator), content)
        inputs[:, before_marker] = self.marker
        labels = torch.full_like(inputs, IGNORE_INDEX)
        labels[:, -self.tokens :] = content
        return Batch(inputs, None, labels)
