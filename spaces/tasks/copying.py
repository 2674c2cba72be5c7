"""The first tokens of a row are to be said again at its end; generated.

The copying memory problem of Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, in the form of Arjovsky et
al., "Unitary Evolution Recurrent Neural Networks", 2016, section 5.1: content, blanks, a marker, and as many blanks as
there is content, at which it is asked in order. Where each token is to be found does not change from row to row, so
that looking at fixed places is enough; see :mod:`spaces.tasks.selective_copying`. The published models read from left
to right. No answer stands in the inputs behind the marker, so models that look both ways are asked the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator


class Copying(Task):
    """Fraction of tokens that are said again.

    Args:
        length: tokens in a row, at least ``2 * tokens + 1``.
        tokens: of content in a row.
        symbols: different tokens of content.
        causal: outputs may depend on earlier inputs alone, as in the source.
        train: rows to learn from.
        validation: rows that the search judges by.
        test: rows that the front is reported on.
        seed: of everything drawn; other seeds, other rows.
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
        check_whole(1, tokens=tokens, train=train, validation=validation, test=test)
        check_whole(2, symbols=symbols)
        check_whole(0, seed=seed)
        check_whole(2 * tokens + 1, length=length)
        if not isinstance(causal, bool):
            raise ValueError(f"causal={causal!r}: it must be true or false")
        self.tokens, self.symbols, self.seed = tokens, symbols, seed
        self.rows = {"train": train, "validation": validation, "test": test}
        # Token ids: content, then a blank, then the marker.
        self.blank, self.marker = symbols, symbols + 1
        self.spec = TaskSpec(length=length, vocabulary=symbols + 2, classes=symbols, per_token=True, causal=causal)
        self.chance = 1 / symbols  # all are drawn equally often

    def places(self, rows: int, room: int, generator: torch.Generator) -> Tensor:
        """Where content stands among the first ``room`` tokens, ascending, ``(rows, tokens)``."""
        return torch.arange(self.tokens).expand(rows, -1)

    def examples(self, split: Split) -> Batch:
        """Rows ``(rows, length)``; ``labels`` the content at the last ``tokens`` positions, ``IGNORE_INDEX``
        elsewhere."""
        generator = split_generator(self.seed, split)
        rows, room = self.rows[split], self.spec.length - self.tokens - 1
        content = torch.randint(self.symbols, (rows, self.tokens), generator=generator)
        inputs = torch.full((rows, self.spec.length), self.blank)
        inputs.scatter_(1, self.places(rows, room, generator), content)
        inputs[:, room] = self.marker
        labels = torch.full_like(inputs, IGNORE_INDEX)
        labels[:, -self.tokens :] = content
        return Batch(inputs, None, labels)
