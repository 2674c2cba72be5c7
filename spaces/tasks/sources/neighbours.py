"""Sources of a translation, augmented by the targets of similar training pairs.

Bulte and Tezcan, "Neural Fuzzy Repair: Integrating Fuzzy Matches into Neural Machine Translation", 2019, where the
matches are by edit distance; by the cosine of vectors Xu et al., "Boosting Neural Machine Translation with Similar
Translations", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from spaces.baselines.nearest import NearestSequences, Rows, with_targets
from spaces.tasks import BOS, EOS, Batch, Split
from spaces.tasks.sources.tokens import pad_ids


def with_neighbours(sources: Mapping[Split, Rows], targets: Rows, count: int) -> dict[Split, list[list[int]]]:
    """Each source, followed by the targets of its neighbours: for each ``BOS``, its tokens, and ``EOS``.

    Args:
        sources: by split.
        targets: of train.
        count: neighbours, the most similar sources of train; those of a source of train are other ones.
    """
    nearest = NearestSequences(sources["train"])
    found = {split: nearest.find(queries, count, others=split == "train") for split, queries in sources.items()}
    return {
        split: [
            with_targets(query, [targets[at] for at in row], (BOS, EOS))
            for query, row in zip(queries, found[split].tolist(), strict=True)
        ]
        for split, queries in sources.items()
    }


def padded(rows: Rows, length: int | None = None) -> Batch:
    """Ids ``(rows, length)``, by default as long as the longest, with a padding mask and empty labels."""
    arrays = [np.asarray(ids, np.int32) for ids in rows]
    return pad_ids(arrays, length or max(map(len, rows)), torch.empty(len(rows)))
