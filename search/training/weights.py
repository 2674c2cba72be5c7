"""The weights of complete trials as safetensors files, of which those of the front are kept.

Files are written as a whole or not at all, and reading one cannot run code.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from search.costs.remeasure import near_front
from search.study.records import Objectives, Record, State, front
from search.training.checkpoint import write_atomically
from spaces.architecture import key
from spaces.dimensions import ConfigError

log = logging.getLogger(__name__)
SUFFIX = ".safetensors"
MEGABYTE = 10**6


@dataclass(frozen=True)
class WeightsFolder:
    """A file ``NUMBER.safetensors`` per trial of a study."""

    folder: Path

    def path(self, number: int) -> Path:
        """The file of a trial."""
        return self.folder / f"{number}{SUFFIX}"

    def write(self, number: int, weights: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> str:
        """Write the weights of a trial, with its architecture beside them; return the absolute path."""
        path = self.path(number).absolute()
        write_weights(path, weights, architecture)
        return str(path)

    def trim(self, records: Sequence[Record], objectives: Objectives, *, megabytes: float | None) -> list[int]:
        """Remove the files of trials that are neither on the front nor near it, then those beyond ``megabytes``.

        Near the front are trials that may come onto it when latencies are measured again. Where not all fit, those of
        the front come first, and of these the ones with the best metric. The files of running trials are left alone.

        Args:
            records: the study's trials.
            objectives: of the study.
            megabytes: of all files; None for no limit.

        Returns:
            The numbers of the front's members whose files were removed.
        """
        known = {record.number: record for record in records if record.state != State.RUNNING}
        files = {number: path for number, path in self._files() if number in known}
        members = {member.number for member in front(records, objectives)}
        ordered = sorted(files, key=lambda number: _priority(known[number], members, objectives))
        left, dropped = float("inf") if megabytes is None else megabytes * MEGABYTE, list[int]()
        for number in ordered:
            with suppress(FileNotFoundError):  # another worker was faster
                size = files[number].stat().st_size
                if size <= left and (number in members or near_front(known[number], records, objectives)):
                    left -= size
                    continue
                files[number].unlink()
                if number in members:
                    dropped.append(number)
        return dropped

    def _files(self) -> Iterator[tuple[int, Path]]:
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.stem.isdecimal():
                yield int(path.stem), path


def _priority(record: Record, members: set[int], objectives: Objectives) -> tuple[bool, float]:
    loss = float("inf") if record.metric is None else objectives.loss(record.metric)
    return record.number not in members, loss


def write_weights(path: Path, weights: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> None:
    """Write the weights of an architecture."""
    write_tensors(path, weights, {"architecture": key(architecture)})


def read_weights(path: Path, architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a safetensors file.

    Raises:
        ConfigError: the file is missing or damaged, or its weights are of another architecture.
    """
    try:
        weights, known = read_tensors(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path}: no readable weights: {error}") from error
    if known.get("architecture") != key(architecture):
        raise ConfigError(f"{path}: its weights are of another architecture")
    return weights


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, with the permissions of any new file."""
    # Copies: the format does not allow tensors that share memory, such as tied embeddings.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(copies, dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a safetensors file, and its metadata.

    Raises:
        OSError: the file is missing.
        safetensors.SafetensorError: it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
