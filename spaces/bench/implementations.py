"""What is measured: every mechanism in one or a few settings, and public packages with the same mechanism.

The settings are those of the papers and packages, reduced where the sequence is shorter. Torch and the packages are
imported only when a module is created.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from spaces.attention import Shape

Knobs = Callable[[int], Mapping[str, Any]]  # from the length
_CONF = Path(__file__).parents[2] / "conf" / "attention"


@dataclass(frozen=True)
class Implementation:
    """A mechanism, by this project or by a package.

    Attributes:
        mechanism: its file in ``spaces/attention`` and ``conf/attention``.
        setting: the mechanism with its variant, ``reformer-4-causal``; implementations of a setting are compared.
        create: makes the module, ``(batch, n, width)`` to the same shape.
        package: the module that is imported for it, or "" for this project.
        label: the package's name in tables; "" for this project.
    """

    mechanism: str
    setting: str
    create: Callable[[Shape], nn.Module]
    package: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """``setting`` or ``setting/label``."""
        return f"{self.setting}/{self.label}" if self.label else self.setting

    @property
    def causal(self) -> bool:
        """Whether it is causal."""
        return self.setting.endswith("-causal")

    @property
    def installed(self) -> bool:
        """Whether its package can be imported."""
        try:
            importlib.import_module(self.package or "spaces.attention")
        except ImportError:
            return False
        return True


def _create(mechanism: str, knobs: Knobs | None, shape: Shape) -> nn.Module:
    """The class of a mechanism's YAML, with ``knobs`` or, without any, the YAML's first bound of each dimension."""
    import yaml

    from spaces.attention import Mechanism
    from spaces.dimensions import parse
    from spaces.instantiate import instantiate

    where = f"attention.{mechanism}"
    node: Mapping[str, Any] = yaml.safe_load((_CONF / f"{mechanism}.yaml").read_text())[mechanism]
    if knobs is not None:
        node = {"_target_": node["_target_"], **knobs(shape.length)}
    else:
        dimensions = {name: parse(value, f"{where}.{name}") for name, value in node.items()}
        node = {name: dimension.bounds()[0] if dimension else node[name] for name, dimension in dimensions.items()}
    return instantiate(Mechanism, node, where, shape=shape)


def _create_peer(function: str, shape: Shape) -> nn.Module:
    """The module that ``function`` of :mod:`spaces.bench.packages` makes."""
    module: nn.Module = getattr(importlib.import_module("spaces.bench.packages"), function)(shape)
    return module


def _ours(name: str, knobs: Knobs | None = None, *, causal: bool | None = False) -> Iterable[Implementation]:
    """A mechanism of this project in one setting, ``mechanism-variant``; with ``causal=None`` in both ways."""
    mechanism = name.partition("-")[0]
    for each in (False, True) if causal is None else (causal,):
        yield Implementation(mechanism, name + "-causal" * each, partial(_create, mechanism, knobs))


def _theirs(setting: str, package: str, function: str, label: str = "") -> Implementation:
    """A package's, made by ``function`` of :mod:`spaces.bench.packages`."""
    distribution = label or package.partition(".")[0].replace("_", "-")
    create = partial(_create_peer, function)
    return Implementation(setting.partition("-")[0], setting, create, package, distribution)


