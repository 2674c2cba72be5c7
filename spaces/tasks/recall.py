"""Associative recall over short and long distances, plus classification of the whole row; generated.

After multi-query associative recall (Arora et al., "Zoology", 2023, section 4). A row consists of slots of two tokens
in random order, each of one kind:

* *fact*: a key, then its value, several times for each of the row's key-value pairs; the label of the key is its value;
* *query*: the key of a fact, then noise; the label is its value. A share of the queries is about the nearest fact, the
  others about a random pair, so that local attention solves the first and only global attention the second;
* *marker*: a token of the row's topic (for a tenth of the markers, of a random topic), then noise; no label;
* *topic query*, then noise; the label is the topic with the most markers, for which an average over the row suffices;
* noise; no label.

Facts are before and after their queries: this is a task for encoders.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spaces.tasks import IGNORE_INDEX, Batch, Split, Task, TaskSpec, check_whole, split_generator, split_sizes

# Maximal shares of a row's slots; the rest is noise. Measured: with one fact per pair instead of four, or without
# labels at the facts themselves, small models need several times as much training; with fewer markers, low-rank
# attention does not learn the topic in that time.
FACTS, QUERIES, MARKERS, TOPIC_QUERIES = 1 / 4, 3 / 10, 1 / 5, 1 / 8
RANDOM_MARKERS = 1 / 10  # share of the markers


class Recall(Task):
    """Accuracy over all labels of all rows.

    Args:
        length: tokens per row, at least 16.
        pairs: maximal number of key-value pairs per row; the number is uniform between half of it and it.
        repeats: facts per pair; ``pairs * repeats`` facts must fit into a quarter of the row's slots.
        keys: number of distinct keys, at least ``pairs``.
        answers: number of distinct values, and of topics.
        noise: number of distinct noise tokens.
        near: share of the queries about the nearest fact, 0..1.
        train: training rows.
        validation: validation rows.
        test: test rows.
        seed: random seed of the rows.
    """

    batch_size = 2  # each row has about 155 labels

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
        check_whole(1, pairs=pairs, repeats=repeats, noise=noise)
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
        self.sizes = split_sizes(train=train, validation=validation, test=test)
        # Token ids: noise, keys, values, markers, and the topic query.
        self.first_key, self.first_value = noise, noise + keys
        self.first_marker = self.first_value + answers
        self.topic_query = self.first_marker + answers
        self.spec = TaskSpec(length=length, vocabulary=self.topic_query + 1, classes=answers, per_token=True)
        self.chance = 1 / answers  # values and topics are drawn uniformly

    def examples(self, split: Split) -> Batch:
        """Rows ``(rows, length)``; ``labels`` are values or topics, 0..answers-1."""
        generator = split_generator(self.seed, split)
        rows, slots = self.sizes[split], self.slots

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        inputs = draw(self.noise, rows, self.spec.length)
        labels = torch.full_like(inputs, IGNORE_INDEX)
        counts = [self.pairs * self.repeats, *(int(share * slots) for share in (QUERIES, MARKERS, TOPIC_QUERIES))]
        places = uniform(rows, slots).argsort(1)[:, : sum(counts)]
        facts, queries, markers, topic_queries = places.split(counts, dim=1)

        keys = self.first_key + uniform(rows, self.keys).argsort(1)[:, : self.pairs]
        values = draw(self.answers, rows, self.pairs)
        present = self.pairs - draw(self.pairs // 2 + 1, rows, 1)  # pairs in this row

        # The facts of absent pairs remain noise.
        pair_of_fact = (torch.arange(facts.shape[1]) % self.pairs).expand(rows, -1)
        is_present = pair_of_fact < present
        inputs.scatter_(
            1, 2 * facts, torch.where(is_present, keys.gather(1, pair_of_fact), inputs.gather(1, 2 * facts))
        )
        fact_values = values.gather(1, pair_of_fact)
        seconds = inputs.gather(1, 2 * facts + 1)
        inputs.scatter_(1, 2 * facts + 1, torch.where(is_present, self.first_value + fact_values, seconds))
        labels.scatter_(1, 2 * facts, torch.where(is_present, fact_values, IGNORE_INDEX))

        pair_at = torch.full((rows, slots), -1).scatter_(1, facts, torch.where(is_present, pair_of_fact, -1))
        any_pair = (uniform(*queries.shape) * present).long()
        is_near = uniform(*queries.shape) < self.near
        queried = torch.where(is_near, _nearest(pair_at).gather(1, queries), any_pair)
        inputs.scatter_(1, 2 * queries, keys.gather(1, queried))
        labels.scatter_(1, 2 * queries, values.gather(1, queried))

        topic = draw(self.answers, rows, 1)
        random_topics = draw(self.answers, rows, int(RANDOM_MARKERS * markers.shape[1]))
        topics = torch.cat([random_topics, topic.expand(-1, markers.shape[1] - random_topics.shape[1])], dim=1)
        inputs.scatter_(1, 2 * markers, self.first_marker + topics)
        inputs.scatter_(1, 2 * topic_queries, self.topic_query)
        labels.scatter_(1, 2 * topic_queries, topic.expand_as(topic_queries))
        return Batch(inputs, None, labels)


def _nearest(pair_at: Tensor) -> Tensor:
    """The pair of the nearest fact of each slot, the left one of two; ``pair_at`` ``(rows, slots)`` is -1 elsewhere."""
    rows, slots = pair_at.shape
    slot = torch.arange(slots).expand(rows, -1)
    fact = pair_at >= 0
    left = torch.where(fact, slot, -slots).cummax(1).values
    right = torch.where(fact, slot, 2 * slots).flip(1).cummin(1).values.flip(1)
    nearest = torch.where(slot - left <= right - slot, left, right)
    return pair_at.gather(1, nearest)
