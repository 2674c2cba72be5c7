"""Keyword spotting: labels recomputed by slow code from noiseless spectrograms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from spaces.tasks import IGNORE_INDEX
from spaces.tasks.speech import Speech

SPEECHES = [
    Speech(noise=0.0, validation=8),
    Speech(noise=0.0, validation=16, seed=3, sounds=16, keys=5, voices=2, partners=4, pauses=7),
    Speech(noise=0.0, validation=16, length=67, sounds=6, keys=2, voices=4, partners=3, pauses=1),
]
SILENCE = "silence"


def templates(task: Speech) -> dict[tuple[int, int], list[float]]:
    """The spectrum of every sound in every voice, away from glides."""
    bands = range(task.spec.features or 0)
    low, high = -task.shift, task.shift
    found = {}
    for sound, formants in enumerate(task.formants().tolist()):
        for voice in range(task.voices):
            higher = low + (high - low) * (voice + 0.5) / task.voices
            found[sound, voice] = [sum(math.exp(-((band - f - higher) ** 2) / 2) for f in formants) for band in bands]
    return found


def identify(frame: list[float], known: dict[tuple[int, int], list[float]]) -> Any:
    """Sound and voice of a frame, silence, or None within a glide: the template it is a multiple of."""
    loudest = max(frame)
    if loudest < 1e-6:
        return SILENCE
    for name, template in known.items():
        if all(abs(x / loudest - y / max(template)) < 1e-4 for x, y in zip(frame, template, strict=True)):
            return name
    return None


@pytest.mark.parametrize("task", SPEECHES, ids=["default", "many pauses", "short"])
def test_labels_follow_from_the_frames(task: Speech) -> None:
    frames, _, labels, *_ = task.examples("validation")
    known = templates(task)
    identified = 0
    for row, row_labels in zip(frames.tolist(), labels.tolist(), strict=True):
        sounds = [identify(frame, known) for frame in row]
        voices = {sound[1] for sound in sounds if sound not in (None, SILENCE)}
        keys = {sound[0] for sound in sounds if sound not in (None, SILENCE) and sound[0] < task.keys}
        assert len(voices) == 1, "one speaker a row"
        assert len(keys) <= 1, "one key a row"
        where = [at for at, sound in enumerate(sounds) if sound not in (None, SILENCE) and sound[0] in keys]
        assert not where or where[-1] - where[0] < len(row) // 2, "the key occurs once"
        for at, sound in enumerate(sounds):
            if sound is SILENCE:
                assert row_labels[at] == 2 * task.keys + min(voices)
            elif sound is not None and sound[0] == task.partner and where:
                assert row_labels[at] == 2 * min(keys) + (at < where[0])
            elif sound is not None and sound[0] != task.partner:
                assert row_labels[at] == IGNORE_INDEX
            identified += sound is not None
    assert identified > frames[..., 0].numel() / 3, "or hardly anything was checked"


def test_partners_are_more_often_near_the_key_than_far() -> None:
    task = Speech(noise=0.0, validation=30)
    frames, _, labels, *_ = task.examples("validation")
    known, distances = templates(task), list[int]()
    for row, row_labels in zip(frames.tolist(), labels.tolist(), strict=True):
        keys = [
            at for at, frame in enumerate(row) if (sound := identify(frame, known)) and sound[0] in range(task.keys)
        ]
        if keys:
            distances += [abs(at - keys[0]) for at, label in enumerate(row_labels) if 0 <= label < 2 * task.keys]
    far = task.spec.length // 4
    assert sum(distance < far for distance in distances) > 2 * sum(distance >= far for distance in distances)
    assert max(distances) > 2 * far


@pytest.mark.parametrize("task", SPEECHES)
def test_a_constant_prediction_has_chance_accuracy(task: Speech) -> None:
    many = Speech(**{**settings(task), "train": 500})
    labels = many.examples("train").labels
    shares = (
        torch.bincount(labels[labels != IGNORE_INDEX], minlength=many.spec.classes) / (labels != IGNORE_INDEX).sum()
    )
    assert shares.max().item() == pytest.approx(many.chance, abs=0.03)
    for kind in (shares[: 2 * many.keys], shares[2 * many.keys :]):
        assert kind.tolist() == pytest.approx([kind.mean().item()] * len(kind), abs=0.03)


def settings(task: Speech) -> dict[str, Any]:
    names = ("sounds", "keys", "voices", "partners", "pauses", "noise", "seed")
    return {"length": task.spec.length, **{name: getattr(task, name) for name in names}}
