"""What may take the place of a sub-block: the values of the dimensions that each block has of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import optuna

from spaces.architecture import Architecture
from spaces.combinations import Pick, combinations, labels_of
from spaces.dimensions import ConfigError
from spaces.models.sparsity import DENSE
from spaces.per_block import by_block
from spaces.space import Space
from spaces.tree import bounds_of, dimensions_in, draw

Part = Literal["attention", "feed_forward"]
PARTS: tuple[Part, ...] = ("attention", "feed_forward")
FEED_FORWARD = "model.feed_forward"
PRECISION = ("quantization", "sparsity")  # settings of model that the parent, which is in full precision, lacks


@dataclass(frozen=True)
class Replacement:
    """A sub-block of one block, replaced by an option: the name of a mechanism, or a share of the hidden features."""

    block: int
    part: Part
    option: Any

    @property
    def name(self) -> str:
        """For messages, such as ``2-feed_forward-0.5``."""
        return f"{self.block}-{self.part}-{self.option}"

    @property
    def file(self) -> str:
        """The name of its file in a library."""
        return f"{self.name}.safetensors"


@dataclass(frozen=True)
class Options:
    """The options of a space with the section ``compression``.

    Args:
        space: its pattern and ``model.feed_forward`` have a dimension per block, or are fixed. All other dimensions but
            those of ``train`` are *global*: they apply to the whole network.

    Raises:
        ConfigError: the depth or the settings of a mechanism vary, or a global dimension is continuous.
    """

    space: Space

    def __post_init__(self) -> None:
        space = self.space
        if not isinstance(space.model["depth"], int):
            raise ConfigError("compression: model.depth must be a number; blocks are removed by none and 0")
        for name, node in (("pattern", space.pattern), (FEED_FORWARD, space.model.get("feed_forward", 1.0))):
            if not by_block(node) and list(dimensions_in(node, name)):
                raise ConfigError(f"{name}: with compression it must be fixed or have a dimension per block, by each")
        if varying := [name for name, each in dimensions_in(space.attention, "attention") if len(each.bounds()) > 1]:
            raise ConfigError(
                f"{varying[0]}: with compression the settings of mechanisms are fixed; list the mechanism several times"
                " under names of its own, each with a setting"
            )
        for section in ("input", "model"):
            for name, dimension in dimensions_in(getattr(space, section), section):
                if dimension.values() is None:
                    raise ConfigError(f"{name}: with compression it must be a choice or have a step")

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return int(self.space.model["depth"])

    @cached_property
    def parent(self) -> Architecture:
        """The network that nothing is left out of: its own mechanisms, the largest values, floating point, dense."""
        largest, given = next(self.space.largest()), self.space.compression or {}
        model = {name: value for name, value in largest["model"].items() if name not in PRECISION}
        train = {**largest["train"], **(given.get("parent") or {}), "distillation": 0.0}
        pattern = list(given.get("pattern") or largest["pattern"])
        return {**largest, "model": model, "pattern": pattern, "attention": self._attention(pattern), "train": train}

    def is_parent(self, architecture: Architecture) -> bool:
        """Whether an architecture of the space has the parent's weights; its precision and its training may differ."""

        def kept(each: Architecture) -> Architecture:
            model = {name: value for name, value in each["model"].items() if name != "quantization"}
            return {**each, "model": {"sparsity": DENSE, **model}, "train": {}}

        return kept(architecture) == kept(self.parent)

    def _attention(self, pattern: Sequence[str]) -> dict[str, Any]:
        """The settings of the mechanisms in a pattern, in the order of the space."""
        used = {name: settings for name, settings in self.space.attention.items() if name in pattern}
        return draw(used, "attention", lambda dimension, where: dimension.bounds()[0])

    def of_block(self, part: Part, block: int) -> list[Any]:
        """The options of a sub-block, the parent's first."""
        node = self.space.pattern if part == "attention" else self.space.model.get("feed_forward", 1.0)
        found = bounds_of(node[str(block)], part) if by_block(node) else []
        whole = self.whole(part, block)
        return [whole, *dict.fromkeys(each for each in found if each != whole)]

    def whole(self, part: Part, block: int) -> Any:
        """The option that the parent has."""
        return _option(self.parent, part, block)

    def replacements(self) -> Iterator[Replacement]:
        """All options that differ from the parent's."""
        for block in range(self.depth):
            for part in PARTS:
                for option in self.of_block(part, block)[1:]:
                    yield Replacement(block, part, option)

    def replaced(self, replacements: Sequence[Replacement]) -> Architecture:
        """The parent with some sub-blocks replaced."""
        parent = self.parent
        pattern = list(parent["pattern"])
        shares = {str(block): _option(parent, "feed_forward", block) for block in range(self.depth)}
        for each in replacements:
            if each.part == "attention":
                pattern[each.block] = each.option
            else:
                shares[str(each.block)] = each.option
        model = {**parent["model"], "feed_forward": shares}
        return {**parent, "pattern": pattern, "model": model, "attention": self._attention(pattern)}

    def chosen(self, architecture: Mapping[str, Any]) -> list[Replacement]:
        """The replacements in an architecture of the space."""
        every = (Replacement(n, part, _option(architecture, part, n)) for n in range(self.depth) for part in PARTS)
        return [each for each in every if each.option != self.whole(each.part, each.block)]

    def global_parameters(self) -> list[dict[str, Any]]:
        """The parameters, by name, of each combination of the global dimensions."""
        model = {name: node for name, node in self.space.model.items() if name != "feed_forward"}

        def build(pick: Pick) -> None:
            draw(self.space.input, "input", pick)
            draw(model, "model", pick)

        return list(combinations(labels_of(build), lambda dimension: dimension.values() or []))

    def parameters(self, replacements: Sequence[Replacement], given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, by name, of a network with global parameters ``given``; those of ``train`` are left open."""
        chosen = {(each.block, each.part): each.option for each in replacements}
        found = dict(given)
        for name, (block, part) in self.sub_blocks().items():
            found[name] = chosen.get((block, part), self.whole(part, block))
        return found

    def sub_blocks(self) -> dict[str, tuple[int, Part]]:
        """The parameters that choose an option, by name, each with its sub-block."""
        found: dict[str, tuple[int, Part]] = {}
        names: Mapping[str, Part] = {"pattern": "attention", FEED_FORWARD: "feed_forward"}
        for name, _ in dimensions_in({"pattern": self.space.pattern, "model": self.space.model}, ""):
            base, _, block = name.removeprefix(".").rpartition(".")
            if (part := names.get(base)) is not None:
                found[name.removeprefix(".")] = int(block), part
        return found

    def architecture(self, parameters: Mapping[str, Any]) -> Architecture:
        """The architecture of these parameters, with the first bounds of the other dimensions."""
        others = [("train", self.space.train), ("attention", self.space.attention)]
        first = {name: each.labels()[0] for where, node in others for name, each in dimensions_in(node, where)}
        trial: Any = optuna.trial.FixedTrial({**first, **parameters})
        return self.space.suggest(trial)


def _option(architecture: Mapping[str, Any], part: Part, block: int) -> Any:
    """The option of a sub-block in an architecture."""
    if part == "attention":
        return architecture["pattern"][block]
    shares = architecture["model"].get("feed_forward", 1.0)
    return shares[str(block)] if isinstance(shares, Mapping) else shares
