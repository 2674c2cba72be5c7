"""The scale of a search space, from networks that train in seconds to ones for a GPU, and spaces that suit a task.

A value ``${scale:TINY,SMALL,BASE}`` in the YAML of a space is one of the three, by the key ``scale``. Only light
imports here, so that ``--help`` and errors appear at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from search.config.schema import AUTO, SCALES
from spaces.dimensions import ConfigError
from spaces.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from spaces.tasks import Task

OWN_DATA = ("file", "folder", "dataset")  # settings of a task that name the user's data
BASE_EXAMPLES = 20_000  # from which on one of the scale base is, given a GPU
SPACE_OF_TASK = {
    "table": "text",
    "huggingface": "text",
    "text": "text",
    "images": "vision",
    "cifar10": "vision",
    "recordings": "speech",
    "translation": "translation",
    "writing": "generation",
}


def register_resolvers() -> None:
    """Register ``${scale:TINY,SMALL,BASE}``, ``${checkpoint:NAME}`` and ``${by_input:TEXTS,IMAGES}`` with OmegaConf."""
    OmegaConf.register_new_resolver("scale", _resolve, replace=True)
    OmegaConf.register_new_resolver("checkpoint", _of_checkpoint, replace=True)
    OmegaConf.register_new_resolver("by_input", _by_input, replace=True)


def _resolve(*values: Any, _root_: DictConfig) -> Any:
    if len(values) != len(SCALES):
        raise ConfigError(f"${{scale:...}}: {len(values)} values; it takes one for each of {', '.join(SCALES)}")
    scale = _root_.get("scale", AUTO)
    return values[SCALES.index(scale)] if scale in SCALES else values[0]


def _of_checkpoint(name: str, *, _root_: DictConfig) -> Any:
    """The depth, width, heads or another attribute of the checkpoint ``space.model.checkpoint``."""
    try:
        return getattr(Checkpoint(str(_root_.space.model.checkpoint)), name)
    except ValueError as error:
        raise ConfigError(f"space.model.{error}") from error


def _by_input(texts: Any, images: Any, *, _root_: DictConfig) -> Any:
    """One of two values, by what the checkpoint reads."""
    return texts if _of_checkpoint("image", _root_=_root_) is None else images


def has_scales(config: DictConfig) -> bool:
    """Whether the space of a composed configuration depends on ``scale``."""
    return "${scale:" in OmegaConf.to_yaml(config.space, resolve=False)


def check_scale(config: DictConfig, space: str) -> None:
    """Raise :class:`ConfigError` if ``scale`` is given and the space has none."""
    scale = config.scale
    if scale != AUTO and not has_scales(config):
        raise ConfigError(f"scale={scale}: the space {space} has one scale only")


def names_own_data(settings: Mapping[str, Any]) -> bool:
    """Whether the settings of a task name data of the user; other tasks are small demonstrations."""
    return any(settings.get(name) for name in OWN_DATA)


def suitable_scale(task: Task, *, gpu: bool) -> tuple[str, str]:
    """The scale that suits a training split of the user's data, and why."""
    examples = task.steps("train", 1)
    scale = "base" if gpu and examples >= BASE_EXAMPLES else "small"
    return scale, f"scale={scale}, for {examples} training examples on {'a GPU' if gpu else 'a CPU'}"


def keep_given_input(config: DictConfig, overrides: Sequence[str]) -> None:
    """Let a setting of the task that the command line names, such as ``task.patch=2``, replace the space's.

    If it names ``task.tokens`` and the space has a branch per kind of tokens, only the branches with those tokens are
    kept; if there are none, the first branch is, with no setting but its length.
    """
    keys = (override.lstrip("+").split("=")[0] for override in overrides)
    given = {key.removeprefix("task.") for key in keys if key.startswith("task.")}
    settings = config.space.get("input")
    if not isinstance(settings, DictConfig):  # there is none, or Space refuses it
        return
    branches = settings.get("choice")
    if not isinstance(branches, DictConfig):
        _set_to_none(settings, given)
        return
    if "tokens" in given:
        others = [name for name, branch in branches.items() if branch.get("tokens") != config.task.tokens]
        if len(others) == len(branches):
            first = branches[others.pop(0)]
            _set_to_none(first, first.keys() - {"length"})
        with open_dict(branches):
            for name in others:
                del branches[name]
    for branch in branches.values():
        _set_to_none(branch, given)


def _set_to_none(settings: DictConfig, names: Iterable[str]) -> None:
    for name in names:
        if name in settings:
            settings[name] = None


def with_default_space(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments with the space that suits the task, if they name a task and no space."""
    tasks = [argument.removeprefix("task=") for argument in arguments if argument.startswith("task=")]
    named = any(argument.startswith(("+space=", "space=", "--config-name", "-cn")) for argument in arguments)
    if named or not tasks or tasks[-1] not in SPACE_OF_TASK:
        return list(arguments)
    return [*arguments, f"+space={SPACE_OF_TASK[tasks[-1]]}"]
