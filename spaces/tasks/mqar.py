"""Multi-query associative recall: key-value pairs, then each key again, whose value must be predicted; generated.

Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", 2023, section 4, and its published
generator. A row begins with ``k1 v1 k2 v2 ...``; each key appears once more at a later even position, where a gap of
``g`` has a probability proportional to ``(g + 1)^(power - 1)``. Published models are causal; the inputs after a query
do not contain its value, so the task is the same for bidirectional models. Unlike in the source, the classes are the
values only, not all tokens.
"""

from __future__ import annotations

import torch

from spaces.dimensions import check_number
from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator, split_sizes


class MQAR(Task):
    """Accuracy of the values.

    Token id 0 is the blank, then come the keys; the values are the upper half of the vocabulary.

    Args:
        length: tokens per row, even, at least four for each pair.
        pairs: key-value pairs per row, all distinct.
        vocabulary: number of token ids, even; half of them are values.
        power: 0..1; the smaller, the sooner most keys are repeated.
        noise: fill unused positions with random tokens instead of blanks.
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
        check_whole(1, pairs=pairs)
        check_whole(4 * pairs, length=length)
        check_whole(2 * pairs + 2, vocabulary=vocabulary)  # half of them without the blank
        check_whole(0, seed=seed)
        check_number(0, 1, power=power)
        for name, even in (("length", length), ("vocabulary", vocabulary)):
            if even % 2:
                raise ValueError(f"{name}={even}: it must be even")
        for name, flag in (("noise", noise), ("causal", causal)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name}={flag!r}: it must be true or false")
        self.pairs, self.power, self.noise, self.seed = pairs, power, noise, seed
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        self.first_value = vocabulary // 2
        self.spec = TaskSpec(
            length=length, vocabulary=vocabulary, classes=vocabulary // 2, per_token=True, causal=causal
        )
        self.chance = 2 / vocabulary  # values are drawn uniformly

    def examples(self, split: Split) -> Batch:
        """Rows ``(rows, length)``; ``labels`` are value numbers from 0 at the repeated keys."""
        generator = split_generator(self.seed, split)
        rows, pairs, values = self.sizes[split], self.pairs, self.first_value

        def draw(weights: torch.Tensor) -> torch.Tensor:
            """``pairs`` distinct indices per row, drawn with these weights, without replacement."""
            return weights.expand(rows, -1).multinomial(pairs, generator=generator)

        keys = 1 + draw(torch.ones(values - 1))
        labels = draw(torch.ones(values))
        gaps = draw((1 + torch.arange(self.spec.length // 2 - pairs)).double() ** (self.power - 1))
        inputs = torch.zeros(rows, self.spec.length, dtype=torch.int64)
        inputs[:, 0 : 2 * pairs : 2] = keys
        inputs[:, 1 : 2 * pairs : 2] = values + labels
        queries = 2 * (pairs + gaps)
        inputs.scatter_(1, queries, keys)
        if self.noise:
            noise = torch.randint(2 * values, inputs.shape, generator=generator)
            inputs = torch.where(inputs == 0, noise, inputs)
        return Batch(inputs, None, torch.full_like(inputs, IGNORE_INDEX).scatter_(1, queries, labels))
