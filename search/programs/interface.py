"""Which tasks' networks can be programs, what a program takes, and random inputs of that kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.programs.sessions import Feed
from spaces.architecture import Architecture
from spaces.dimensions import ConfigError
from spaces.metrics import METRICS
from spaces.tasks import SPLITS, Task
from spaces.tasks.sources.transcription import Transcription
from spaces.tasks.translation import Translation


@dataclass(frozen=True)
class Interface:
    """What a program takes.

    Attributes:
        length: of the longest example.
        multiple: lengths must be a multiple of it: the stride of the network's embedding.
        padded: whether there is an input ``padding``.
        vocabulary: ids are 0..vocabulary-1; None: inputs are frames.
        features: of a frame.
        language_model: whether logits are of the next token, and depend on no later ones, so that examples may be
            padded without an input ``padding``.
        answer_length: of the longest translation; there is an input ``decoder_input_ids`` ``(batch, answer_length)``
            then, and logits are of the token after each of them. None: answers are no sequences of their own.
        classes: the ids of a translation are 0..classes-1.
    """

    length: int
    multiple: int
    padded: bool
    vocabulary: int | None
    features: int | None
    language_model: bool = False
    answer_length: int | None = None
    classes: int = 0

    @property
    def least(self) -> int:
        """The least length where lengths are free: two positions, as exporters treat sizes of 1 apart."""
        return min(2 * self.multiple, self.length)

    @classmethod
    def of(cls, architecture: Architecture, task: Task) -> Interface:
        """That of the network of an architecture, with :func:`spaces.build.task_of` it.

        The multiple of the embedding's stride is reached by padding.
        """
        spec = task.spec
        stride = {**architecture["model"], **(architecture.get("input") or {})}.get("stride") or 1
        length = -(-spec.length // stride) * stride
        if is_language_model(task):
            return cls(length, stride, False, spec.vocabulary, spec.features, language_model=True)
        padded = any(task.data(split).lengths is not None for split in SPLITS) or length > spec.length
        answers = spec.answer_length, spec.classes
        return cls(length, stride, padded, spec.vocabulary, spec.features, False, *answers)

    def random_feed(self, batch: int, length: int, generator: np.random.Generator) -> Feed:
        """Random inputs, of which, if there is padding, all but the first are padded to a random degree."""
        if self.vocabulary is not None:
            inputs: NDArray[Any] = generator.integers(self.vocabulary, size=(batch, length))
        else:
            inputs = generator.standard_normal((batch, length, self.features or 1)).astype(np.float32)
        feed = {"inputs": inputs}
        if self.answer_length is not None:
            feed["decoder_input_ids"] = generator.integers(self.classes, size=(batch, self.answer_length))
        if not self.padded:
            return feed
        lengths = np.concatenate([[length], generator.integers(1, length + 1, size=batch - 1)])
        padding = np.arange(length) >= lengths[:, None]
        inputs[padding] = 0
        return {**feed, "padding": padding}


def is_language_model(task: Task) -> bool:
    """Whether the answers of a task are the next tokens of texts."""
    spec = task.spec
    return spec.causal and spec.per_token and spec.vocabulary == spec.classes and task.metric not in METRICS


def check_exportable(task: Task) -> None:
    """Raise :class:`ConfigError` unless a network, or that of each of several tasks, can be a program."""
    for part in task.subtasks.values() or [task]:
        check_program(part)


def check_program(task: Task) -> None:
    """Raise :class:`ConfigError` unless the task's answers are classes, next tokens, translations or transcripts."""
    name = type(task).__name__
    problem = ""
    if task.spec.subtasks:
        problem = "it has several tasks"
    elif not (task.metric in METRICS or is_language_model(task) or isinstance(task, Translation | Transcription)):
        problem = f"its answers are not classes or texts (its metric is {task.metric})"
    if problem:
        raise ConfigError(
            f"{name} cannot be exported yet: {problem}; classifiers, language models, translation and transcription can"
        )
