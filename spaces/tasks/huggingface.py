"""Text classification on a Hugging Face data set, from the hub or a local copy.

Lhoest et al., "Datasets: A Community Library for Natural Language Processing", 2021. The library is an optional extra,
``pip install 'paretoformer[huggingface]'``; it caches downloads, so that a second run needs no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spaces.tasks import Split
from spaces.tasks.sources.labelled_texts import LabelledTexts
from spaces.tasks.sources.rows import Row, Source, arrow_rows, check_columns


class HuggingFace(LabelledTexts):
    """Accuracy of text classification.

    Args:
        dataset: name on the hub, such as ``stanfordnlp/imdb``; a folder written by ``save_to_disk``; or a folder of
            files that the library can read.
        subset: configuration of a data set that has several; the library's argument ``name``.
        text: the column of texts.
        label: the column of labels: texts, integers or a ``ClassLabel``.
        train_split: the data set's split for training.
        validation_split: its split for validation; null: a tenth of ``train_split``.
        test_split: its split for testing; null: another tenth.
        tokens: see :class:`~spaces.tasks.sources.tokens.TokenSettings`.
        vocabulary: number of tokens that are learned from train at most, 8192 if null; or share of a file's tokens.
        lowercase: whether texts are converted to lower case before tokens are learned; null: true.
        length: tokens of a text at most; longer texts are truncated, and their share is logged.
        classes: number of classes at most; the largest are kept, and the omitted ones are logged.
        train: training examples at most.
        validation: validation examples at most.
        test: test examples at most.
    """

    def __init__(
        self,
        *,
        dataset: str | None = None,
        subset: str | None = None,
        text: str = "text",
        label: str = "label",
        train_split: str = "train",
        validation_split: str | None = None,
        test_split: str | None = None,
        tokens: str = "bytes",
        vocabulary: float | None = None,
        lowercase: bool | None = None,
        length: int = 512,
        classes: int = 20,
        train: int = 20_000,
        validation: int = 2000,
        test: int = 5000,
    ) -> None:
        super().__init__(
            text=text,
            label=label,
            tokens=tokens,
            vocabulary=vocabulary,
            lowercase=lowercase,
            length=length,
            classes=classes,
            train=train,
            validation=validation,
            test=test,
        )
        if dataset is None:
            raise ValueError(
                "dataset=None: name a data set of the hub, such as stanfordnlp/imdb, or a folder that contains one"
            )
        self.dataset, self.subset = dataset, subset
        splits: dict[Split, str | None] = {"train": train_split, "validation": validation_split, "test": test_split}
        self.splits = {split: name for split, name in splits.items() if name is not None}

    def sources(self) -> Mapping[Split, Source]:
        """The splits of the data set."""
        available = self._load()
        for split, name in self.splits.items():
            if name not in available:
                known = ", ".join(available)
                raise ValueError(f"{split}_split={name!r}: {self.dataset} has no such split; there are {known}")
        return {
            split: Source(f"{self.dataset}, {name}", self._read(available[name], f"{self.dataset}, {name}"))
            for split, name in self.splits.items()
        }

    def _load(self) -> Mapping[str, Any]:
        """The data set's splits by name."""
        try:
            import datasets  # slow to import, and needed by this task only
        except ImportError as error:
            raise ValueError("datasets is not installed: pip install 'paretoformer[huggingface]'") from error
        folder = Path(self.dataset).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        if saved and self.subset is not None:
            raise ValueError(
                f"subset={self.subset!r}: {self.dataset} was written by save_to_disk and has no subsets; write null"
            )
        try:
            if saved:
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(str(folder) if folder.is_dir() else self.dataset, self.subset)
        except Exception as error:  # any error of the hub, the network, the file system or a reader
            raise ValueError(f"dataset={self.dataset!r}: {error or type(error).__name__}") from error
        return found if isinstance(found, Mapping) else {self.splits["train"]: found}

    def _read(self, rows: Any, source: str) -> Iterator[Row]:
        check_columns(rows.column_names, source=source, text=self.text, label=self.label)
        names = getattr(rows.features[self.label], "names", None)
        batches = rows.select_columns([self.text, self.label]).with_format("arrow").iter(batch_size=1000)
        for row in arrow_rows(batches, [self.text, self.label]):
            yield row if names is None else row._replace(label=_class_name(names, row.label))


def _class_name(names: list[str], number: object) -> str | None:
    """The name of a class, None for a missing label, which the library stores as -1."""
    return names[number] if isinstance(number, int) and number >= 0 else None