def _blocks(n: int, block: int) -> int:
    return -(-n // min(block, n))


def _bigbird(n: int) -> Mapping[str, Any]:
    blocks = _blocks(n, 64)
    return {"block_size": min(64, n), "random_blocks": min(3, blocks), "global_blocks": min(2, blocks)}


def _hashing(rounds: int) -> Knobs:
    return lambda n: {"bucket_size": min(64, max(1, n // 2)), "hashes": rounds}


def _nystrom(taps: int) -> Knobs:
    return lambda n: {"landmarks": min(64, n), "conv_kernel_size": taps}


_LONGFORMER = "transformers.models.longformer.modeling_longformer"
_REFORMER = "transformers.models.reformer.modeling_reformer"
_NYSTROMFORMER = "transformers.models.nystromformer.modeling_nystromformer"
_BIGBIRD = "transformers.models.big_bird.modeling_big_bird"
_LINEAR = "linear_attention_transformer"

_LISTED: tuple[Implementation, ...] = (
    *_ours("softmax", lambda n: {}, causal=None),
    _theirs("softmax", "torch", "multihead", "nn.MultiheadAttention"),
    _theirs("softmax", "torch", "naive", "written-out"),
    *_ours("longformer", lambda n: {"window": min(64, n - 1)}, causal=None),
    _theirs("longformer", "local_attention", "local_attention"),
    _theirs("longformer", _LONGFORMER, "longformer"),
    _theirs("longformer-causal", "local_attention", "local_attention"),
    *_ours("local", lambda n: {"block_size": min(64, n), "neighbours": min(1, _blocks(n, 64) - 1)}, causal=None),
    *_ours("linformer", lambda n: {"rank": min(128, n)}),
    _theirs("linformer", "linformer", "linformer"),
    *_ours("reformer-1", _hashing(1)),
    _theirs("reformer-1", "reformer_pytorch", "reformer_1"),
    *_ours("reformer-4", _hashing(4), causal=None),
    _theirs("reformer-4", "reformer_pytorch", "reformer_4"),
    _theirs("reformer-4", _REFORMER, "reformer_of_transformers"),
    _theirs("reformer-4-causal", "reformer_pytorch", "reformer_4"),
    *_ours("performer", lambda n: {"features": 128}, causal=None),
    _theirs("performer", "performer_pytorch", "performer"),
    _theirs("performer-causal", "performer_pytorch", "performer"),
    *_ours("linear", lambda n: {"feature_map": "elu"}, causal=None),
    _theirs("linear", _LINEAR, "linear"),
    _theirs("linear-causal", _LINEAR, "linear"),
    *_ours("gated", lambda n: {"decay": "token"}, causal=None),
    *_ours("delta", lambda n: {"decay": "token"}, causal=None),
    *_ours("nystromformer-conv", _nystrom(33)),
    _theirs("nystromformer-conv", "nystrom_attention", "nystrom"),
    _theirs("nystromformer-conv", _NYSTROMFORMER, "nystrom_of_transformers"),
    *_ours("nystromformer", _nystrom(0)),
    *_ours("bigbird", _bigbird, causal=None),
    _theirs("bigbird", _BIGBIRD, "bigbird"),
    *_ours("synthesizer-dense", lambda n: {"mode": "dense"}),
    _theirs("synthesizer-dense", "torch", "synthesizer_dense", "written-out"),
    *_ours("synthesizer-random", lambda n: {"mode": "random"}),
    _theirs("synthesizer-random", "torch", "synthesizer_random", "written-out"),
    *_ours("synthesizer-factorised", lambda n: {"mode": "factorised", "rank": min(32, n)}),
    _theirs("synthesizer-factorised", "torch", "synthesizer_factorised", "written-out"),
    *_ours("entmax", lambda n: {"alpha": 1.5}),
    _theirs("entmax", "entmax", "entmax_15", "entmax15"),
    _theirs("entmax", "entmax", "entmax_bisect", "entmax_bisect"),
    *_ours("topk", lambda n: {"k": min(32, n)}),
    *_ours("adaptive_span", lambda n: {"max_span": min(64, n - 1)}, causal=None),
)


def _unlisted() -> Iterable[Implementation]:
    """The mechanisms that are not listed above."""
    for path in sorted(_CONF.glob("*.yaml")):
        if path.stem not in {each.mechanism for each in _LISTED}:
            yield from _ours(path.stem)


BASELINE = "softmax"  # the mechanism that all are compared with
IMPLEMENTATIONS = (*_LISTED, *_unlisted())


def select(names: Iterable[str]) -> list[Implementation]:
    """Those whose mechanism, setting or name is among ``names``, all if there are none, and always softmax.

    Raises:
        ValueError: a name is unknown.
    """
    names = set(names)
    known = {name for each in IMPLEMENTATIONS for name in (each.mechanism, each.setting, each.name)}
    for name in sorted(names - known):
        settings = ", ".join(dict.fromkeys(each.setting for each in IMPLEMENTATIONS))
        raise ValueError(f"--only {name}: it must be a mechanism or one of {settings}")
    baselines = {each.setting for each in IMPLEMENTATIONS if each.mechanism == BASELINE}
    return [
        each
        for each in IMPLEMENTATIONS
        if not names or names & {each.mechanism, each.setting, each.name} or each.name in baselines
    ]
