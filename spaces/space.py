"""A search space: the composed YAML tree, from which architectures are sampled.

A space has these sections. ``input`` contains settings of the task's input, such as tokenizer, sequence length or patch
size, and of the model's embedding, such as its stride; as a whole it may be a choice of named branches. ``model``
contains the model's class and sizes, ``attention`` the mechanisms by name with their settings, ``train`` the training
settings. ``pattern`` assigns mechanisms to blocks: a list of names that is repeated over depth, by default a choice of
one mechanism for all blocks, or ``{each: {choice: [...]}}`` for a choice per block (:mod:`spaces.per_block`). ``roles``
may name a mechanism for the decoder's self-attention (``decoder``) and for its cross-attention to the encoder
(``cross``). ``compression`` has the settings of a post-training search (:mod:`search.compress`).

In an architecture, ``pattern`` has one mechanism per block, and ``attention`` contains only the mechanisms that are
used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from spaces.architecture import Architecture
from spaces.combinations import Pick, combinations, labels_of
from spaces.dimensions import Choice, ConfigError, Dimension, Trial, Value, parse
from spaces.per_block import by_block, expand, same_in_all_blocks
from spaces.schema import shown
from spaces.tree import bounds_of, dimensions_in, draw, leaves_of, parsed, problems_in

SECTIONS = ("input", "attention", "model", "pattern", "roles", "train", "compression")
NEEDED = ("attention", "model", "train")
ROLES = ("decoder", "cross")
MAX_CORNERS = 20_000
MAX_DEPTH = 1000


class Space:
    """A search space.

    Args:
        tree: the composed space as plain values: no interpolations, no OmegaConf.

    Raises:
        ConfigError: all mistakes that can be found without building a network, one per line.
    """

    def __init__(self, tree: Mapping[str, Any]) -> None:
        problems = [
            f"space: {name!r} is unknown; it accepts {', '.join(SECTIONS)}" for name in tree if name not in SECTIONS
        ]
        needed = [name for name in NEEDED if not isinstance(tree.get(name), Mapping) or not tree[name]]
        problems += [f"{name}: missing; a space needs the sections {', '.join(NEEDED)}" for name in needed]
        odd = [name for name in ("input", "roles", "compression") if not isinstance(tree.get(name), Mapping | None)]
        problems += [f"{name}={shown(tree[name])}: it must be a mapping of settings" for name in odd]
        if problems:
            raise ConfigError("\n".join(problems))
        tree = {name: expand(node, tree["model"].get("depth"), name) for name, node in tree.items()}
        self.input: Mapping[str, Any] = tree.get("input") or {}
        self.attention: Mapping[str, Any] = tree["attention"]
        self.model: Mapping[str, Any] = tree["model"]
        self.train: Mapping[str, Any] = tree["train"]
        self.roles: Mapping[str, Any] = tree.get("roles") or {}
        self.compression: Mapping[str, Any] | None = tree.get("compression")
        every = {"choice": [[name] for name in self.attention]}
        self.pattern = every if tree.get("pattern") is None else tree["pattern"]
        sections = {name: getattr(self, name) for name in ("model", "attention", "train", "input")}
        problems += [problem for name in sections for problem in problems_in(sections[name], name)]
        problems += self._pattern_problems()
        problems += self._role_problems()
        if not problems:
            problems += self._depth_problems()
        if problems:
            raise ConfigError("\n".join(problems))
        drawn = (*sections, "pattern", "roles")
        self._parsed: dict[str, Any] = {name: parsed(getattr(self, name), name) for name in drawn}

    def _pattern_problems(self) -> Iterator[str]:
        try:
            patterns = [pattern for _, pattern in self._patterns()]
        except ConfigError as error:
            yield str(error)
            return
        for pattern in patterns:
            if not isinstance(pattern, Sequence) or not pattern:
                yield f"pattern={shown(pattern)}: it must be a list of mechanisms such as [longformer, softmax]"
                continue
            yield from self._unknown([pattern] if isinstance(pattern, str) else pattern, "pattern")

    def _role_problems(self) -> Iterator[str]:
        for role, node in self.roles.items():
            if role not in ROLES:
                yield f"roles: {role!r} is unknown; it accepts {', '.join(ROLES)}"
            try:
                names = bounds_of(node, f"roles.{role}")
            except ConfigError as error:
                yield str(error)
                continue
            yield from self._unknown(names, f"roles.{role}")

    def _unknown(self, names: Sequence[Any], where: str) -> Iterator[str]:
        for name in names:
            if not isinstance(name, str) or name not in self.attention:
                yield f"{where}: {shown(name)} is not among this space's mechanisms: {', '.join(self.attention)}"

    def _depth_problems(self) -> Iterator[str]:
        for depth in bounds_of(self.model.get("depth"), "model.depth"):
            if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= MAX_DEPTH:
                yield f"model.depth={shown(depth)}: it must be a whole number from 1 to {MAX_DEPTH}, or a dimension"

    def suggest(self, trial: Trial) -> Architecture:
        """Sample an architecture from ``trial``; parameters have dotted names such as ``model.depth``."""
        return self._draw(lambda dimension, where: dimension.suggest(trial, where))

    def corners(self) -> Iterator[Architecture]:
        """All combinations of the bounds of ``model``, ``pattern`` and ``attention``; ``train`` has its first bounds.

        At most ``MAX_CORNERS``: in a larger space, an invalid architecture may only be found by its trial.
        """
        everything = combinations(lambda pick: self._draw(same_in_all_blocks(_train_first(pick))))
        return islice(everything, MAX_CORNERS)

    def train_corners(self) -> Iterator[dict[str, Any]]:
        """All combinations of the bounds of ``train``."""
        return islice(combinations(lambda pick: draw(self.train, "train", pick)), MAX_CORNERS)

    def largest(self) -> Iterator[Architecture]:
        """For each pattern, the architecture with all dimensions at their upper bounds, usually the most expensive."""
        for _, pattern in self._patterns():
            yield self._draw(lambda dimension, where: dimension.bounds()[-1], pattern)

    def smallest(self, *, largest: bool = False) -> Iterator[dict[str, Any]]:
        """For each pattern, parameters that fix the lower, or upper, bounds of ``model``; all others are sampled.

        So are options of ``model`` that are no numbers: their order in the configuration says nothing about size.
        """
        for fixed, _ in self._patterns():
            parameters = dict(fixed)
            draw(self.model, "model", partial(_bound, parameters, -1 if largest else 0))
            yield parameters

    def _patterns(self) -> list[tuple[dict[str, Any], Any]]:
        """Each pattern with its parameters; of a choice per block, those with the same mechanism in all blocks."""
        if by_block(self.pattern):
            options = {name: bounds_of(node, f"pattern.{name}") for name, node in self.pattern.items()}
            names = [name for name in self.pattern if parse(self.pattern[name], f"pattern.{name}") is not None]
            every = dict.fromkeys(option for each in options.values() for option in each)
            return [({f"pattern.{name}": one for name in names if one in options[name]}, [one]) for one in every]
        dimension = parse(self.pattern, "pattern")
        if dimension is None:
            return [({}, self.pattern)]
        return [({"pattern": label}, each) for label, each in zip(dimension.labels(), dimension.bounds(), strict=True)]

    def grid(self) -> Iterator[dict[str, Value]]:
        """The parameters of every architecture, for a grid search.

        Raises:
            ConfigError: there are infinitely many; the message names the continuous dimensions.
        """
        continuous = [f"{name} is continuous" for name, dimension in self._all() if not dimension.values()]
        if continuous:
            advice = "a grid search (n_trials=null) needs a choice or a step"
            raise ConfigError("\n".join(f"{line}; {advice}" for line in continuous))
        return combinations(labels_of(self._draw), lambda dimension: dimension.values() or [])

    def dimension_names(self) -> set[str]:
        """The dotted names of all dimensions, such as ``model.depth``, and of what differs between named branches."""
        names = set[str]()
        for where, dimension in self._all():
            names |= {where}.union(*(leaves_of(branch, where) for branch in dimension.bounds()))
        return names

    def _all(self) -> Iterator[tuple[str, Dimension]]:
        """All dimensions with their names."""
        sections = {name: getattr(self, name) for name in SECTIONS if name != "compression"}
        for section, node in sections.items():
            yield from dimensions_in(node, section)

    def _draw(self, pick: Pick, pattern: Any = None) -> Architecture:
        """The architecture with the values that ``pick`` returns, and with ``pattern`` if it is given."""
        nodes = self._parsed
        given = {"input": draw(nodes["input"], "input", pick)} if self.input else {}
        model = draw(nodes["model"], "model", pick)
        pattern = draw(nodes["pattern"], "pattern", pick) if pattern is None else pattern
        names = [pattern] if isinstance(pattern, str) else list(pattern.values() if by_block(pattern) else pattern)
        blocks = [names[block % len(names)] for block in range(model["depth"])]
        roles = draw(nodes["roles"], "roles", pick)
        # Settings of unused mechanisms are not sampled, so that equal networks are equal architectures.
        used = sorted({*blocks, *roles.values()}, key=list(self.attention).index)
        attention = {name: draw(nodes["attention"][name], f"attention.{name}", pick) for name in used}
        train = draw(nodes["train"], "train", pick)
        between = {"roles": roles} if roles else {}
        return {**given, "model": model, "pattern": blocks, **between, "attention": attention, "train": train}


def _bound(parameters: dict[str, Any], index: int, dimension: Dimension, where: str) -> Any:
    if not isinstance(dimension, Choice) or dimension.ordered:
        parameters[where] = dimension.labels()[index]
    return dimension.bounds()[index]


def _train_first(pick: Pick) -> Pick:
    return lambda dim, where: dim.bounds()[0] if where.split(".")[0] == "train" else pick(dim, where)
