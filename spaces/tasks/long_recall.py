"""Associative recall over 2048 tokens: :mod:`spaces.tasks.recall` with few rows of many labels each; generated."""

from __future__ import annotations

from spaces.tasks.recall import Recall


class LongRecall(Recall):
    """Accuracy over all labels of all rows; see :class:`~spaces.tasks.recall.Recall` for the settings."""

    def __init__(
        self,
        *,
        length: int = 2048,
        pairs: int = 16,
        repeats: int = 4,
        keys: int = 28,
        answers: int = 8,
        noise: int = 8,
        near: float = 0.35,
        train: int = 120,
        validation: int = 8,
        test: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(
            length=length,
            pairs=pairs,
            repeats=repeats,
            keys=keys,
            answers=answers,
            noise=noise,
            near=near,
            train=train,
            validation=validation,
            test=test,
            seed=seed,
        )
