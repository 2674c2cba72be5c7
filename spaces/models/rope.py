"""Rotary positions of checkpoints: the angle per position of each pair of features, from ``config.json``.

Rates are ``theta ** (-2 i / head_dim)`` (Su et al., "RoFormer", 2021, section 3.2.2). Texts longer than those of the
training are read with slower rotations: all are divided by a factor (Chen et al., "Extending Context Window of Large
Language Models via Positional Interpolation", 2023), or as in Llama 3 the slow ones only ("The Llama 3 Herd of Models",
2024; ``rope_type=llama3`` of the library ``transformers``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spaces.dimensions import check_number

THETA = 10_000.0
KINDS = ("default", "linear", "llama3")
_LARGEST = 1e9  # of every setting


def rotary_rates(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Radians per position of the ``head_dim / 2`` pairs of features, the fastest first.

    Args:
        config: of a checkpoint: ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of earlier versions.
        head_dim: features per head.

    Raises:
        ValueError: a setting is invalid or unsupported.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"rope_scaling={given!r}: it must be settings by name, or null")
    settings = {"rope_theta": config.get("rope_theta") or THETA, **given}
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(f"rope_type={kind!r} is not supported; it must be {', '.join(KINDS)}")
    check_number(1, _LARGEST, rope_theta=settings["rope_theta"])
    rates = [settings["rope_theta"] ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if kind == "default":
        return tuple(rates)
    factor = _number(settings, "factor")
    if kind == "linear":
        return tuple(rate / factor for rate in rates)
    trained, low, high = (
        _number(settings, name) for name in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    if low >= high:
        raise ValueError(f"low_freq_factor={low}: it must be below high_freq_factor={high}")

    def scaled(rate: float) -> float:
        turns = trained * rate / (2 * math.pi)  # within the longest text of the training
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))  # 1: fast, unchanged; 0: slow, divided by the factor
        return (1 - kept) * rate / factor + kept * rate

    return tuple(map(scaled, rates))


def _number(settings: Mapping[str, Any], name: str) -> float:
    if name not in settings:
        raise ValueError(f"rope_scaling: {name} is missing")
    check_number(1e-6, _LARGEST, **{name: settings[name]})
    return float(settings[name])
