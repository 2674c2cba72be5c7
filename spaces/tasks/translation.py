"""Machine translation, evaluated by BLEU, on an artificial language pair or on the user's own parallel files.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002, and Popovic, "chrF: character
n-gram F-score for automatic MT evaluation", 2015, both as implemented in sacrebleu (Post, "A Call for Clarity in
Reporting BLEU Scores", 2018). For the artificial languages see :mod:`spaces.tasks.synthetic.language_pair`.

With ``neighbours`` the source is augmented by translations of similar ones: :mod:`spaces.tasks.sources.neighbours`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from spaces.baselines.parallel import CopiedSource, NearestPair
from spaces.batch import BOS, EOS, IGNORE_INDEX, Batch
from spaces.tasks import SPLITS, Split, Task, TaskSpec, check_whole, split_random, split_sizes
from spaces.tasks.sources import parallel_texts
from spaces.tasks.sources.neighbours import padded, with_neighbours
from spaces.tasks.sources.pair_tokens import PairTokens, check_tokens, pair_tokens
from spaces.tasks.sources.parallel_texts import Pair
from spaces.tasks.sources.tokens import DERIVED
from spaces.tasks.sources.translation_metrics import bleu, bleu_and_others
from spaces.tasks.synthetic import language_pair

FIRST = 2  # the id of the first token of the vocabulary
# Of artificial pairs and of files, unless given; subwords of files are shorter than words.
SIZES = {"train": (2000, 20_000), "validation": (100, 500), "test": (300, 1000)}
LENGTHS = (48, 96)


class Translation(Task):
    """BLEU of greedy decoding, 0 to 100; chrF and exact matches are reported beside it.

    Latency is that of generating one translation of full length; the search for neighbours is not part of it, and takes
    as long as the baseline that consists of it.

    Args:
        folder: contains ``train.SOURCE`` and ``train.TARGET``, one sentence per line, and likewise ``validation`` (or
            ``valid``, ``val``, ``dev``) and ``test``; with ``train`` only, its sentences are split 8:1:1. Null: the
            artificial languages.
        source: file name ending of the source language, such as ``de``.
        target: file name ending of the target language.
        tokens: of both languages, see :func:`~spaces.tasks.sources.pair_tokens.pair_tokens`; learned from train. Words
            that are rare in train are unknown, in references as well. Null: ``words`` of the artificial languages,
            ``bpe`` of files.
        vocabulary: number of tokens that are learned at most; null: a default.
        length: maximal tokens of a source sentence; pairs with longer ones are skipped with a warning. Null: 48, 96 of
            files.
        answer_length: maximal tokens of a target sentence including the end of sequence; likewise.
        clauses: maximal number of clauses of an artificial sentence.
        train, validation, test: pairs at most; null: 2,000, 100 and 300, of files 20,000, 500 and 1,000.
        seed: random seed of the artificial sentences.
    """

    metric = "bleu"
    best = 100.0
    chance = 0.0
    batch_size = 32

    def __init__(
        self,
        *,
        folder: str | None = None,
        source: str | None = None,
        target: str | None = None,
        tokens: str | None = None,
        vocabulary: int | None = None,
        length: int | None = None,
        answer_length: int | None = None,
        clauses: int = 4,
        train: int | None = None,
        validation: int | None = None,
        test: int | None = None,
        seed: int = 0,
    ) -> None:
        given = {"train": train, "validation": validation, "test": test}
        files = folder is not None
        limits = {name: SIZES[name][files] if limit is None else limit for name, limit in given.items()}
        self.limits = split_sizes(**limits)
        self.tokens = ("words", "bpe")[files] if tokens is None else tokens
        self.length = LENGTHS[files] if length is None else length
        self.answer_length = LENGTHS[files] if answer_length is None else answer_length
        check_tokens(self.tokens, vocabulary)
        check_whole(1, length=self.length, clauses=clauses)
        check_whole(2, answer_length=self.answer_length)
        check_whole(0, seed=seed)
        if files and not (source and target):
            needed = "the file name endings of its languages, such as source=de target=en"
            raise ValueError(f"source, target: a folder needs {needed}")
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder and not self.folder.is_dir():
            raise ValueError(f"folder={folder!r}: no such folder")
        self.endings = (str(source), str(target))
        self.vocabulary, self.clauses, self.seed, self.neighbours = vocabulary, clauses, seed, 0

    def with_input(
        self,
        *,
        tokens: str | None = None,
        vocabulary: int | None = None,
        length: int | None = None,
        neighbours: int | None = None,
    ) -> Translation:
        """The same pairs as other tokens; what is not given stays, and the vocabulary is that of tokens.

        Args:
            tokens, vocabulary: as of the class.
            length: tokens of a source sentence at most; longer ones are truncated. Targets are not.
            neighbours: most similar sources of train whose targets follow the source; of a training pair, other ones.
        """
        varied = copy.copy(self)
        derived = {*DERIVED, "inputs"}
        varied.__dict__ = {name: value for name, value in vars(self).items() if name not in derived}
        varied.pairs = self.pairs
        if tokens is not None or vocabulary is not None:
            varied.tokens, varied.vocabulary = self.tokens if tokens is None else tokens, vocabulary
            check_tokens(varied.tokens, vocabulary)
        if length is not None:
            check_whole(1, length=length)
            varied.length = length
        if neighbours is not None:
            check_whole(0, neighbours=neighbours)
            if neighbours >= len(self.pairs["train"]):
                raise ValueError(f"neighbours={neighbours}: train has {len(self.pairs['train'])} pairs")
            varied.neighbours = neighbours
        return varied

    @cached_property
    def pairs(self) -> dict[Split, list[Pair]]:
        """All pairs by split."""
        if self.folder is not None:
            return self._read(self.folder)
        known = set[str]()
        return {
            split: language_pair.draw_pairs(
                split_random(self.seed, split), self.limits[split], clauses=self.clauses, known=known, fits=self._fits
            )
            for split in SPLITS
        }

    def _fits(self, pair: Pair) -> bool:
        """Whether an artificial pair fits; subwords are not learned yet, so words count."""
        source, target = (len(text.encode() if self.tokens == "bytes" else text.split()) for text in pair)
        return source <= self.length and target < self.answer_length

    def _read(self, folder: Path) -> dict[Split, list[Pair]]:
        """The pairs of the files that are not empty and fit the lengths."""
        read = parallel_texts.read(folder, *self.endings)
        encode = self._learned(read["train"][: self.limits["train"]]).encode
        most = (self.length, self.answer_length - 1)
        try:
            kept = {split: parallel_texts.fitting(pairs, split, encode, most) for split, pairs in read.items()}
        except ValueError as error:
            raise ValueError(f"folder={str(folder)!r}: {error}") from error
        return {split: pairs[: self.limits[split]] for split, pairs in kept.items()}

    def _learned(self, pairs: Sequence[Pair]) -> PairTokens:
        return pair_tokens(self.tokens, self.vocabulary, (text for pair in pairs for text in pair))

    @cached_property
    def encoder(self) -> PairTokens:
        """Learned from both sides of train; its ids follow ``BOS`` and ``EOS``."""
        return self._learned(self.pairs["train"])

    @cached_property
    def ids(self) -> dict[Split, tuple[list[list[int]], list[list[int]]]]:
        """The sources, truncated to ``length``, and the targets."""
        found = {}
        for split, pairs in self.pairs.items():
            sources, targets = (self.encoder.encode([pair[side] for pair in pairs]) for side in (0, 1))
            found[split] = ([_shifted(ids[: self.length]) for ids in sources], [_shifted(ids) for ids in targets])
        return found

    @cached_property
    def inputs(self) -> dict[Split, list[list[int]]]:
        """The sources, with the targets of their neighbours."""
        sources = {split: sources for split, (sources, _) in self.ids.items()}
        return with_neighbours(sources, self.ids["train"][1], self.neighbours) if self.neighbours else sources

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """The lengths are those of the longest input and the longest target; both sides share their ids."""
        vocabulary = FIRST + self.encoder.vocabulary
        return TaskSpec(
            length=max(len(ids) for inputs in self.inputs.values() for ids in inputs),
            vocabulary=vocabulary,
            classes=vocabulary,
            per_token=True,
            answer_length=1 + max(len(ids) for _, targets in self.ids.values() for ids in targets),
        )

    def examples(self, split: Split) -> Batch:
        """Source ids ``(pairs, length)``; labels are target ids ending with ``EOS``, ``(pairs, answer_length)``."""
        inputs = padded(self.inputs[split], self.spec.length)
        labels = torch.full((inputs.size, self.spec.answer_length or 0), IGNORE_INDEX)
        for row, target in zip(labels, self.ids[split][1], strict=True):
            row[: len(target) + 1] = torch.tensor([*target, EOS])
        decoder_input_ids = torch.full_like(labels, BOS)
        decoder_input_ids[:, 1:] = labels[:, :-1].clamp(min=EOS)
        return inputs._replace(labels=labels, decoder_input_ids=decoder_input_ids)

    def contents(self, split: Split) -> Sequence[str]:
        """The source sentences; ids would be equal where different rare words are unknown."""
        return [pair.source for pair in self.pairs[split]]

    def text(self, ids: Tensor) -> str:
        """The target sentence of ids ``(n,)``, up to the end of sequence."""
        tokens = ids.tolist()
        tokens = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
        return self.encoder.decode([token - FIRST for token in tokens if token >= FIRST])

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Generate translations of full length, ``(batch, answer_length)``."""
        generated: Tensor = network.generate(batch, self.spec.answer_length, ignore_eos=True)  # type: ignore[operator]
        return generated

    def baselines(self) -> Sequence[nn.Module] | None:
        """Copying the source, and the translation of the most similar training sentence."""
        return (CopiedSource(), NearestPair())

    def eval_step(self, network: nn.Module, batch: Batch) -> list[tuple[str, str]]:
        """Translations and their references. How long a translation may get does not depend on its reference."""
        generated = network.generate(batch, self.spec.answer_length)  # type: ignore[operator]
        return [(self.text(ids), self.text(label)) for ids, label in zip(generated, batch.labels, strict=True)]

    def compute_objective(self, outputs: Sequence[list[tuple[str, str]]]) -> float:
        """BLEU alone."""
        return bleu(outputs)

    def compute_metrics(self, outputs: Sequence[list[tuple[str, str]]]) -> dict[str, float]:
        """See :func:`~spaces.tasks.sources.translation_metrics.bleu_and_others`."""
        return bleu_and_others(outputs)


def _shifted(ids: Sequence[int]) -> list[int]:
    """``ids`` after ``BOS`` and ``EOS``."""
    return [FIRST + number for number in ids]
