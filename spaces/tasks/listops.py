"""ListOps: the value of nested list operations in prefix notation; generated.

Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018, generated as in Long Range Arena (Tay
et al., 2021, section 2.2.1 and its published generator). The tokens of ``[MAX 4 [MIN 2 3 ] 1 ]`` are the digits, four
operators that open a list, and one that closes it; round brackets are omitted. Values are not uniform: 0 and 9 are more
frequent, in long expressions almost twice as frequent as the others, so compare results with ``chance``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import median

import torch

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole, majority_share, split_random, split_sizes

OPERATORS: Mapping[int, Callable[[Sequence[int]], int]] = {
    10: min,
    11: max,
    12: lambda values: int(median(values)),  # of an even count the mean of the middle two, rounded down
    13: lambda values: sum(values) % 10,
}  # by token id; the token ids of digits are their values
CLOSE = 14
NESTED = 0.25  # probability that an argument is a list itself
MAX_REJECTED = 20_000  # consecutive rejected draws; with the lengths of Long Range Arena one in twelve is accepted


class ListOps(Task):
    """Accuracy of the value, 0 to 9.

    Args:
        min_length: expressions have more tokens than this.
        max_length: expressions have fewer tokens than this.
        max_depth: maximal nesting of lists, plus one.
        max_args: maximal number of arguments of an operator; the minimum is two.
        train: training expressions.
        validation: validation expressions.
        test: test expressions.
        seed: random seed of the expressions.
    """

    def __init__(
        self,
        *,
        min_length: int = 16,
        max_length: int = 129,
        max_depth: int = 5,
        max_args: int = 5,
        train: int = 4000,
        validation: int = 500,
        test: int = 1000,
        seed: int = 0,
    ) -> None:
        check_whole(2, max_args=max_args, max_depth=max_depth)
        check_whole(0, min_length=min_length, seed=seed)
        check_whole(min_length + 2, max_length=max_length)
        longest = 1
        for _ in range(max_depth - 1):
            longest = 2 + max_args * longest
        if longest <= min_length:
            given = f"min_length={min_length}, max_depth={max_depth}, max_args={max_args}"
            raise ValueError(f"{given}: these expressions have at most {longest} tokens")
        self.min_length, self.max_length = min_length, max_length
        self.max_depth, self.max_args, self.seed = max_depth, max_args, seed
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        self.spec = TaskSpec(length=max_length - 1, vocabulary=CLOSE + 1, classes=10, per_token=False)

    @cached_property
    def expressions(self) -> dict[Split, dict[tuple[int, ...], int]]:
        """The value of each expression, by its tokens and by split; all expressions are distinct.

        Raises:
            ValueError: expressions of the required lengths are too rare.
        """
        # Train comes last, so that validation and test do not depend on its size.
        drawn: dict[Split, dict[tuple[int, ...], int]] = {"validation": {}, "test": {}, "train": {}}
        for split, kept in drawn.items():
            generator, rejected, size = split_random(self.seed, split), 0, self.sizes[split]
            while len(kept) < size:
                tokens: list[int] = []
                value = self._grow(generator, tokens, depth=1)
                expression = tuple(tokens)
                fits = self.min_length < len(expression) < self.max_length
                if fits and not any(expression in others for others in drawn.values()):
                    kept[expression], rejected = value, 0
                    continue
                rejected += 1
                if rejected > MAX_REJECTED:
                    given = f"min_length={self.min_length}, max_length={self.max_length}, {split}={size}"
                    raise ValueError(
                        f"{given}: after {len(kept)} expressions, {MAX_REJECTED} draws in a row were rejected"
                    )
        return drawn

    def _grow(self, generator: random.Random, tokens: list[int], depth: int) -> int:
        """Append a random expression at ``depth`` to ``tokens`` and return its value."""
        if depth == self.max_depth or generator.random() > NESTED:
            tokens.append(generator.randrange(10))
            return tokens[-1]
        operator = generator.choice(list(OPERATORS))
        tokens.append(operator)
        arguments = generator.randint(2, self.max_args)
        value = OPERATORS[operator]([self._grow(generator, tokens, depth + 1) for _ in range(arguments)])
        tokens.append(CLOSE)
        return value

    @cached_property
    def chance(self) -> float:  # type: ignore[override]
        """The share of the most frequent value in validation."""
        return majority_share(self.expressions["validation"].values())

    def examples(self, split: Split) -> Batch:
        """Tokens ``(rows, length)``, padded, and values ``(rows,)``."""
        expressions = self.expressions[split]
        inputs = torch.zeros(len(expressions), self.spec.length, dtype=torch.int64)
        for row, tokens in enumerate(expressions):
            inputs[row, : len(tokens)] = torch.tensor(tokens)
        lengths = torch.tensor([len(tokens) for tokens in expressions])
        padding = torch.arange(self.spec.length) >= lengths[:, None]
        return Batch(inputs, padding if padding.any() else None, torch.tensor(list(expressions.values())))
