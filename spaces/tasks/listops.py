"""Nested list operations in prefix notation, whose value is asked; generated.

Nangia and Bowman, "ListOps: A Diagnostic Dataset for Latent Tree Learning", 2018, drawn as by the Long Range Arena (Tay
et al., 2021, section 2.2.1 and its published generator): the tokens of ``[MAX 4 [MIN 2 3 ] 1 ]`` are the digits, four
operators that open a list, and what closes it; round brackets are left out. Values are not uniform: 0 and 9 come up
more often, in long expressions almost twice as often as the others. So results are to be read against ``chance``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from statistics import median

import torch

from spaces.tasks import Batch, Split, Task, TaskSpec, check_whole

OPERATORS: Mapping[int, Callable[[Sequence[int]], int]] = {
    10: min,
    11: max,
    12: lambda values: int(median(values)),  # of an even number the mean of the middle two, rounded down
    13: lambda values: sum(values) % 10,
}  # by token id; digits are their own
CLOSE = 14
NESTED = 0.25  # probability that an argument is a list itself
PATIENCE = 20_000  # draws in a row of which none is kept; of the arena's own lengths every twelfth is


class ListOps(Task):
    """Fraction of expressions whose value, 0 to 9, is told.

    Args:
        min_length: expressions have more tokens.
        max_length: expressions have fewer tokens.
        max_depth: lists within lists, plus one.
        max_args: most arguments of an operator; it has at least two.
        train: expressions to learn from.
        validation: expressions that the search judges by.
        test: expressions that the front is reported on.
        seed: of everything drawn; other seeds, other expressions.
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
        check_whole(1, train=train, validation=validation, test=test)
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
        # The splits to judge by are drawn first, so that they don't depend on how many there are to learn from.
        self.rows: Mapping[Split, int] = {"validation": validation, "test": test, "train": train}
        self.spec = TaskSpec(length=max_length - 1, vocabulary=CLOSE + 1, classes=10, per_token=False)

    @cached_property
    def expressions(self) -> dict[Split, dict[tuple[int, ...], int]]:
        """The tokens of each expression and its value, by split; none stands there twice.

        Raises:
            ValueError: expressions of such lengths hardly ever come up.
        """
        drawn: dict[Split, dict[tuple[int, ...], int]] = {split: {} for split in self.rows}
        for split, rows in self.rows.items():
            generator, kept, idle = random.Random(f"{self.seed} {split}"), drawn[split], 0
            while len(kept) < rows:
                tokens: list[int] = []
                value = self._grow(generator, tokens, depth=1)
                expression = tuple(tokens)
                fits = self.min_length < len(expression) < self.max_length
                if fits and not any(expression in others for others in drawn.values()):
                    kept[expression], idle = value, 0
                    continue
                idle += 1
                if idle > PATIENCE:
                    given = f"min_length={self.min_length}, max_length={self.max_length}, {split}={rows}"
                    raise ValueError(f"{given}: after {len(kept)} expressions, {PATIENCE} draws gave no other one")
        return drawn

    def _grow(self, generator: random.Random, tokens: list[int], depth: int) -> int:
        """Append an expression to ``tokens``, as one at ``depth`` is drawn, and return its value."""
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
        """What the most frequent value of validation scores, whatever the expression."""
        values = Counter(self.expressions["validation"].values())
        return max(values.values()) / values.total()

    def examples(self, split: Split) -> Batch:
        """Tokens ``(rows, length)``, padded, and values ``(rows,)``."""
        expressions = self.expressions[split]
        inputs = torch.zeros(len(expressions), self.spec.length, dtype=torch.int64)
        for row, tokens in enumerate(expressions):
            inputs[row, : len(tokens)] = torch.tensor(tokens)
        lengths = torch.tensor([len(tokens) for tokens in expressions])
        padding = torch.arange(self.spec.length) >= lengths[:, None]
        return Batch(inputs, padding if padding.any() else None, torch.tensor(list(expressions.values())))
