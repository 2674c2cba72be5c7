"""The shapes of a task, which a model must know before any data exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TaskSpec:
    """What a model must know about its task before any data exists.

    A token is an id of a ``vocabulary``, or a frame of ``features`` numbers, e.g. of a spectrogram or an image patch.

    Raises:
        ValueError: both a vocabulary and features are given, or neither.
    """

    length: int  # tokens of the longest example
    classes: int  # logits (or regression outputs) per prediction
    per_token: bool  # one prediction per token, or one per sequence
    vocabulary: int | None = None  # token ids are 0..vocabulary-1
    kept_ids: tuple[int, ...] | None = None  # what they are in a tokenizer file of which only some tokens are kept
    features: int | None = None  # numbers per frame
    ordinal: bool = False  # token ids are quantities, such as gray levels
    causal: bool = False  # output t may depend on inputs 0..t only
    image_shape: tuple[int, int, int] | None = None  # channels, height, width, where frames are patches of an image
    answer_length: int | None = None  # sequence-to-sequence tasks: tokens of the longest target, each one of classes
    subtasks: Mapping[str, TaskSpec] = field(default_factory=dict)  # multi-task: the spec of each subtask by name

    def __post_init__(self) -> None:
        if not self.subtasks and (self.vocabulary is None) == (self.features is None):
            given = f"vocabulary={self.vocabulary}, features={self.features}"
            raise ValueError(f"{given}: give one of the two; tokens are ids of a vocabulary or frames of features")

    @property
    def answer_shape(self) -> tuple[int, ...]:
        """Shape of a model's output for one example of full length: ``(tokens, classes)`` or ``(classes,)``."""
        tokens = (self.answer_length or self.length,) if self.per_token else ()
        return (*tokens, self.classes)
