"""Text classification on the user's own data: from rows of any source to examples of token ids."""

from __future__ import annotations

import logging
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spaces.tasks import SPLITS, Examples, Split, Task, TaskSpec, check_whole, majority_share, split_sizes
from spaces.tasks.sources.bad_rows import warn_or_refuse
from spaces.tasks.sources.rows import Example, Source, checked, is_missing, label_of, label_of_group, text_of
from spaces.tasks.sources.splits import largest_classes, split_by_hash, subset_by_hash
from spaces.tasks.sources.stored import CHUNK, LARGE, Chunk, StoredExamples, cache_name, stored_examples
from spaces.tasks.sources.tokens import Encoder, Ids, TokenSettings, pad_ids, with_tokens

log = logging.getLogger(__name__)
ID_BYTES = 8  # of an id in a batch


class LabelledTexts(Task):
    """Accuracy of text classification.

    A split without a source of its own gets a tenth of the distinct texts of train, of each class. The split of a text
    follows from its hash, so copies of a text are in the same split. With groups a split gets a tenth of the groups
    instead, of each class that is the most frequent one of a group. Rows without a label are left out and counted.

    Args:
        text: the column of texts.
        label: the column of labels.
        group: the column of groups, such as users or documents: rows of a group go to the same split, those without one
            are split by their text; None: there are no groups.
        tokens: what a token is, see :class:`~spaces.tasks.sources.tokens.TokenSettings`; learned from train alone.
        vocabulary: number of tokens that are learned at most, or share of the tokens of a file that is kept; null: a
            default, or all of them.
        lowercase: whether texts are converted to lower case before; None: true.
        length: tokens of a text at most; longer texts are truncated, and their share is logged.
        classes: number of classes at most; the largest are kept, and the omitted ones are logged.
        train: training examples at most, a random subset if there are more.
        validation: validation examples at most, likewise.
        test: test examples at most, likewise.
    """

    varied = False  # whether the input settings are those of an architecture

    def __init__(
        self,
        *,
        text: str,
        label: str,
        group: str | None = None,
        tokens: str,
        vocabulary: float | None,
        lowercase: bool | None,
        length: int,
        classes: int,
        train: int,
        validation: int,
        test: int,
    ) -> None:
        check_whole(1, length=length)
        self.tokens = TokenSettings(tokens, vocabulary, lowercase)
        self._encoders: dict[TokenSettings, Encoder] = {}  # shared with variants, which may differ in length alone
        check_whole(2, classes=classes)
        if text == label:
            raise ValueError(f"text={text!r}, label={label!r}: they must be two different columns")
        if group in (text, label):
            raise ValueError(f"group={group!r}: it must be another column than those of texts and labels; or null")
        self.text, self.label, self.group, self.length, self.classes = text, label, group, length, classes
        self.limits = split_sizes(train=train, validation=validation, test=test)

    @abstractmethod
    def sources(self) -> Mapping[Split, Source]:
        """The source of train, and those of other splits that have their own.

        Raises:
            ValueError: a source cannot be read, or lacks a column.
        """

    @cached_property
    def rows(self) -> dict[Split, list[Example]]:
        """The examples of each split, in the order of their source."""
        found = {split: self._usable(source) for split, source in self.sources().items()}
        sizes = Counter(example.label for examples in found.values() for example in examples)
        kept = self._largest_classes(sizes)
        found = {split: [each for each in examples if each.label in kept] for split, examples in found.items()}
        held_out = [split for split in SPLITS if split not in found]
        stratify = _label_of if self.group is None else label_of_group(found["train"])
        splits = split_by_hash(found["train"], key=_key_of, stratify=stratify, held_out=held_out)
        splits |= {split: examples for split, examples in found.items() if split != "train"}
        return {split: subset_by_hash(splits[split], self.limits[split], key=_text_of) for split in SPLITS}

    def _usable(self, source: Source) -> list[Example]:
        kept, problems, unlabelled = list[Example](), list[str](), 0
        for row in source.rows:
            try:
                if row.problem:
                    raise ValueError(row.problem)
                text = text_of(row.text)
                if is_missing(row.label):
                    unlabelled += 1
                else:
                    group = None if is_missing(row.group) else checked(str(row.group).strip())
                    kept.append(Example(text, label_of(row.label), group))
            except ValueError as error:
                problems.append(f"{row.where}: {error}")
        warn_or_refuse(problems, len(kept) + len(problems), where=source.name, what="rows")
        if unlabelled:
            if not kept:
                raise ValueError(f"{source.name}: none of its {unlabelled} rows has a label in {self.label!r}")
            log.warning("%s: left out %d of %d rows, without a label", source.name, unlabelled, unlabelled + len(kept))
        return kept

    def _largest_classes(self, sizes: Mapping[str, int]) -> set[str]:
        kept = set(largest_classes(sizes, self.classes))
        if omitted := [name for name in largest_classes(sizes, len(sizes)) if name not in kept]:
            rows = sum(sizes[name] for name in omitted)
            summary = f"{len(omitted)} of {len(sizes)} classes with {rows} rows, such as {omitted[0]!r}"
            log.warning("omitted: %s; classes=%d keeps the largest", summary, self.classes)
        return kept

    @cached_property
    def class_names(self) -> Sequence[str]:  # type: ignore[override]
        """Labels in the order of their class numbers: integers by value, then others alphabetically."""
        return sorted({each.label for examples in self.rows.values() for each in examples}, key=_label_order)

    def with_input(
        self,
        *,
        tokens: str | None = None,
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        special_tokens: bool | None = None,
        length: int | None = None,
    ) -> LabelledTexts:
        """The same texts and labels as other tokens, see :meth:`TokenSettings.varied`; None leaves ``length``."""
        _ = self.rows, self.class_names, self.chance  # computed here, so that the copy has them
        varied = with_tokens(self, self.tokens.varied(tokens, vocabulary, lowercase, special_tokens), length)
        varied.varied = True
        return varied

    def contents(self, split: Split) -> Sequence[Hashable]:
        """The whole texts."""
        return [each.text for each in self.rows[split]]

    @cached_property
    def ids(self) -> dict[Split, list[Ids] | StoredExamples]:
        """The token ids of each text; those of a large split are stored."""
        self._truncated = 0
        found = {split: self._encode(split) for split in SPLITS}
        if self._truncated:
            texts = sum(map(len, self.rows.values()))
            share = f"{self._truncated} of {texts} texts ({self._truncated / texts:.0%})"
            level = logging.INFO if self.varied else logging.WARNING
            log.log(level, "%s are longer than length=%d %s and are truncated", share, self.length, self.tokens.unit)
        return found

    def _encode(self, split: Split) -> list[Ids] | StoredExamples:
        rows = self.rows[split]
        longest = min(self.length, max((len(each.text) for each in rows), default=0))
        if ID_BYTES * longest * len(rows) < LARGE:
            return [ids for part in self._encoded_parts(split) for ids in part]
        content = (part for each in rows for part in each[:2])
        name = cache_name(content, [self.encoder.state, self.length, self.class_names])
        return stored_examples(name, lambda: self._chunks(split))

    def _encoded_parts(self, split: Split) -> Iterator[list[Ids]]:
        rows = self.rows[split]
        for at in range(0, len(rows), CHUNK):
            found = self.encoder.encode([each.text for each in rows[at : at + CHUNK]])
            self._truncated += sum(len(ids) > self.length for ids in found)
            yield [self.encoder.truncate(ids, self.length) for ids in found]

    def _chunks(self, split: Split) -> Iterator[Chunk]:
        labels, at = self.labels_of(split), 0
        ids_type = np.min_scalar_type(self.encoder.vocabulary - 1)
        for part in self._encoded_parts(split):
            lengths = np.array([len(ids) for ids in part])
            yield Chunk(np.concatenate(part).astype(ids_type), lengths, labels[at : at + len(part)].numpy())
            at += len(part)

    def labels_of(self, split: Split) -> Tensor:
        """Classes ``(texts,)``."""
        classes = {name: number for number, name in enumerate(self.class_names)}
        return torch.tensor([classes[each.label] for each in self.rows[split]], dtype=torch.int64)

    @cached_property
    def encoder(self) -> Encoder:
        """Learned from the training texts."""
        if self.tokens not in self._encoders:
            self._encoders[self.tokens] = self.tokens.encoder(each.text for each in self.rows["train"])
        return self._encoders[self.tokens]

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """The sequence length is that of the longest text, at most ``length``."""
        longest = max(map(_longest, self.ids.values()))
        return TaskSpec(
            length=longest,
            vocabulary=self.encoder.vocabulary,
            classes=len(self.class_names),
            per_token=False,
            kept_ids=self.encoder.kept_ids,
        )

    @cached_property
    def chance(self) -> float:  # type: ignore[override]
        """The share of the majority class in validation."""
        return majority_share(each.label for each in self.rows["validation"])

    def examples(self, split: Split) -> Examples:
        """Token ids ``(texts, length)``, padded, and classes ``(texts,)``."""
        found, length = self.ids[split], self.spec.length
        if isinstance(found, StoredExamples):
            found.length = length
            return found
        return pad_ids(found, length, self.labels_of(split))


def _longest(found: list[Ids] | StoredExamples) -> int:
    return found.length if isinstance(found, StoredExamples) else max(map(len, found), default=1)


def _text_of(example: Example) -> str:
    return example.text


def _key_of(example: Example) -> str:
    return example.key


def _label_of(example: Example) -> str:
    return example.label


def _label_order(label: str) -> tuple[float, str]:
    return (int(label) if re.fullmatch(r"-?\d+", label) else math.inf, label)
