"""Associative recall graded by distance and number of pairs, plus a topic to be told from the whole; generated.

After multi-query associative recall (Arora et al., "Zoology", 2023, section 4). A row is cut into slots of two tokens,
each of one kind, in random order:

* a *fact*: a key, then its value. Each of a row's pairs stands there several times; asked for its value at once;
* a *question*: a key of one of the facts, then noise; asked for that key's value. Part of the questions ask for the
  nearest fact, the others for any pair, so that a window answers the first and only far-reaching attention the second;
* a *marker*: of the row's topic, a tenth of them of any topic, then noise; asked for nothing;
* a *topic question*, then noise; asked which topic has the most markers, which needs no more than an average;
* noise.

Facts stand on either side of their questions: this is a task for encoders.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator

# Shares of a row's slots, at most; the rest is noise. Measured: with pairs shown once instead of four times, or with no
# value asked at the fact itself, small models need several times the training; with fewer markers, low-rank attention
# does not find the topic within it.
FACTS, QUESTIONS, MARKERS, TOPIC_QUESTIONS = 1 / 4, 3 / 10, 1 / 5, 1 / 8
STRAYS = 1 / 10  # of the markers


class Recall(Task):
    """Fraction of right answers over all questions of all rows.

    Args:
        length: tokens in a row, at least 16.
        pairs: most pairs of key and value in a row; each row has between half as many and all, drawn uniformly.
        repeats: facts for each pair; ``pairs * repeats`` facts must fit into a quarter of the row's slots.
        keys: different keys, at least ``pairs``.
        answers: different values, and as many topics.
        noise: different noise tokens.
        near: share of the questions that ask for the nearest fact, 0..1.
        train: rows to learn from.
        validation: rows that the search judges by.
        test: rows that the front is reported on.
        seed: of everything drawn; other seeds, other rows.
    """

    batch_size = 2  # each row asks some 155 questions

    def __init__(
        self,
        *,
        length: int = 512,
        pairs: int = 16,
        repeats: int = 4,
        keys: int = 28,
        answers: int = 8,
        noise: int = 8,
        near: float = 0.35,
        train: int = 80,
        validation: int = 32,
        test: int = 128,
        seed: int = 0,
    ) -> None:
        check_whole(16, length=length)
        check_whole(2, answers=answers)
        check_whole(1, pairs=pairs, repeats=repeats, noise=noise, train=train, validation=validation, test=test)
        check_whole(0, seed=seed)
        slots = length // 2
        room = int(FACTS * slots)
        if pairs * repeats > room:
            raise ValueError(f"pairs={pairs}, repeats={repeats}: with length {length} their product must be 1..{room}")
        check_whole(pairs, keys=keys)
        if not 0 <= near <= 1:
            raise ValueError(f"near={near}: it must be 0..1")
        self.pairs, self.repeats, self.keys, self.answers, self.noise = pairs, repeats, keys, answers, noise
        self.slots, self.near, self.seed = slots, near, seed
        self.rows = {"train": train, "validation": validation, "test": test}
        # Token ids: noise, keys, values, markers, and last the topic question.
        self.first_key, self.first_value = noise, noise + keys
        self.first_marker = self.first_value + answers
        self.topic_question = self.first_marker + answers
        self.spec = TaskSpec(length=length, vocabulary=self.topic_question + 1, classes=answers, per_token=True)
        self.chance = 1 / answers  # every answer is drawn uniformly, so any constant guess scores this

    def examples(self, split: Split) -> Batch:
        """Draw a split; ``labels`` ``(rows, length)`` are answers 0..answers-1, ``IGNORE_INDEX`` where nothing is
        asked."""
        generator = split_generator(self.seed, split)
        rows, slots = self.rows[split], self.slots

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        inputs = draw(self.noise, rows, self.spec.length)
        labels = torch.full_like(inputs, IGNORE_INDEX)
        counts = [self.pairs * self.repeats, *(int(share * slots) for share in (QUESTIONS, MARKERS, TOPIC_QUESTIONS))]
        places = chance(rows, slots).argsort(1)[:, : sum(counts)]
        facts, questions, markers, topic_questions = places.split(counts, dim=1)

        keys = self.first_key + chance(rows, self.keys).argsort(1)[:, : self.pairs]
        values = draw(self.answers, rows, self.pairs)
        present = self.pairs - draw(self.pairs // 2 + 1, rows, 1)  # pairs in this row

        # Facts beyond the row's own number of pairs go where noise is, onto a slot of no other kind.
        pair_of_fact = (torch.arange(facts.shape[1]) % self.pairs).expand(rows, -1)
        stands = pair_of_fact < present
        inputs.scatter_(1, 2 * facts, torch.where(stands, keys.gather(1, pair_of_fact), inputs.gather(1, 2 * facts)))
        fact_values = values.gather(1, pair_of_fact)
        seconds = inputs.gather(1, 2 * facts + 1)
        inputs.scatter_(1, 2 * facts + 1, torch.where(stands, self.first_value + fact_values, seconds))
        labels.scatter_(1, 2 * facts, torch.where(stands, fact_values, IGNORE_INDEX))

        pair_at = torch.full((rows, slots), -1).scatter_(1, facts, torch.where(stands, pair_of_fact, -1))
        any_pair = (chance(*questions.shape) * present).long()
        asks_near = chance(*questions.shape) < self.near
        asked = torch.where(asks_near, _nearest(pair_at).gather(1, questions), any_pair)
        inputs.scatter_(1, 2 * questions, keys.gather(1, asked))
        labels.scatter_(1, 2 * questions, values.gather(1, asked))

        topic = draw(self.answers, rows, 1)
        strays = draw(self.answers, rows, int(STRAYS * markers.shape[1]))
        topics = torch.cat([strays, topic.expand(-1, markers.shape[1] - strays.shape[1])], dim=1)
        inputs.scatter_(1, 2 * markers, self.first_marker + topics)
        inputs.scatter_(1, 2 * topic_questions, self.topic_question)
        labels.scatter_(1, 2 * topic_questions, topic.expand_as(topic_questions))
        return Batch(inputs, None, labels)


def _nearest(pair_at: Tensor) -> Tensor:
    """For each slot the pair of the nearest fact, the left one of two; ``(rows, slots)``, -1 where no fact stands."""
    rows, slots = pair_at.shape
    slot = torch.arange(slots).expand(rows, -1)
    fact = pair_at >= 0
    left = torch.where(fact, slot, -slots).cummax(1).values
    right = torch.where(fact, slot, 2 * slots).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(slot - left <= right - slot, left, right)
    return pair_at.gather(1, nearest)
