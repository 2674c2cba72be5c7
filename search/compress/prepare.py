"""Before the first trial: the parent is trained, the library made, and the front predicted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from search.budget.deadline import Deadline
from search.compress import CompressionSettings
from search.compress.library import Library
from search.compress.options import Options
from search.compress.parent import taught_parent, trained_parent
from search.compress.prediction import Setting, measure_settings, predict_front, spread
from search.compress.prior import library_prior
from search.compress.teacher import check_size, digest, stored_teacher
from search.costs.exclusive import torch_threads
from search.costs.measured import MeasuredCosts
from search.study.store import TrialStore
from search.training import Parent
from search.training.device import Device
from search.training.settings import TrainSettings
from spaces.architecture import Architecture, key
from spaces.build import task_of
from spaces.dimensions import ConfigError
from spaces.instantiate import check_arguments
from spaces.models.checkpoint import Checkpoint
from spaces.space import Space
from spaces.tasks import Task

PARENT_SHARE = LIBRARY_SHARE = 0.2  # of the time that is left, at most, where a run has a budget


def validate_compression(space: Space, teacher: str | None, task: Task | None = None) -> None:
    """Check the section ``compression``, and that there is a teacher where networks learn from one.

    Args:
        space: of the study.
        teacher: as in the configuration.
        task: of the study, if it has been constructed.

    Raises:
        ConfigError: a setting is invalid, or the space has dimensions that a compression cannot have.
    """
    corners = list(space.train_corners())
    shares = [share for settings in corners if (share := settings.get("distillation"))]
    for name in ("hidden", "relations"):
        if space.compression is None and (weights := [each for settings in corners if (each := settings.get(name))]):
            raise ConfigError(
                f"train.{name}={weights[-1]}: it is for spaces with the section compression; it must be 0"
            )
    if teacher is not None and not shares and space.compression is None:
        raise ConfigError(f"teacher={teacher!r}: it has no effect without train.distillation above 0")
    if space.compression is None:
        if shares and teacher is None:
            raise ConfigError(f"train.distillation={shares[-1]}: there is no teacher; give teacher=STUDY, or 0")
        return
    if "+" in (teacher or "").rpartition(":")[2]:
        raise ConfigError(f"teacher={teacher!r}: with the section compression it must be one trial, the parent")
    if teacher is None and not isinstance(space.model.get("checkpoint"), str):
        raise ConfigError("compression: there is no parent; give model.checkpoint, or teacher=STUDY:TRIAL")
    trimmed = {each for corner in space.corners() if (each := (corner.get("input") or {}).get("vocabulary"))} - {1}
    if trimmed and any(settings.get(name) for settings in corners for name in ("hidden", "relations")):
        given = f"input.vocabulary={trimmed.pop()}"
        raise ConfigError(f"{given}: with train.hidden or train.relations, for which the parent reads the same tokens")
    _settings(space)
    parent = Options(space).parent
    check_arguments(TrainSettings, parent["train"], "compression.parent")
    if task is not None and shares and not (task.spec.subtasks or task.spec.answer_length):
        check_size(task_of(parent, task), f"train.distillation={shares[-1]}")


def prepared_parent(
    space: Space,
    task: Task,
    *,
    seed: int,
    fingerprint: str,
    folder: Path,
    device: Device,
    deadline: Deadline,
    teacher: nn.Module | None = None,
    threads: int = 1,
    report: Callable[[str], None] = lambda text: None,
) -> Library:
    """The parent of a space with the section ``compression``, and its library; from files as far as they exist.

    Args:
        space: of the study.
        task: of the study.
        seed: of the study.
        fingerprint: of the data.
        folder: of all checkpoints; files are in a folder below that is named by what they depend on.
        device: of the parent's training.
        deadline: of the run.
        teacher: the trained network that is the parent; None: the parent is trained from the checkpoint of the space.
        threads: of PyTorch, as nothing else runs yet.
        report: called with what is done next.
    """
    settings, options = _settings(space), Options(space)
    content = Checkpoint(options.parent["model"]["checkpoint"]).digest() if teacher is None else digest(teacher)
    where = folder / f"library-{_name(space, options, seed, fingerprint, content)}"
    with torch_threads(threads):
        if teacher is not None:
            parent = taught_parent(teacher, options.parent, task, seed=seed)
        else:
            parent = trained_parent(
                where / "parent.safetensors",
                options.parent,
                task,
                seed=seed,
                device=device,
                seconds=PARENT_SHARE * deadline.left_s(),
                is_over=deadline.is_over,
                report=report,
            )
        library = Library(
            where, options, task, parent, tokens=settings.tokens, steps=settings.steps, lr=settings.lr, seed=seed
        )
        end = deadline.elapsed_s() + LIBRARY_SHARE * deadline.left_s()
        library.make(report, trains=lambda: deadline.elapsed_s() <= end, is_over=deadline.is_over)
        if not deadline.is_over() and any(settings.get("distillation") for settings in space.train_corners()):
            _ = library.logits  # with all threads, and into a file for the other workers
    return library


def stored_parent(
    url: str, store: TrialStore, task: Task, device: Device, report: Callable[[str], None]
) -> Parent | None:
    """What the networks of a stored study start and learn from; None if they have no parent and no teacher.

    Args:
        url: of the storage.
        store: of the study.
        task: of the study.
        device: of the parent's training.
        report: called with what is done next.
    """
    identity, start = store.identity(), store.run_start() or {}
    space, given = Space(identity["space"]), identity.get("teacher")
    teacher = stored_teacher(url, given, task) if given else None
    if space.compression is None:
        return teacher
    return prepared_parent(
        space,
        task,
        seed=identity["seed"],
        fingerprint=store.data()["fingerprint"],
        folder=Path(start.get("checkpoints", ".")),
        device=device,
        deadline=Deadline(),
        teacher=None if teacher is None else teacher.network,
        report=report,
    )


def predicted_front(
    space: Space,
    store: TrialStore,
    library: Library,
    costs: MeasuredCosts,
    deadline: Deadline,
    report: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Predict what the networks of a study reach, as the prior of its sampler; latencies are measured once a study.

    Returns:
        The parameters of the networks of the predicted front that open the study, the parent's own first.
    """
    options, settings = Options(space), _settings(space)
    if not settings.predicted or not library.is_complete:
        return []

    def measure() -> list[dict[str, Any]] | None:
        found = measure_settings(options, library, latencies_by(costs), report, deadline.is_over)
        return None if deadline.is_over() else [each.as_plain() for each in found]

    if (stored := store.replacements(measure)) is None:
        return []
    measured = [Setting.of_plain(each) for each in stored]
    store.prior = library_prior(options, library, measured)
    front = predict_front(options, library, measured)
    return [dict(each.parameters) for each in spread(front, settings.predicted)]


def latencies_by(costs: MeasuredCosts) -> Callable[[Sequence[Architecture]], list[float]]:
    """Milliseconds of several architectures, measured side by side."""
    return lambda networks: [timing.ms for timing in costs.timings(networks)]


def _settings(space: Space) -> CompressionSettings:
    assert space.compression is not None
    check_arguments(CompressionSettings, space.compression, "compression")
    try:
        return CompressionSettings(**space.compression)
    except ValueError as error:
        raise ConfigError(f"compression: {error}") from error


def _name(space: Space, options: Options, seed: int, fingerprint: str, content: str) -> str:
    """A name that is equal for equal parents and libraries; a checkpoint or a teacher counts by its content."""
    made_by = {name: value for name, value in (space.compression or {}).items() if name != "predicted"}
    given = {"parent": options.parent, "compression": made_by, "attention": space.attention, "seed": seed}
    return hashlib.sha256(f"{key(given)} {fingerprint} {content}".encode()).hexdigest()[:16]
