"""Machine translation: a sentence of one language in, the same of another out, judged by BLEU.

Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002, and Popovic, "chrF: character
n-gram F-score for automatic MT evaluation", 2015, both as sacrebleu counts them (Post, "A Call for Clarity in Reporting
BLEU Scores", 2018). By default the languages are made up, see :mod:`spaces.tasks.synthetic.language_pair`.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from spaces.tasks import BOS, EOS, IGNORE_INDEX, SPLITS, Batch, Split, Task, TaskSpec, check_whole
from spaces.tasks.sources import parallel_texts
from spaces.tasks.sources.parallel_texts import Pair
from spaces.tasks.synthetic import language_pair

log = logging.getLogger(__name__)
UNK = 2  # the id of a word that training has too seldom
FIRST = 3  # the id of the first word, or byte


class Translation(Task):
    """BLEU of greedy translations, 0 to 100; chrF beside it.

    What is timed is the translation of one sentence of full length, token by token.

    Args:
        folder: holds ``train.SOURCE`` and ``train.TARGET``, a sentence a line, and likewise ``validation`` (or
            ``valid``, ``val``, ``dev``) and ``test``; if it has only ``train``, its sentences are dealt out. Null:
            made-up languages.
        source: ending of the files to be translated, such as ``de``.
        target: ending of the files of translations.
        tokens: ``words``, parted by spaces, or ``bytes``.
        words: most words of either language, the commonest in training; the others are one unknown word.
        length: most tokens of a source sentence; pairs with longer ones are left out and counted.
        answer_length: most tokens of a translation, its end counted; likewise.
        clauses: of a made-up sentence at most.
        train: pairs to learn from at most.
        validation: pairs that the search judges by at most.
        test: pairs that the front is reported on at most.
        seed: of the made-up sentences.
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
        check_whole(1, words=words, length=length, clauses=clauses, train=train, validation=validation, test=test)
        check_whole(2, answer_length=answer_length)
        check_whole(0, seed=seed)
        if tokens not in ("words", "bytes"):
            raise ValueError(f"tokens={tokens!r}: it must be words or bytes")
        if folder is not None and not (source and target):
            raise ValueError(
                "source, target: with a folder, name the endings of its files, such as source=de target=en"
            )
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder and not self.folder.is_dir():
            raise ValueError(f"folder={folder!r}: no such folder")
        self.endings = (str(source), str(target))
        self.tokens, self.words, self.clauses, self.seed = tokens, words, clauses, seed
        self.length, self.answer_length = length, answer_length
        self.most: Mapping[Split, int] = {"train": train, "validation": validation, "test": test}

    @cached_property
    def pairs(self) -> dict[Split, list[Pair]]:
        """All pairs by split."""
        return self._made_up() if self.folder is None else self._read(self.folder)

    @cached_property
    def vocabularies(self) -> tuple[list[str], list[str]]:
        """The words of source and target, the commonest in training first; empty where tokens are bytes."""
        if self.tokens == "bytes":
            return [], []
        columns = zip(*self.pairs["train"], strict=True)
        counts = (Counter(word for sentence in column for word in sentence.split()) for column in columns)
        source, target = ([word for word, _ in count.most_common(self.words)] for count in counts)
        return source, target

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """Ids are of words or bytes, from ``FIRST`` on."""
        source, target = (FIRST + (len(words) or 256) for words in self.vocabularies)
        return TaskSpec(
            length=self.length,
            vocabulary=source,
            classes=target,
            per_token=True,
            answer_length=self.answer_length,
        )

    def _made_up(self) -> dict[Split, list[Pair]]:
        drawn: set[str] = set()
        pairs: dict[Split, list[Pair]] = {}
        for split in SPLITS:
            generator = random.Random(f"{self.seed} {split}")
            pairs[split] = []
            while len(pairs[split]) < self.most[split]:
                sentence = language_pair.draw(generator, generator.randint(1, self.clauses))
                pair = Pair(language_pair.source(sentence), language_pair.target(sentence))
                # Short sentences come up often: those that another split has are drawn anew, copies within one too.
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
                told = f"{len(pairs) - len(fitting)} of {len(pairs)} {split} pairs"
                log.warning("skipped %s: empty, or beyond length or answer_length", told)
            kept[split] = fitting[: self.most[split]]
        return kept

    def _fits(self, pair: Pair) -> bool:
        source, target = (len(sentence.split() if self.tokens == "words" else sentence.encode()) for sentence in pair)
        return source <= self.length and target < self.answer_length

    def examples(self, split: Split) -> Batch:
        """Source ids ``(pairs, length)``; as labels the target's, closed by ``EOS``, ``(pairs, answer_length)``."""
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

    def _ids(self, sentence: str, numbers: Mapping[str, int]) -> list[int]:
        if self.tokens == "bytes":
            return [FIRST + byte for byte in sentence.encode()]
        return [numbers.get(word, UNK) for word in sentence.split()]

    def text(self, ids: Tensor) -> str:
        """The sentence of the target language that ids ``(n,)`` say before their end."""
        said = ids.tolist()
        said = said[: said.index(EOS)] if EOS in said else said
        if self.tokens == "bytes":
            return bytes(max(0, number - FIRST) for number in said if number >= FIRST).decode(errors="replace")
        words = self.vocabularies[1]
        return " ".join(words[number - FIRST] if number >= FIRST else "?" for number in said if number != BOS)

    def predict(self, network: nn.Module, batch: Batch) -> Tensor:
        """Write as long a translation as there may be, ``(batch, answer_length)``."""
        written: Tensor = network.generate(batch, self.answer_length, ignore_eos=True)  # type: ignore[operator]
        return written

    def eval_step(self, network: nn.Module, batch: Batch) -> list[tuple[str, str]]:
        """Translations and what they should have been."""
        written = network.generate(batch, batch.labels.shape[1] + 4)  # type: ignore[operator]
        return [(self.text(ids), self.text(label)) for ids, label in zip(written, batch.labels, strict=True)]

    def compute_metrics(self, judged: Sequence[list[tuple[str, str]]]) -> dict[str, float]:
        """BLEU and chrF of the whole corpus, and the share of sentences that are right to the word."""
        import sacrebleu  # slow to import, and needed by this task alone

        said, meant = zip(*(pair for pairs in judged for pair in pairs), strict=True)
        return {
            "bleu": sacrebleu.corpus_bleu(said, [meant], force=True).score,
            "chrf": sacrebleu.corpus_chrf(said, [meant]).score,
            "exact": sum(a == b for a, b in zip(said, meant, strict=True)) / len(said),
        }
