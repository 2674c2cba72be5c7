"""Examples in memory-mapped files, compared with the same examples as one batch."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from spaces.tasks import Batch
from spaces.tasks.sources import stored
from spaces.tasks.sources.cache import cache_folder
from spaces.tasks.sources.stored import Chunk, StoredExamples, cache_name, stored_examples

LENGTHS = np.array([3, 1, 5, 2, 5, 4])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(features: tuple[int, ...], dtype: str) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(256, size=(length, *features)).astype(dtype) for length in LENGTHS]


def chunks(examples: list[np.ndarray], size: int) -> Iterator[Chunk]:
    for at in range(0, len(examples), size):
        part = examples[at : at + size]
        labels = np.arange(at, at + len(part)) % 3
        yield Chunk(np.concatenate(part), np.array([len(each) for each in part]), labels)


def store(chunks: Iterator[Chunk]) -> StoredExamples:
    return stored_examples("a", lambda: chunks)


@pytest.mark.parametrize(("features", "dtype"), [((), "uint8"), ((), "uint16"), ((), "uint32"), ((12,), "float32")])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_selected_examples_are_those_of_one_batch(features: tuple[int, ...], dtype: str, size: int) -> None:
    examples = rows(features, dtype)
    inputs = torch.zeros(6, 5, *features, dtype=torch.float32 if features else torch.int64)
    for row, each in zip(inputs, examples, strict=True):
        row[: len(each)] = torch.from_numpy(each.astype(np.int64))
    padding = torch.arange(5) >= torch.from_numpy(LENGTHS)[:, None]
    batch = Batch(inputs, padding, torch.arange(6) % 3)
    found = store(chunks(examples, size))
    assert (found.size, found.length, found.lengths.tolist()) == (6, 5, LENGTHS.tolist())
    for indices in ([0], [5, 0, 3], [2, 4], [1, 1], range(6)):
        selected, expected = (each.select(torch.tensor(indices)).trim_padding() for each in (found, batch))
        real = slice(None) if expected.padding is None else ~expected.padding
        assert torch.equal(selected.inputs[real], expected.inputs[real])
        assert (selected.padding is None) == (expected.padding is None)
        assert torch.equal(selected.labels, expected.labels)


def test_stored_examples_are_found_again_and_nothing_else_is_left(cache: Path) -> None:
    store(chunks(rows((), "uint8"), 2))
    assert torch.equal(store(iter(())).labels, torch.arange(6) % 3)
    assert [path.name for path in cache.iterdir()] == ["a"]


def test_examples_stored_by_another_process_meanwhile_are_used(cache: Path) -> None:
    def slow() -> Iterator[Chunk]:
        store(chunks(rows((), "uint8"), 2))
        yield from chunks(rows((), "uint8"), 6)

    assert store(slow()).size == 6
    assert [path.name for path in cache.iterdir()] == ["a"]


def test_nothing_is_left_if_the_examples_cannot_be_encoded(cache: Path) -> None:
    def failing() -> Iterator[Chunk]:
        yield from chunks(rows((), "uint8"), 6)
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        store(failing())
    assert not list(cache.iterdir())


def test_the_name_depends_on_contents_settings_and_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    for path, content in ((a, "one"), (b, "one"), (c, "two")):
        path.write_text(content)
    first = cache_name([a], {"length": 3})
    assert first == cache_name([b], {"length": 3})
    others = [cache_name([c], {"length": 3}), cache_name([a], {"length": 4}), cache_name([a, b], {"length": 3})]
    monkeypatch.setattr(stored, "FORMAT", stored.FORMAT + 1)
    others.append(cache_name([a], {"length": 3}))
    assert len({first, *others}) == 5


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def store_in_turn(cache: Path, count: int) -> list[StoredExamples]:
    """Entries used 100 s, 90 s, ... ago."""
    found = []
    for at in range(count):
        found.append(stored_examples(NAMES[at], lambda: chunks(rows((), "uint8"), 6)))
        os.utime(cache / NAMES[at], (time.time() - 100 + 10 * at,) * 2)
    return found


NAMES = [letter * 64 for letter in "cbad"]


def test_the_entries_used_the_longest_time_ago_are_removed_beyond_the_limit(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = store_in_turn(cache, 3)
    (cache / "notes").mkdir()
    size = sum(file.stat().st_size for file in (cache / NAMES[0]).iterdir())
    monkeypatch.setenv("PARETOFORMER_CACHE_GB", str(3 * size / 1e9))
    stored_examples(NAMES[0], lambda: pytest.fail("it is stored"))  # and so used last
    stored_examples(NAMES[3], lambda: chunks(rows((), "uint8"), 6))
    assert names(cache) == sorted([NAMES[0], NAMES[2], NAMES[3], "notes"])
    assert torch.equal(mapped[1].select(torch.arange(6)).inputs, mapped[0].select(torch.arange(6)).inputs)
    monkeypatch.setenv("PARETOFORMER_CACHE_GB", "0")
    stored_examples(NAMES[1], lambda: chunks(rows((), "uint8"), 6))
    assert names(cache) == sorted([NAMES[1], "notes"]), "the entry that was just stored is kept"


def test_an_entry_that_another_process_removes_is_stored_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_in_turn(cache, 1)
    opened, used = [], stored.mark_used

    def removed_meanwhile(entry: Path) -> None:
        used(entry)
        if not opened:
            shutil.rmtree(entry)
        opened.append(entry)

    monkeypatch.setattr(stored, "mark_used", removed_meanwhile)
    assert stored_examples(NAMES[0], lambda: chunks(rows((), "uint8"), 6)).size == 6
    assert names(cache) == [NAMES[0]]


def test_only_temporary_folders_of_killed_processes_are_removed(cache: Path) -> None:
    for name, age in (("temporary-old", 2 * 86_400), ("temporary-new", 60)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - age,) * 2)
    store_in_turn(cache, 1)
    assert names(cache) == sorted([NAMES[0], "temporary-new"])


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_an_invalid_limit_is_refused_before_the_work(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE_GB", limit)
    with pytest.raises(ValueError, match=f"PARETOFORMER_CACHE_GB='{limit}': it must be a number of gigabytes from 0"):
        stored_examples(NAMES[0], lambda: pytest.fail("encoded"))


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert cache_folder() == Path(os.environ["PARETOFORMER_CACHE"])
    monkeypatch.delenv("PARETOFORMER_CACHE")
    assert cache_folder() == Path("/there/paretoformer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "paretoformer"
