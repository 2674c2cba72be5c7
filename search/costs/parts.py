"""The FLOPs of a network as a sum over its parts: mechanisms, feed-forward networks, and all the rest.

The networks of a space combine the same parts, and only the FLOPs of new ones are counted. The sums are exact: what a
part computes depends on its own settings and on sizes that all parts share, not on the other parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.costs.counted import evaluating, flops_of
from spaces.architecture import Architecture, key
from spaces.attention import Mechanism, Shape
from spaces.build import build, input_settings, roles_of, task_of
from spaces.models.block import Block, NoAttention
from spaces.tasks import Task

OURS = "spaces.models."  # of other networks it is unknown whether they consist of such parts
OF_PARTS = ("depth", "heads", "feed_forward", "activation")  # settings of model on which the rest does not depend
WITHOUT_FLOPS = ("pooling", "dropout", "embedding_dropout", "embedding_std", "layers", "train_embeddings")
CALLED = ("forward", "init_cache", "prefill", "decode_step", "encode_source", "cross_attend")  # of these modules


class SummedFlops:
    """The FLOPs of architectures, for one sequence of the task's full length."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._known: dict[str, int] = {}  # by part
        self._sizes: dict[str, tuple[str, str]] = {}  # by settings of the input: learning its tokens takes long

    def of(self, architecture: Architecture) -> int | None:
        """The FLOPs of ``task.predict``; None of a network that may not consist of such parts."""
        if not str(architecture["model"].get("_target_", OURS)).startswith(OURS):
            return None
        rest, blocks = _parts(architecture, roles_of(architecture, self._task), *self._sizes_of(architecture))
        parts = [rest, *(part for block in blocks for part in block.values())]
        if not self._known.keys() >= set(parts):
            self._count(build(dict(architecture), self._task), task_of(architecture, self._task), rest, blocks)
        return sum(self._known[part] for part in parts)

    def _sizes_of(self, architecture: Architecture) -> tuple[str, str]:
        """What the FLOPs of the rest and of the modules depend on; of a generation all settings of the input."""
        settings, _ = input_settings(architecture)
        name = key(settings)
        if name not in self._sizes:
            task = task_of(architecture, self._task)
            spec = task.spec
            shapes = [tuple(each.shape) for each in tree_leaves(task.sample()) if isinstance(each, Tensor)]
            one_pass = type(task).predict is Task.predict
            self._sizes[name] = (
                (repr(spec), repr((spec.length, spec.answer_length, shapes))) if one_pass else (name,) * 2
            )
        return self._sizes[name]

    def _count(self, network: nn.Module, task: Task, rest: str, parts: list[dict[str, str]]) -> None:
        """Count the FLOPs of what is not known; modules whose FLOPs are known are not executed."""
        counter, found = _FlopsByPart(), set(self._known)
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        for block, part_of in zip(blocks, parts, strict=True):
            for name, part in part_of.items():
                module = getattr(block, name)
                if part in found:
                    setattr(block, name, _Skipped(module) if isinstance(module, Mechanism) else nn.Identity())
                elif module is not None:
                    counter.attribute(module, part)
                found.add(part)
        predict = task.predict if rest in found else partial(counter.call, rest, task.predict)
        with evaluating(network), torch.no_grad():
            predict(network, task.sample())
        self._known.update({part: counter.flops[part] for part in found | {rest} if part not in self._known})


def _parts(
    architecture: Architecture, roles: Mapping[str, Sequence[str]], whole: str, sizes: str
) -> tuple[str, list[dict[str, str]]]:
    """What tells the FLOPs of the rest, and of the modules of each block, by attribute; the decoder's blocks last."""
    _, embedding = input_settings(architecture)
    model = {name: value for name, value in architecture["model"].items() if name not in {*OF_PARTS, *WITHOUT_FLOPS}}
    hidden, activation, heads = (architecture["model"].get(name) for name in ("feed_forward", "activation", "heads"))
    shared = {"sizes": sizes, "model": model, "stride": embedding.get("stride")}

    def mechanism(role: str, number: int) -> str:
        name = roles[role][number]
        settings = architecture["attention"][name]
        return key({**shared, "role": role, "mechanism": name, "settings": settings, "heads": heads})

    def feed_forward(stack: str, number: int) -> str:
        own = hidden[str(number)] if isinstance(hidden, Mapping) else hidden
        return key({**shared, "stack": stack, "hidden": own, "activation": activation})

    def blocks() -> Iterator[dict[str, str]]:
        for stack in [role for role in roles if role != "cross"]:
            for number in range(len(architecture["pattern"])):
                cross = {"cross_mechanism": mechanism("cross", number)} if stack == "decoder" else {}
                yield {"mechanism": mechanism(stack, number), "feed_forward": feed_forward(stack, number), **cross}

    return key({"sizes": whole, "model": model, "embedding": embedding}), list(blocks())


class _FlopsByPart(TorchDispatchMode):
    """Counts the FLOPs of operators in the calls that are attributed to parts, each to the innermost one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()
        self._part: str | None = None

    def attribute(self, module: nn.Module, part: str) -> None:
        """Attribute what the module computes from now on."""
        for name in CALLED:
            if hasattr(module, name):
                setattr(module, name, partial(self.call, part, getattr(module, name)))

    def call(self, part: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function and attribute its FLOPs."""
        outer, self._part = self._part, part
        try:
            if outer is not None:  # counting already
                return function(*args)
            with self:
                return function(*args)
        finally:
            self._part = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        assert self._part is not None
        self.flops[self._part] += flops_of(func, args, kwargs, result)
        return result


class _Skipped(NoAttention):
    """In the place of a mechanism that need not be executed."""

    def __init__(self, mechanism: Mechanism) -> None:
        super().__init__(Shape(mechanism.width, 1, mechanism.length, mechanism.causal))

    def source_tensors(self, source: Tensor, padding: Tensor | None) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def mix_source(self, x: Tensor, cache: Any) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)
