"""Machine translation, evaluated by BLEU, on an artificial language pair or on the user's own parallel files.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002, and Popovic, "chrF: character
n-gram F-score for automatic MT evaluation", 2015, both as implemented in sacrebleu (Post, "A Call for Clarity in
Reporting BLEU Scores", 2018). For the artificial languages see :mod:`spaces.tasks.synthetic.language_pair`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.baselines.parallel import CopiedSource, NearestPair
from spaces.tasks import (
    BOS,
    EOS,
    IGNORE_INDEX,
    SPLITS,
    Batch,
    Split,
    Task,
    TaskSpec,
    check_whole,
    split_random,
    split_sizes,
)
from spaces.tasks.sources import parallel_texts
from spaces.tasks.sources.parallel_texts import Pair
from spaces.tasks.synthetic import language_pair

log = logging.getLogger(__name__)
UNK = 2  # the id of unknown words
FIRST = 3  # the id of the first word or byte


class Translation(Task):
    """BLEU of greedy decoding, 0 to 100; chrF and exact matches are reported beside it.

    Latency is that of generating one translation of full length.

    Args:
        folder: contains ``train.SOURCE`` and ``train.TARGET``, one sentence per line, and likewise ``validation`` (or
            ``valid``, ``val``, ``dev``) and ``test``; with ``train`` only, its sentences are split 8:1:1. Null: the
            artificial languages.
        source: file name ending of the source language, such as ``de``.
        target: file name ending of the target language.
        tokens: ``words``, separated by spaces, or ``bytes``.
        words: vocabulary size of each language at most, by frequency in train; other words are unknown.
        length: maximal tokens of a source sentence; pairs with longer ones are skipped with a warning.
        answer_length: maximal tokens of a target sentence including the end of sequence; likewise.
        clauses: maximal number of clauses of an artificial sentence.
        train: training pairs at most.
        validation: validation pairs at most.
        test: test pairs at most.
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
        tokens: Literal["words", "bytes"] = "words",
        words: int = 8000,
        length: int = 48,
        answer_length: int = 48,
        clauses: int = 4,
        train: int = 2000,
        validation: int = 100,
        test: int = 300,
        seed: int = 0,
    ) -> None:
        check_whole(1, words=words, length=length, clauses=clauses)
        check_whole(2, answer_length=answer_length)
        check_whole(0, seed=seed)
        if tokens not in ("words", "bytes"):
            raise ValueError(f"tokens={tokens!r}: it must be words or bytes")
        if folder is not None and not (source and target):
            raise ValueError(
                "source, target: a folder needs the file name endings of its languages, such as source=de target=en"
            )
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder and not self.folder.is_dir():
            raise ValueError(f"folder={folder!r}: no such folder")
        self.endings = (str(source), str(target))
        self.tokens, self.words, self.clauses, self.seed = tokens, words, clauses, seed
        self.length, self.answer_length = length, answer_length
        self.limits = split_sizes(train=train, validation=validation, test=test)

    @cached_property
    def pairs(self) -> dict[Split, list[Pair]]:
        """All pairs by split."""
        return self._generate() if self.folder is None else self._read(self.folder)

    @cached_property
    def vocabularies(self) -> tuple[list[str], list[str]]:
        """The words of source and target by descending frequency in train; empty if tokens are bytes."""
        if self.tokens == "bytes":
            return [], []
        columns = zip(*self.pairs["train"], strict=True)
        counts = (Counter(word for sentence in column for word in sentence.split()) for column in columns)
        source, target = ([word for word, _ in count.most_common(self.words)] for count in counts)
        return source, target

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """Token ids from ``FIRST`` on are words or bytes."""
        source, target = (FIRST + (len(words) or 256) for words in self.vocabularies)
        return TaskSpec(
            length=self.length,
            vocabulary=source,
            classes=target,
            per_token=True,
            answer_length=self.answer_length,
        )

    def _generate(self) -> dict[Split, list[Pair]]:
        drawn: set[str] = set()
        pairs: dict[Split, list[Pair]] = {}
        for split in SPLITS:
            generator = split_random(self.seed, split)
            pairs[split] = []
            while len(pairs[split]) < self.limits[split]:
                sentence = language_pair.draw_sentence(generator, generator.randint(1, self.clauses))
                pair = Pair(language_pair.source_text(sentence), language_pair.target_text(sentence))
                # Short sentences are drawn repeatedly; duplicates within and across splits are rejected.
                if pair.source not in drawn and self._fits(pair):
                    drawn.add(pair.source)
                    pairs[split].append(pair)
        return pairs

    def _read(self, folder: Path) -> dict[Split, list[Pair]]:
        kept: dict[Split, list[Pair]] = {}
        for split, pairs in parallel_texts.read(folder, *self.endings).items():
            fitting = [pair for pair in pairs if pair.source and pair.target and self._fits(pair)]
            if not fitting:
                raise ValueError(f"folder={str(folder)!r}: no {split} pairs that fit length and answer_length")
            if len(fitting) < len(pairs):
                summary = f"{len(pairs) - len(fitting)} of {len(pairs)} {split} pairs"
                log.warning("skipped %s: empty, or longer than length or answer_length", summary)
            kept[split] = fitting[: self.limits[split]]
        return kept

    def _fits(self, pair: Pair) -> bool:
        source, target = (len(sentence.split() if self.tokens == "words" else sentence.encode()) for sentence in pair)
        return source <= self.length and target < self.answer_length

    def examples(self, split: Split) -> Batch:
        """Source ids ``(pairs, length)``; labels are target ids ending with ``EOS``, ``(pairs, answer_length)``."""
        pairs = self.pairs[split]
        inputs = torch.zeros(len(pairs), self.length, dtype=torch.int64)
        padding = torch.ones_like(inputs, dtype=torch.bool)
        labels = torch.full((len(pairs), self.answer_length), IGNORE_INDEX)
        numbers = [{word: FIRST + number for number, word in enumerate(words)} for words in self.vocabularies]
        for row, pair in enumerate(pairs):
            source, target = (self._ids(sentence, numbers[side]) for side, sentence in enumerate(pair))
            inputs[row, : len(source)] = torch.tensor(source)
            padding[row, : len(source)] = False
            labels[row, : len(target) + 1] = torch.tensor([*target, EOS])
        decoder_input_ids = torch.full_like(labels, BOS)
        decoder_input_ids[:, 1:] = labels[:, :-1].clamp(min=EOS)
        return Batch(inputs, padding if padding.any() else None, labels, decoder_input_ids)

    def contents(self, split: Split) -> Sequence[str]:
        """The source sentences; ids would be equal where different rare words are unknown."""
        return [pair.source for pair in self.pairs[split]]

    def _ids(self, sentence: str, numbers: Mapping[str, int]) -> list[int]:
        if self.tokens == "bytes":
            return [FIRST + byte for byte in sentence.encode()]
        return [numbers.get(word, UNK) for word in sentence.split()]

    def text(self, ids: Tensor) -> str:
        """The target sentence of ids ``(n,)``, up to the end of sequence."""
        tokens = ids.tolist()
        tokens = tokens[: tokens.index(EOS)] if EOS in tokens else tokens
        if self.tokens == "bytes":
            return bytes(max(0, token - FIRST) for token in tokens if token >= FIRST).decode(errors="replace")
        words = self.vocabularies[1]
        return " ".join(words[token - FIRST] if token >= FIRST else "?" for token in tokens if token != BOS)

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Generate translations of full length, ``(batch, answer_length)``."""
        generated: Tensor = network.generate(batch, self.answer_length, ignore_eos=True)  # type: ignore[operator]
        return generated

    def baselines(self) -> Sequence[nn.Module] | None:
        """Copying the source, and the translation of the most similar training sentence."""
        return (CopiedSource(self._source_as_target), NearestPair())

    def _source_as_target(self, batch: Batch) -> Tensor:
        """The target ids of the words of each source ``(batch, length + 1)``, filled up with ``EOS``."""
        ids = batch.inputs
        if self.tokens == "words":
            sources, targets = self.vocabularies
            numbers = {word: FIRST + at for at, word in enumerate(targets)}
            known = [numbers.get(word, UNK) for word in sources]
            ids = torch.tensor([*range(UNK), UNK, *known])[ids]
        if batch.padding is not None:
            ids = ids.masked_fill(batch.padding, EOS)
        return F.pad(ids, (0, 1), value=EOS)

    def eval_step(self, network: nn.Module, batch: Batch) -> list[tuple[str, str]]:
        """Translations and their references."""
        generated = network.generate(batch, batch.labels.shape[1] + 4)  # type: ignore[operator]
        return [(self.text(ids), self.text(label)) for ids, label in zip(generated, batch.labels, strict=True)]

    def compute_metrics(self, outputs: Sequence[list[tuple[str, str]]]) -> dict[str, float]:
        """Corpus BLEU and chrF, and the share of exact matches."""
        import sacrebleu  # slow to import, and needed by this task only

        translations, references = zip(*(pair for pairs in outputs for pair in pairs), strict=True)
        return {
            "bleu": sacrebleu.corpus_bleu(translations, [references], force=True).score,
            "chrf": sacrebleu.corpus_chrf(translations, [references]).score,
            "exact": sum(a == b for a, b in zip(translations, references, strict=True)) / len(translations),
        }
