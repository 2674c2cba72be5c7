"""The space in which a trained member of a front is compressed: what each of its blocks may do without."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

import torch

from search.compress.parent import untrained_parent
from spaces.models.config import ModelConfig
from spaces.tasks import Task

REPLACEMENTS: Mapping[str, Mapping[str, Any]] = {
    "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
    "linear": {"_target_": "spaces.attention.linear.LinearAttention", "feature_map": "elu"},
    "longformer": {
        "_target_": "spaces.attention.longformer.LongformerAttention",
        "window": {"choice": [8], "as": "clip"},
    },
    "none": {"_target_": "spaces.models.block.NoAttention"},
}
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the hidden features
TRAIN = {"epochs": 3, "distillation": 0.5, "hidden": 0, "relations": 0, "keep_best": True}
LR_SHARE = 0.3  # of the learning rate that the member was trained with
NO_TEACHER = ("mixup",)  # training settings that do not go with a teacher, which saw whole examples


def space_of(architecture: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """The tree of the space.

    Each block keeps its mechanism, half of its heads, takes another mechanism of the network or of ``REPLACEMENTS``, or
    has none; of its feed-forward network a share is kept. Linear layers are in floating point or in 8-bit integers.

    Args:
        architecture: of the member.
        task: of its study.

    Raises:
        ConfigError: its blocks cannot be replaced.
    """
    with torch.device("meta"):
        untrained_parent(dict(architecture), task, seed=0)
    model, pattern = architecture["model"], architecture["pattern"]
    own = architecture["attention"]
    halved = {
        f"half_{name}": _half_heads(each) for name, each in own.items() if model["heads"] > 1 and _has_heads(each)
    }
    attention = {**REPLACEMENTS, **own, **halved}
    empty = [name for name, each in own.items() if each["_target_"] == REPLACEMENTS["none"]["_target_"]]
    options = [name for name in (*own, *halved, *REPLACEMENTS) if name not in empty or name == "none"]
    whole = model.get("feed_forward", 1.0 if "checkpoint" in model else ModelConfig.feed_forward)
    shares = whole if isinstance(whole, Mapping) else {str(block): whole for block in range(len(pattern))}
    train = {name: value for name, value in architecture["train"].items() if name not in NO_TEACHER}
    return {
        **({"input": architecture["input"]} if architecture.get("input") else {}),
        "attention": attention,
        # What a block does not have, nothing can imitate.
        "pattern": {
            str(block): name if name in empty else {"choice": list(dict.fromkeys(options))}
            for block, name in enumerate(pattern)
        },
        "model": {
            **model,
            "feed_forward": {
                block: {"choice": [share * kept for share in SHARES]} if kept else 0 for block, kept in shares.items()
            },
            "quantization": {"choice": ["none", "int8"]},
        },
        "train": {**train, **TRAIN, "lr": LR_SHARE * train["lr"]},
        "compression": {"pattern": list(pattern)},
    }


def _has_heads(settings: Mapping[str, Any]) -> bool:
    """Whether heads of the mechanism can be left out."""
    return "kept_heads" in inspect.signature(pkgutil.resolve_name(settings["_target_"])).parameters


def _half_heads(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The mechanism with half of its heads, each with keys and values of its own."""
    kept = {name: value for name, value in settings.items() if name != "kv_heads"}
    return {**kept, "kept_heads": settings.get("kept_heads", 1.0) / 2}
