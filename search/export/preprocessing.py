"""What happens to raw inputs before a network, as plain values for ``inference.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from search.programs.encoders import NEIGHBOURS
from search.programs.interface import is_language_model
from spaces.tasks import BOS, EOS, Task
from spaces.tasks.arrays import Arrays
from spaces.tasks.asr_recordings import AsrRecordings
from spaces.tasks.cifar10 import Cifar10
from spaces.tasks.digits import Digits
from spaces.tasks.images import Images
from spaces.tasks.recordings import Recordings
from spaces.tasks.sources.labelled_texts import LabelledTexts
from spaces.tasks.sources.pair_tokens import Subwords, Words
from spaces.tasks.sources.tokens import LibraryEncoder
from spaces.tasks.sources.transcription import Transcription
from spaces.tasks.text import Text
from spaces.tasks.translation import FIRST, Translation

IMAGES = (Images, Cifar10, Digits, Arrays)  # tasks whose tokens are those of their grid


def preprocessing(task: Task) -> tuple[dict[str, Any], str | None]:
    """The settings of ``inference.py``, and the content of ``tokenizer.json`` if there is one."""
    spec, tokenizer = task.spec, None
    settings: dict[str, Any] = {
        "kind": "tokens",
        "class_names": [str(name) for name in task.class_names] or [str(number) for number in range(spec.classes)],
        "per_token": spec.per_token,
        "vocabulary": spec.vocabulary,
        "features": spec.features,
        "language_model": is_language_model(task),
    }
    if isinstance(task, Translation):
        pair_tokens = task.encoder
        settings |= {"kind": "text", "class_names": [], "first_id": FIRST, "tokens": "bytes"}
        if isinstance(pair_tokens, Words):
            settings |= {"tokens": "words", "words": "\n".join(pair_tokens.words)}
        elif isinstance(pair_tokens, Subwords):
            tokenizer = pair_tokens.file
            settings |= {"tokens": "tokenizer.json", "special_tokens": False}
        if task.neighbours:
            longest = max(len(ids) for sources, _ in task.ids.values() for ids in sources)
            settings |= {"neighbours": task.neighbours, "separators": [BOS, EOS], "source_length": longest}
    elif isinstance(task, Transcription):
        settings |= {"class_names": [], "alphabet": task.alphabet}
        if isinstance(task, AsrRecordings):
            settings |= {"kind": "audio", "rate": task.rate}
    elif isinstance(task, LabelledTexts | Text):
        encoder = task.encoder if isinstance(task.encoder, LibraryEncoder) else None
        tokenizer = None if encoder is None else encoder.file
        settings |= {"kind": "text", "tokens": "bytes" if tokenizer is None else "tokenizer.json"}
        settings["special_tokens"] = task.tokens.special_tokens
        if encoder is not None and encoder.kept_ids is not None:  # as text, as each number would get a line of its own
            settings["kept_ids"] = " ".join(map(str, encoder.kept_ids))
            settings["unknown_id"] = encoder.unknown_id
    elif isinstance(task, IMAGES) and task.grid is not None:
        grid = task.grid
        settings |= {"kind": "image", "height": grid.height, "width": grid.width, "channels": grid.channels}
        settings |= {"patch": grid.patch, "levels": grid.levels}
    elif isinstance(task, Recordings):
        settings |= {"kind": "audio", "rate": task.rate}
    return settings, tokenizer


def write_training_pairs(task: Translation, folder: Path) -> None:
    """Write the ids of the training pairs, among which similar sources are looked up."""
    arrays: dict[str, Any] = {}
    for name, rows in zip(("sources", "targets"), task.ids["train"], strict=True):
        arrays[name] = np.concatenate([np.asarray(row, np.int32) for row in rows])
        arrays[f"{name}_ends"] = np.cumsum([len(row) for row in rows])
    np.savez_compressed(folder / NEIGHBOURS, **arrays)
