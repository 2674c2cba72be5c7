"""The library: a trained parent network, and the weights and the damage of each replacement of a sub-block.

Each replacement is trained to return what the parent's sub-block returns for the parent's own hidden states, by the
mean squared error relative to the mean square of the outputs, without padding. Of the untrained and the trained weights
those with less damage are kept. Damage is the mean Kullback-Leibler divergence of the whole network's predictions from
the parent's. All of it is stored in files as it is finished, so that it can be resumed and shared by workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from search.compress.blockwise import Inputs, active_neurons, copy_rest, distill, divergence, labelled
from search.compress.options import Options, Replacement
from search.compress.teacher import predictions
from search.training.weights import read_tensors, write_tensors
from spaces.build import build, task_of
from spaces.models.block import Block
from spaces.models.inheritance import copy_matching, inherit, inherit_attention, keep_neurons
from spaces.models.network import BlockNetwork
from spaces.models.sparsity import DENSE, prune
from spaces.tasks import Batch, Split, Task

log = logging.getLogger(__name__)
BATCH_SIZE = 8  # examples a step of blockwise distillation
EVAL_BATCH = 32


@dataclass(frozen=True)
class Entry:
    """A replacement that is ready to be used."""

    damage: float  # Kullback-Leibler divergence in nats
    untrained_damage: float
    weights: Mapping[str, Tensor]  # by their names in the block


class Library:
    """A :class:`~search.training.Parent` with the replacements of its sub-blocks.

    Args:
        folder: of the files.
        options: of the space.
        task: of the study.
        parent: the trained network.
        tokens: of the examples for training and for measuring, at most.
        steps: optimizer steps of a replacement.
        lr: its learning rate.
        seed: of new weights, and of the choice and the order of examples.
    """

    def __init__(
        self,
        folder: Path,
        options: Options,
        task: Task,
        parent: BlockNetwork,
        *,
        tokens: int,
        steps: int,
        lr: float,
        seed: int,
    ) -> None:
        self._folder, self._options, self._parent = folder, options, parent.eval()
        self._base, self._task = task, task_of(options.parent, task)
        self._tokens, self._steps, self._lr, self._seed = tokens, steps, lr, seed
        self._entries: dict[Replacement, Entry] = {}

    @property
    def network(self) -> BlockNetwork:
        """See :class:`~search.training.Parent`."""
        return self._parent

    def entry(self, replacement: Replacement) -> Entry | None:
        """A replacement, from memory or its file; None if it has not been made yet."""
        if replacement not in self._entries and (stored := _read(self._folder / replacement.file)) is not None:
            weights, known = stored
            self._entries[replacement] = Entry(float(known["damage"]), float(known["untrained_damage"]), weights)
        return self._entries.get(replacement)

    @property
    def is_complete(self) -> bool:
        """Whether all replacements have been made."""
        return all(self.entry(each) is not None for each in self._options.replacements())

    def make(
        self,
        report: Callable[[str], None] = lambda text: None,
        *,
        trains: Callable[[], bool] = lambda: True,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train and score all replacements that are missing.

        Args:
            report: called with what is done next.
            trains: once it is false, replacements are scored as far as they are trained, and not stored.
            is_over: once it is true, the others stay missing.
        """
        missing = [each for each in self._options.replacements() if self.entry(each) is None]
        if not missing:
            return
        number, validation, train = 0, self._embedded("validation"), self._embedded("train")
        for at, source in enumerate(self._parent.blocks):
            for replacement in (each for each in missing if each.block == at):
                if is_over():
                    return
                number += 1
                report(f"training replacement {number} of {len(missing)} ({replacement.name})")
                entry, trained = self._made(replacement, train, validation, trains)
                self._entries[replacement] = entry
                if trained:
                    known = {"damage": repr(entry.damage), "untrained_damage": repr(entry.untrained_damage)}
                    _write(self._folder / replacement.file, entry.weights, known)
            validation, train = _after(source, validation), _after(source, train)

    def load_into(self, network: nn.Module, architecture: Mapping[str, Any]) -> None:
        """See :class:`~search.training.Parent`: weights are those of the parent and of the network's replacements."""
        assert isinstance(network, BlockNetwork)
        inherit(network, self._parent)
        for replacement in self._options.chosen(architecture):
            if (entry := self.entry(replacement)) is not None:
                copy_matching(network.blocks[replacement.block], entry.weights)
        prune(network, architecture["model"].get("sparsity", DENSE))

    def weights_of(self, architecture: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
        """See :class:`~search.training.Parent`."""
        return self._parent.state_dict() if self._options.is_parent(dict(architecture)) else None

    @torch.no_grad()
    def damage_of(self, architecture: Mapping[str, Any]) -> float:
        """The damage of a whole network without further training."""
        network = build(dict(architecture), self._base, seed=self._seed).eval()
        self.load_into(network, architecture)
        task, indices = task_of(dict(architecture), self._base), self._indices("validation")
        batches = (_select(task, "validation", each) for each in indices.split(EVAL_BATCH))
        logits = [labelled(network(batch), batch.labels) for batch in batches]
        return divergence(torch.cat(logits), self._expected)

    @cached_property
    def _expected(self) -> Tensor:
        """The parent's predictions for the validation examples."""
        return self._logits_after(self._embedded("validation"), self._parent.blocks)

    @cached_property
    def logits(self) -> Tensor:
        """See :class:`~search.training.Parent`; from their file if it exists."""
        path = self._folder / "logits.safetensors"
        if (stored := _read(path)) is not None:
            return stored[0]["logits"]
        logits = predictions(self._parent, self._task)
        _write(path, {"logits": logits}, {})
        return logits

    def _indices(self, split: Split) -> Tensor:
        """Random examples with at most so many tokens in all, at least one."""
        examples = self._task.data(split)
        order = torch.randperm(examples.size, generator=torch.Generator().manual_seed(self._seed))
        lengths = torch.full((examples.size,), self._task.spec.length) if examples.lengths is None else examples.lengths
        count = max(1, int((lengths[order].cumsum(0) <= self._tokens).sum()))
        return order[:count]

    @torch.no_grad()
    def _embedded(self, split: Split) -> Inputs:
        """The inputs of the first block, of training examples as many as there are steps for."""
        size, indices = EVAL_BATCH, self._indices(split)
        if split == "train":
            size, indices = BATCH_SIZE, indices[: BATCH_SIZE * max(1, self._steps)]
        batches = (_select(self._task, split, each) for each in indices.split(size))
        return [self._parent.embed(batch) for batch in batches]

    @cached_property
    def _labels(self) -> list[Tensor]:
        """Of the validation examples, by batch."""
        batches = self._indices("validation").split(EVAL_BATCH)
        return [_select(self._task, "validation", each).labels for each in batches]

    @torch.no_grad()
    def _logits_after(self, inputs: Inputs, blocks: Iterable[Block]) -> Tensor:
        """The predictions of the last blocks and the parent's head for inputs of the validation examples."""
        for block in blocks:
            inputs = _after(block, inputs)
        logits = (self._parent.classify(x, padding) for x, padding in inputs)
        return torch.cat([labelled(each, labels) for each, labels in zip(logits, self._labels, strict=True)])

    def _made(
        self, replacement: Replacement, train: Inputs, validation: Inputs, trains: Callable[[], bool]
    ) -> tuple[Entry, bool]:
        """A replacement, and whether its training was not cut short."""
        at = replacement.block
        source, later = self._parent.blocks[at], list(self._parent.blocks)[at + 1 :]
        network = build(self._options.replaced([replacement]), self._base, seed=self._seed).eval()
        assert isinstance(network, BlockNetwork)
        block = network.blocks[at]
        if replacement.part == "attention":
            copy_rest(block, source, "mechanism")
            inherit_attention(block, source)
        else:
            copy_rest(block, source, "feed_forward")
            if block.feed_forward is not None and source.feed_forward is not None:
                kept = active_neurons(source, train, block.feed_forward.hidden)
                keep_neurons(block.feed_forward, source.feed_forward, kept)
        untrained = divergence(self._logits_after(validation, [block, *later]), self._expected)
        best, damage, finished = _own_weights(block, replacement), untrained, trains()
        if best and self._steps and finished:
            finished = distill(block, source, replacement.part, train, steps=self._steps, lr=self._lr, goes_on=trains)
            trained = divergence(self._logits_after(validation, [block, *later]), self._expected)
            if trained < untrained:
                best, damage = _own_weights(block, replacement), trained
        return Entry(damage, untrained, best), finished


@torch.no_grad()
def _after(block: Block, inputs: Inputs) -> Inputs:
    """The inputs of the next block."""
    return [(block(x, padding), padding) for x, padding in inputs]


def _own_weights(block: Block, replacement: Replacement) -> dict[str, Tensor]:
    module = "mechanism" if replacement.part == "attention" else "feed_forward"
    return {name: value.clone() for name, value in block.state_dict().items() if name.split(".")[0] == module}


def _select(task: Task, split: Split, indices: Tensor) -> Batch:
    return task.data(split).select(indices).trim_padding()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    try:
        write_tensors(path, tensors, metadata)
    except OSError as error:  # such as a full disk: it is used, and made again by another run
        log.warning("%s cannot be written: %s", path, error)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """None if the file is missing or damaged."""
    try:
        return read_tensors(path)
    except (OSError, SafetensorError):
        return None
