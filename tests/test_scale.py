"""The scale of a space: by the key scale, or by what suits the data; and the space that suits a task."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from text_tables import write_table
from tiny_task import FirstToken

from search.budget.scale import (
    SCALES,
    SPACE_OF_TASK,
    check_scale,
    has_scales,
    names_own_data,
    register_resolvers,
    suitable_scale,
    with_default_space,
)
from search.config import CONF, options
from search.run import main
from spaces.dimensions import ConfigError
from spaces.space import Space


@pytest.fixture(autouse=True)
def resolver():
    register_resolvers()


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def test_a_value_follows_from_the_scale():
    values = {"width": "${scale:[16,32],[64],[256,512]}", "rates": {"float": "${scale:[0.1,1],[0.2,1],[0.3,1]}"}}
    found = [OmegaConf.to_container(OmegaConf.create({"scale": scale, **values}), resolve=True) for scale in SCALES]
    assert [each["width"] for each in found] == [[16, 32], [64], [256, 512]]
    assert [each["rates"]["float"] for each in found] == [[0.1, 1], [0.2, 1], [0.3, 1]]


@pytest.mark.slow
def test_every_scale_of_a_space_is_a_space_and_larger_ones_have_wider_networks():
    scaled = [name for name in options("space") if has_scales(composed(f"+space={name}"))]
    assert "text" in scaled
    for name in scaled:
        widths = []
        for scale in SCALES:
            tree = OmegaConf.to_container(composed(f"+space={name}", f"scale={scale}"), resolve=True)
            widths.append(max(each["model"]["width"] for each in Space(tree["space"]).largest()))
        assert widths == sorted(set(widths)), name


@pytest.mark.parametrize(
    ("rows", "gpu", "scale"),
    [(64, False, "small"), (900, True, "small"), (30_000, False, "small"), (30_000, True, "base")],
)
def test_the_scale_suits_the_number_of_examples_and_the_device(rows, gpu, scale):
    found, why = suitable_scale(FirstToken(rows=rows), gpu=gpu)
    assert found == scale
    assert f"scale={scale}, for {rows} training examples" in why


@pytest.mark.parametrize(
    ("overrides", "own"),
    [(["+space=vision"], False), (["+space=vision", "task=images", "task.folder=pictures"], True)],
)
def test_demonstrations_have_the_tiny_scale(overrides, own):
    config = composed(*overrides)
    assert names_own_data(config.task) == own
    width = OmegaConf.to_container(config, resolve=True)["space"]["model"]["width"]
    assert width == {"choice": [16, 24, 32]}, "unless another scale is set"


def test_a_scale_that_a_space_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="scale=base: the space nlp has one scale only"):
        check_scale(composed("+space=nlp", "scale=base"), "nlp")
    check_scale(composed("+space=nlp"), "nlp")


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        (["task=table", "task.file=a.csv"], ["+space=text"]),
        (["task=images"], ["+space=vision"]),
        (["task=table", "+space=nlp"], []),
        (["task=recall"], []),
        (["--help"], []),
    ],
)
def test_a_task_of_own_data_has_a_default_space(arguments, added):
    assert with_default_space(arguments) == arguments + added


def test_default_spaces_exist():
    assert set(SPACE_OF_TASK) <= set(options("task"))
    assert set(SPACE_OF_TASK.values()) <= set(options("space"))


def test_a_run_says_which_space_and_scale_it_takes_and_why(tmp_path, monkeypatch, capsys):
    file = write_table(tmp_path / "a.csv")
    given = {}
    monkeypatch.setattr(
        "search.workers.compose.run", lambda config, *, task, **_: given.update(config=config, task=task)
    )
    own = [f"task.file={file}", "task.text=review", "task.label=stars", "tracking=none"]
    monkeypatch.setattr("sys.argv", ["search.run", "task=table", *own])
    main()
    output = capsys.readouterr().err
    assert "No space is named: +space=text suits the task." in output
    assert "scale=small, for 48 training examples on a CPU (scale=... sets another)" in output
    assert given["config"]["space"]["model"]["width"] == {"choice": [32, 64, 128]}
    assert given["task"].steps("train", 1) == 48, "its data is not read again"
