"""Real text from a folder of files: classification by subfolder, or language modelling, scored in bits per byte.

Files, not windows, are split 8:1:1, so that no file is in two splits.
"""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.baselines.ngram import NGram
from spaces.tasks import IGNORE_INDEX, SPLITS, Batch, Split, Task, TaskSpec, check_whole, majority_share, split_sizes
from spaces.tasks.sources.splits import MIN_TO_SPLIT, largest_classes
from spaces.tasks.sources.text_windows import SUFFIXES, File, choose_windows, read_windows, text_files
from spaces.tasks.sources.tokens import Encoder, Ids, LibraryEncoder, TokenSettings, pad_ids, with_tokens


class Text(Task):
    """Accuracy of the subfolder, or bits per byte of the next byte.

    File names and sizes are read at construction, contents at first use.

    Args:
        folder: searched recursively; null: the source code of the Python standard library. Hidden folders and those of
            installed packages are skipped.
        predict: ``label``, the subfolder of ``folder`` that contains the file, or ``next_byte``.
        tokens: what a token is, see :class:`~spaces.tasks.sources.tokens.TokenSettings`; with ``next_byte``, which is
            the next token then, ``bytes``, ``byte_bpe`` or the file of a byte-level tokenizer.
        vocabulary: number of tokens that are learned from train at most, or share of a file's tokens; null: a default.
        lowercase: whether texts are converted to lower case before tokens are learned; null: true.
        length: bytes per window, and tokens at most; the last window of a file may be shorter and is padded.
        generate: with ``next_byte``, the number of bytes at the end of a window that are generated when latency is
            measured, with the others as the prompt; 0 measures one forward pass over the window instead.
        classes: with ``label``, number of subfolders at most; the largest by bytes are kept.
        suffixes: endings of the names of text files.
        train: training windows at most, evenly spaced over all files; with ``label``, equally many per subfolder.
        validation: validation windows at most, likewise.
        test: test windows at most, likewise.
    """

    batch_size = 16

    def __init__(
        self,
        *,
        folder: str | None = None,
        predict: Literal["label", "next_byte"] = "label",
        tokens: str = "bytes",
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        length: int = 512,
        generate: int = 0,
        classes: int = 8,
        suffixes: Sequence[str] = SUFFIXES,
        train: int = 4000,
        validation: int = 800,
        test: int = 1600,
    ) -> None:
        check_whole(2, length=length, classes=classes)
        limits = split_sizes(train=train, validation=validation, test=test)
        if predict not in ("label", "next_byte"):
            raise ValueError(f"predict={predict!r}: it must be label or next_byte")
        if isinstance(suffixes, str) or not suffixes or not all(str(suffix).startswith(".") for suffix in suffixes):
            raise ValueError(f"suffixes={suffixes!r}: it must be a list of endings such as .txt")
        check_whole(0, generate=generate)
        if generate and predict != "next_byte":
            raise ValueError(f"generate={generate}: only next bytes can be generated; it needs predict=next_byte")
        if generate >= length:
            raise ValueError(f"generate={generate}: with length={length} it must be 0..{length - 1}")
        self.tokens = TokenSettings(tokens, vocabulary, lowercase)
        if predict == "next_byte":
            _check_lossless(self.tokens)
        self._encoders: dict[TokenSettings, Encoder] = {}  # shared with variants, which may differ in length alone
        self._rows: dict[Split, list[tuple[int, bytes]]] = {}  # shared with variants
        self.target, self.generate, self.length, self.window = predict, generate, length, length
        self.folder = Path(sysconfig.get_path("stdlib") if folder is None else folder).expanduser()
        if not self.folder.is_dir():
            raise ValueError(f"folder={str(self.folder)!r}: no such folder")
        files = sorted(text_files(self.folder, tuple(suffix.lower() for suffix in suffixes)))
        if not files:
            raise ValueError(f"folder={str(self.folder)!r}: no files ending in {', '.join(suffixes)}; see suffixes")
        self.subfolders = self._largest_subfolders(files, classes) if predict == "label" else ()
        groups = [[file for file in files if file.name.startswith(f"{name}/")] for name in self.subfolders] or [files]
        unlabelled = predict == "next_byte"  # the last byte of a file has no next one, so no window starts there
        self.windows = {
            split: choose_windows(self.folder, groups, split, length, limits[split], end=int(unlabelled))
            for split in SPLITS
        }
        if predict == "next_byte":
            self.metric, self.direction, self.best = "bits_per_byte", "minimize", 0.0
            self.chance = 8.0  # a uniform distribution over all bytes
        else:
            self.chance = majority_share(window.label for window in self.windows["validation"])

    @cached_property
    def spec(self) -> TaskSpec:  # type: ignore[override]
        """Of bytes, or of the tokens of the longest window, at most ``length``."""
        length, vocabulary, kept = self.length, 256, None
        if self.tokens.tokens != "bytes":
            longest = max(len(ids) for texts in self.ids.values() for ids in texts)
            length = min(length, max(1, longest - (self.target == "next_byte")))
            vocabulary, kept = self.encoder.vocabulary, self.encoder.kept_ids
        if self.target == "next_byte":
            return TaskSpec(length=length, vocabulary=vocabulary, classes=vocabulary, per_token=True, causal=True)
        classes = len(self.subfolders)
        return TaskSpec(length=length, vocabulary=vocabulary, classes=classes, per_token=False, kept_ids=kept)

    def with_input(
        self,
        *,
        tokens: str | None = None,
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        special_tokens: bool | None = None,
        length: int | None = None,
    ) -> Text:
        """The same windows as other tokens, or cut to the first ``length``; what is not given stays."""
        varied = self.tokens.varied(tokens, vocabulary, lowercase, special_tokens)
        if self.target == "next_byte":
            _check_lossless(varied)
            if length is not None:
                raise ValueError(f"length={length}: with predict=next_byte it is that of the task, task.length")
        return with_tokens(self, varied, length)

    def _largest_subfolders(self, files: Sequence[File], classes: int) -> tuple[str, ...]:
        sizes: dict[str, list[int]] = {}
        for file in files:
            if "/" in file.name:
                sizes.setdefault(file.name.split("/")[0], []).append(file.size)
        enough = [name for name in sizes if len(sizes[name]) >= MIN_TO_SPLIT]
        if len(enough) < 2:
            raise ValueError(
                f"folder={str(self.folder)!r}: predict=label needs two subfolders or more with at least {MIN_TO_SPLIT} "
                "text files each; predict=next_byte needs no subfolders"
            )
        return largest_classes({name: sum(sizes[name]) for name in enough}, classes)

    def rows(self, split: Split) -> list[tuple[int, bytes]]:
        """The label and the bytes of each window, and the byte after it if there is one; read at first use."""
        if split not in self._rows:
            self._rows[split] = read_windows(self.folder, self.windows[split], self.window + 1, split)
        return self._rows[split]

    @cached_property
    def ids(self) -> dict[Split, list[Ids]]:
        """The token ids of each window."""
        return {split: self.encoder.encode(self._texts(split)) for split in SPLITS}

    @cached_property
    def encoder(self) -> Encoder:
        """Learned from the training windows."""
        if self.tokens not in self._encoders:
            encoder = self.tokens.encoder(self._texts("train"))
            if self.target == "next_byte" and isinstance(encoder, LibraryEncoder):
                encoder.check_lossless()
            self._encoders[self.tokens] = encoder
        return self._encoders[self.tokens]

    def _texts(self, split: Split) -> list[str]:
        size = self.window + (self.target == "next_byte")
        return [content[:size].decode(errors="ignore") for _, content in self.rows(split)]

    def examples(self, split: Split) -> Batch:
        """Token ids ``(windows, length)``; labels ``(windows,)``, or ``(windows, length)`` for the next token."""
        rows, length = self.rows(split), self.spec.length
        if self.tokens.tokens == "bytes":  # also of a character that is cut at the end of a window
            ids = [np.frombuffer(content, np.uint8).astype(np.int32) for _, content in rows]
        else:
            ids = self.ids[split]
        if self.target == "label":
            labels = torch.tensor([label for label, _ in rows])
            return pad_ids([self.encoder.truncate(each, length) for each in ids], length, labels)
        following = torch.full((len(rows), length), IGNORE_INDEX)
        for row, each in zip(following, ids, strict=True):
            row[: len(each) - 1] = torch.from_numpy(each[1:])
        return pad_ids([each[:length] for each in ids], length, following)

    def predict(self, network: nn.Module, batch: Batch) -> Any:
        """A forward pass, or a prompt with ``generate`` new bytes after it, ``(batch, length)``."""
        if not self.generate:
            return super().predict(network, batch)
        if not hasattr(network, "generate"):
            raise ValueError(
                f"generate={self.generate}: it needs a model that can generate, such as spaces.models.decoder.Decoder"
            )
        prompt = batch.inputs[:, : max(1, batch.inputs.shape[1] - self.generated_tokens)]
        generated: Tensor = network.generate(prompt, self.generated_tokens)  # type: ignore[operator]
        return generated

    @cached_property
    def generated_tokens(self) -> int:
        """The number of tokens of ``generate`` bytes on average."""
        if self.tokens.tokens == "bytes":
            return self.generate
        tokens = sum(map(len, self.ids["train"]))
        size = sum(int(self._bytes_of[torch.from_numpy(ids)].sum()) for ids in self.ids["train"])
        return max(1, round(self.generate * tokens / size))

    @cached_property
    def _bytes_of(self) -> Tensor:
        """The number of bytes of each token."""
        if isinstance(self.encoder, LibraryEncoder):
            return torch.from_numpy(self.encoder.bytes_per_token)
        return torch.ones(self.encoder.vocabulary, dtype=torch.int32)

    def baselines(self) -> Sequence[nn.Module] | None:
        """An n-gram model for the next byte."""
        return (NGram(),) if self.spec.per_token else super().baselines()

    def eval_step(self, network: nn.Module, batch: Batch) -> Any:
        """Predictions; or the sum of bits over the next tokens, and the number of their bytes."""
        if not self.spec.per_token:
            return super().eval_step(network, batch)
        logits = network(batch).flatten(0, -2)
        nats = F.cross_entropy(logits, batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        following = batch.labels[batch.labels != IGNORE_INDEX]
        return nats.item() / math.log(2), int(self._bytes_of[following.cpu()].sum())


def _check_lossless(tokens: TokenSettings) -> None:
    if tokens.tokens not in ("bytes", "byte_bpe") and not tokens.of_file:
        raise ValueError(
            f"tokens={tokens.tokens!r}: with predict=next_byte they are bytes, byte_bpe or a tokenizer.json"
        )
    if tokens.special_tokens or (tokens.of_file and tokens.vocabulary not in (None, 1)):
        raise ValueError(
            "special_tokens, vocabulary: with predict=next_byte a tokenizer file is used as it is; write null"
        )
