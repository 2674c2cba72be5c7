"""The patch size as a dimension of the input: every image task takes it, and reads its images once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from image_files import pixels, write_arrays, write_cifar10, write_images, write_pathfinder
from omegaconf import OmegaConf

from search.budget.scale import keep_given_input, register_resolvers
from search.config import CONF
from spaces.build import build, invalid_corners, task_of
from spaces.space import Space
from spaces.tasks import SPLITS
from spaces.tasks.arrays import Arrays
from spaces.tasks.cifar10 import Cifar10
from spaces.tasks.digits import Digits
from spaces.tasks.images import Images
from spaces.tasks.patches import Patches
from spaces.tasks.pathfinder import Pathfinder
from spaces.tasks.sources.image_task import ImageTask


def image_arrays(file: Path) -> Path:
    """28 by 28 pixels, which patches of 8 do not divide."""
    np.savez(file, inputs=np.stack([pixels(row, 28, 28, 1)[:, :, 0] for row in range(30)]), labels=np.arange(30) % 2)
    return file


TASKS: dict[str, Callable[[Path], ImageTask]] = {
    "digits": lambda _: Digits(),
    "patches": lambda _: Patches(train=20),
    "images": lambda folder: Images(folder=str(write_images(folder))),
    "arrays": lambda folder: Arrays(file=str(image_arrays(folder / "a.npz"))),
    "cifar10": lambda folder: Cifar10(folder=str(write_cifar10(folder))),
    "pathfinder": lambda folder: Pathfinder(folder=str(write_pathfinder(folder, side=32))),
}


@pytest.mark.parametrize("name", TASKS)
def test_other_patches_are_of_the_same_images_which_are_read_once(name, tmp_path, monkeypatch):
    task, reads = TASKS[name](tmp_path), []
    read = type(task).read_images
    monkeypatch.setattr(type(task), "read_images", lambda self, split: reads.append(split) or read(self, split))
    for split in SPLITS:
        labels = task.data(split).labels
        first = task.with_input(patch=1).data(split).inputs
        for patch in (2, 5, 8):
            varied = task.with_input(patch=patch)
            inputs = varied.data(split).inputs
            assert torch.equal(varied.data(split).labels, labels)
            assert inputs.shape[1:] == (varied.spec.length, varied.spec.features)
            assert torch.equal(inputs[:, 0, :: patch**2], first[:, 0]), "the upper left pixel"
    assert len(reads) <= len(SPLITS)
    with pytest.raises(ValueError, match="patch=99: it must fit into the image"):
        task.with_input(patch=99)


@pytest.mark.parametrize("scale", ["tiny", pytest.param("small", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TASKS)
def test_the_vision_space_fits_every_image_task(name, scale, tmp_path):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=["+space=vision", f"scale={scale}"]), resolve=True)
    narrow = {"model": {**config["space"]["model"], "depth": 1, "width": 16, "heads": 2}, "pattern": ["softmax"]}
    space, task = Space({**config["space"], **narrow}), TASKS[name](tmp_path)
    assert invalid_corners(space, task) == []
    patches = {corner["input"]["patch"] for corner in space.corners()}
    assert patches == ({None} if scale == "tiny" else {4, 8})
    for corner in space.corners():
        fitted = task_of(corner, task)
        assert build(corner, task)(fitted.sample(2)).shape == (2, task.spec.classes)


def test_inputs_that_are_no_images_have_no_patches(tmp_path):
    with pytest.raises(ValueError, match="patch=4: it must be null, as the inputs are no images"):
        Arrays(file=str(write_arrays(tmp_path / "a.npz"))).with_input(patch=4)


@pytest.mark.parametrize(
    ("overrides", "patch"),
    [([], {"choice": [4, 8]}), (["task.patch=2"], None), (["space.input.patch={choice:[2,4]}"], {"choice": [2, 4]})],
)
def test_a_patch_of_the_task_on_the_command_line_replaces_that_of_the_space(overrides, patch):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["+space=vision", "scale=small", *overrides])
    keep_given_input(config, overrides)
    assert OmegaConf.to_container(config.space.input, resolve=True) == {"patch": patch}


@pytest.mark.parametrize(
    ("overrides", "branches"),
    [
        ([], {"words": ("words", 8192), "subwords": ("subwords", 8192), "bytes": ("bytes", None)}),
        (["task.tokens=bytes"], {"bytes": (None, None)}),
        (["task.tokens=words", "task.vocabulary=99"], {"words": (None, None)}),
        (["task.tokens=unigram"], {"words": (None, None)}),
    ],
)
def test_tokens_of_the_task_on_the_command_line_choose_the_branch_of_the_space(overrides, branches):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=["+space=text", "task=table", "scale=small", *overrides])
    keep_given_input(config, overrides)
    found = OmegaConf.to_container(config.space.input, resolve=True)["choice"]
    assert {name: (each["tokens"], each.get("vocabulary")) for name, each in found.items()} == branches
    assert all(each["length"] for each in found.values())
