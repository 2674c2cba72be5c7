"""Multi-query associative recall: pairs of key and value, then the keys again, each asked for its value; generated.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023, section 4 and the generator
published with it. ``k1 v1 k2 v2 ...`` come first; every key stands once more at a later even place, the sooner the more
often: gap ``g`` has a probability proportional to ``(g + 1)^(power - 1)``. The published models read from left to
right; no answer stands in the inputs behind its question, so models that look both ways are asked the same. Unlike the
published ones they choose among the values alone, not among all tokens.
"""

from __future__ import annotations

import torch

from spaces.dimensions import check_number
from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator


class MQAR(Task):
    """Fraction of values that are told.

    Token ids are 0 for a blank, then keys, and from half of the vocabulary on values.

    Args:
        length: tokens in a row, even, at least four for each pair.
        pairs: of key and value in a row, all different.
        vocabulary: of tokens, even; a row's pairs are drawn from half of it.
        power: 0..1; the smaller, the sooner most keys come again.
        noise: at places where nothing stands there is any token, instead of a blank.
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
        pairs: int = 8,
        vocabulary: int = 64,
        power: float = 0.01,
        noise: bool = False,
        causal: bool = False,
        train: int = 2000,
        validation: int = 200,
        test: int = 500,
        seed: int = 0,
    ) -> None:
        check_whole(1, pairs=pairs, train=train, validation=validation, test=test)
        check_whole(4 * pairs, length=length)
        check_whole(2 * pairs + 2, vocabulary=vocabulary)  # half of them without the blank
        check_whole(0, seed=seed)
        check_number(0, 1, power=power)
        for name, even in (("length", length), ("vocabulary", vocabulary)):
            if even % 2:
                raise ValueError(f"{name}={even}: it must be even")
        for name, claim in (("noise", noise), ("causal", causal)):
            if not isinstance(claim, bool):
                raise ValueError(f"{name}={claim!r}: it must be true or false")
        self.pairs, self.power, self.noise, self.seed = pairs, power, noise, seed
        self.rows = {"train": train, "validation": validation, "test": test}
        self.first_value = vocabulary // 2
        self.spec = TaskSpec(
            length=length, vocabulary=vocabulary, classes=vocabulary // 2, per_token=True, causal=causal
        )
        self.chance = 2 / vocabulary  # all values are drawn equally often

    def examples(self, split: Split) -> Batch:
        """Rows ``(rows, length)``; ``labels`` are values from 0 where a key stands again, else ``IGNORE_INDEX``."""
        generator = split_generator(self.seed, split)
        rows, pairs, values = self.rows[split], self.pairs, self.first_value

        def some(weights: torch.Tensor) -> torch.Tensor:
            """``pairs`` different indices a row, drawn one after the other by their weights."""
            return weights.expand(rows, -1).multinomial(pairs, generator=generator)

        keys = 1 + some(torch.ones(values - 1))
        answers = some(torch.ones(values))
        gaps = some((1 + torch.arange(self.spec.length // 2 - pairs)).double() ** (self.power - 1))
        inputs = torch.zeros(rows, self.spec.length, dtype=torch.int64)
        inputs[:, 0 : 2 * pairs : 2] = keys
        inputs[:, 1 : 2 * pairs : 2] = values + answers
        asked = 2 * (pairs + gaps)
        inputs.scatter_(1, asked, keys)
        if self.noise:
            noise = torch.randint(2 * values, inputs.shape, generator=generator)
            inputs = torch.where(inputs == 0, noise, inputs)
        return Batch(inputs, None, torch.full_like(inputs, IGNORE_INDEX).scatter_(1, asked, answers))
