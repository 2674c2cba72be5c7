"""Texts with labels from a Hugging Face data set: one of the hub, or a local copy.

Lhoest et al., "Datasets: A Community Library for Natural Language Processing", 2021. The library is an extra of its
own, ``pip install 'paretoformer[huggingface]'``; what it fetches it keeps, so that a second run needs no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spaces.tasks import Split
from spaces.tasks.sources.labelled_texts import LabelledTexts, Row, Source, arrow_rows, check_columns


class HuggingFace(LabelledTexts):
    """Fraction of texts whose label is told.

    Args:
        dataset: its name on the hub, such as ``stanfordnlp/imdb``; a folder that ``save_to_disk`` wrote; or a folder of
            files that the library can read.
        subset: of a data set that has several; the library calls it ``name``.
        text: name of the column of texts.
        label: name of the column of labels: words, whole numbers or the data set's own classes.
        train_split: the data set's split to learn from.
        validation_split: its split to judge by; null: a tenth of ``train_split``.
        test_split: its split that the front is reported on; null: another tenth.
        length: bytes at most; longer texts are cut, and their share is told.
        classes: at most; those with the most texts are kept, and what is left out is told.
        train: texts to learn from at most.
        validation: texts that the search judges by at most.
        test: texts that the front is reported on at most.
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
        length: int = 512,
        classes: int = 20,
        train: int = 2000,
        validation: int = 500,
        test: int = 1000,
    ) -> None:
        super().__init__(
            text=text, label=label, length=length, classes=classes, train=train, validation=validation, test=test
        )
        if dataset is None:
            raise ValueError("dataset=None: name one of the hub, such as stanfordnlp/imdb, or a folder that holds one")
        self.dataset, self.subset = dataset, subset
        splits: dict[Split, str | None] = {"train": train_split, "validation": validation_split, "test": test_split}
        self.splits = {split: name for split, name in splits.items() if name is not None}

    def sources(self) -> Mapping[Split, Source]:
        """A split of the data set each."""
        there = self._load()
        for split, name in self.splits.items():
            if name not in there:
                raise ValueError(
                    f"{split}_split={name!r}: {self.dataset} has no such split; there are {', '.join(there)}"
                )
        return {
            split: Source(f"{self.dataset}, {name}", self._read(there[name], f"{self.dataset}, {name}"))
            for split, name in self.splits.items()
        }

    def _load(self) -> Mapping[str, Any]:
        """The data set's splits by name."""
        try:
            import datasets  # slow to import, and needed by this task alone
        except ImportError as error:
            raise ValueError("datasets is not installed: pip install 'paretoformer[huggingface]'") from error
        folder = Path(self.dataset).expanduser()
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        if saved and self.subset is not None:
            raise ValueError(f"subset={self.subset!r}: {self.dataset} was saved to disk, and has none; write null")
        try:
            if saved:
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(str(folder) if folder.is_dir() else self.dataset, self.subset)
        except Exception as error:  # of the hub, the network, the file system or any of the library's readers
            raise ValueError(f"dataset={self.dataset!r}: {error or type(error).__name__}") from error
        return found if isinstance(found, Mapping) else {self.splits["train"]: found}

    def _read(self, rows: Any, source: str) -> Iterator[Row]:
        check_columns(rows.column_names, source=source, text=self.text, label=self.label)
        names = getattr(rows.features[self.label], "names", None)
        batches = rows.select_columns([self.text, self.label]).with_format("arrow").iter(batch_size=1000)
        for row in arrow_rows(batches, text=self.text, label=self.label):
            yield row if names is None else row._replace(label=_class_name(names, row.label))


def _class_name(names: list[str], number: object) -> str | None:
    """None where a data set's class is not told, which it marks by -1."""
    return names[number] if isinstance(number, int) and number >= 0 else None
