"""Every YAML file has a header, every space samples valid architectures, every documented command composes."""

import re
import shlex
from functools import cache
from pathlib import Path

import optuna
import pytest
import torch
from audio_files import write_recordings, write_transcribed
from checkpoints import with_checkpoint
from hydra import compose, initialize_config_dir
from image_files import write_arrays, write_cifar10, write_images, write_pathfinder
from omegaconf import OmegaConf
from text_tables import write_table

from search.budget.scale import register_resolvers
from search.compress.options import Options
from search.compress.prepare import validate_compression
from search.config.schema import validate_config
from search.costs.meter import Meter
from search.pruning import Pruner
from search.samplers.seeded import seeded_sampler
from search.tracking import Tracking
from spaces.architecture import describe, key
from spaces.build import build, invalid_corners
from spaces.instantiate import instantiate
from spaces.space import Space
from spaces.tasks import MAX_VARIANTS, Task

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
SPACES = sorted(path.stem for path in (CONF / "space").glob("*.yaml"))
KINDS = {"task": Task, "pruner": Pruner, "latency": Meter, "tracking": Tracking}
COMMANDS = {  # each once, with the place of its last occurrence; those of READMEs are tested in test_readme.py
    match[1]: f"{path.relative_to(ROOT)}:{number}"
    for path in FILES
    for number, line in enumerate(path.read_text().splitlines(), start=1)
    if (match := re.search(r"python -m search\.run (\+space=[a-z](?:[^#|`;\s]|\s(?!\s))*)", line))
}


@cache
def composed(*overrides):
    """The composed configuration; callers must not change it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(with_checkpoint(*overrides))), resolve=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_starts_with_a_description_and_a_command(path):
    what, how, *_ = path.read_text().splitlines()
    assert re.fullmatch(r"# \S.*[^:,]", what)
    assert re.fullmatch(r"# Try it:  (\w+=\S+ )?python -m search\.run \+space=.*", how)


def overrides_of(command):
    return shlex.split(command.replace("$seed", "1"))


@pytest.mark.parametrize(
    "command",
    [
        # Quick are those of the default space and of config.yaml; test_readme.py has more.
        pytest.param(command, id=place, marks=[] if re.match("conf/(space/nlp|config)", place) else [pytest.mark.slow])
        for command, place in COMMANDS.items()
    ],
)
def test_a_documented_command_composes(command, monkeypatch):
    monkeypatch.setenv("PARETOFORMER_STORAGE", "sqlite://")
    config = composed(*overrides_of(command))
    validate_config(config)
    Space(config["space"])


@pytest.mark.parametrize(
    ("space", "task"),
    [
        ("nlp", "Recall"),
        pytest.param("long", "LongRecall", marks=pytest.mark.slow),
        pytest.param("speech", "Speech", marks=pytest.mark.slow),
        pytest.param("vision", "Patches", marks=pytest.mark.slow),
    ],
)
def test_a_space_sets_its_task_and_the_command_line_overrides_it(space, task):
    assert composed(f"+space={space}")["task"]["_target_"].endswith(f".{task}")
    assert composed(f"+space={space}", "task=digits")["task"]["_target_"].endswith(".Digits")
    assert composed("task=digits", f"+space={space}")["task"]["_target_"].endswith(".Digits")


@pytest.mark.slow
def test_all_mechanisms_of_the_space_pretrained_can_take_the_place_of_attention():
    names = composed("+space=pretrained")["space"]["attention"]
    config = composed("+space=pretrained", f"space.pattern.each.choice=[{','.join(names)}]", *FEW_TEXTS["text"])
    space = Space(config["space"])
    validate_compression(space, None)
    assert {"linear", "hedgehog", "linformer", "gated"} <= set(Options(space).of_block("attention", 0)[1:])
    assert invalid_corners(space, instantiate(Task, config["task"], "task")) == []


@pytest.mark.slow
@pytest.mark.parametrize("group", KINDS)
def test_every_option_can_be_constructed(group, tmp_path):
    named = {
        "latency=gpu": ["latency.device=cpu"],
        "latency=remote": ["latency.host=user@board"],
        "task=huggingface": ["task.dataset=name/of-one"],
        "task=table": [f"task.file={write_table(tmp_path / 'a.csv')}"],
        "task=asr_recordings": [f"task.table={write_transcribed(tmp_path / 'said')}"],
        "task=arrays": [f"task.file={write_arrays(tmp_path / 'a.npz')}"],
        "task=cifar10": [f"task.folder={write_cifar10(tmp_path / 'cifar')}"],
        "task=images": [f"task.folder={write_images(tmp_path / 'pictures')}"],
        "task=pathfinder": [f"task.folder={write_pathfinder(tmp_path / 'pathfinder')}"],
        "task=recordings": [f"task.folder={write_recordings(tmp_path / 'wav')}"],
    }
    for path in sorted((CONF / group).glob("*.yaml")):
        option = f"{group}={path.stem}"
        instantiate(KINDS[group], composed("+space=smoke", option, *named.get(option, []))[group], group)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_can_be_constructed_from_a_seed():
    for path in sorted((CONF / "sampler").glob("*.yaml")):
        seeded_sampler(composed("+space=smoke", f"sampler={path.stem}")["sampler"], seed=1)


# Vocabularies are learned from them, for each architecture again.
FEW_TEXTS = {"text": ["++task.train=200", "++task.validation=50", "++task.test=50"]}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "nlp" else [pytest.mark.slow]) for name in SPACES]
)
def test_a_space_samples_architectures_that_can_be_built(name):
    config = composed(f"+space={name}", *FEW_TEXTS.get(name, []))
    space, task = Space(config["space"]), instantiate(Task, config["task"], "task")
    assert invalid_corners(space, task) == []
    inputs = {key(corner.get("input") or {}) for corner in space.corners()}
    assert len(inputs) <= MAX_VARIANTS, "of candidates drawn at random, the data are encoded again and again"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        architecture = space.suggest(study.ask())
        with torch.device("meta"):
            assert sum(1 for _ in build(architecture, task).parameters()), describe(architecture)
