import itertools
import json

import optuna
import pytest

from spaces.architecture import brief, describe, key, pattern, settings, short_settings
from spaces.dimensions import ConfigError
from spaces.space import Space

TREE = {
    "attention": {
        "softmax": {"_target_": "s.S"},
        "linformer": {"_target_": "l.L", "rank": {"choice": [16, 32]}},
        "longformer": {"_target_": "w.W", "window": {"int": [8, 32]}, "dilation": 1},
    },
    "model": {"_target_": "m.M", "depth": {"int": [1, 3]}, "width": 32, "heads": 2},
    "train": {"epochs": 2, "lr": {"float": [1e-3, 1e-2], "log": True}},
}
HYBRIDS = {**TREE, "pattern": {"choice": [["softmax"], ["longformer", "longformer", "softmax"]]}}


def draws(tree, n=60):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(n)]
    return [(Space(tree).suggest(trial), trial.params) for trial in trials]


def test_settings_of_unused_mechanisms_are_not_sampled():
    for architecture, parameters in draws(TREE):
        (name,) = set(architecture["pattern"])
        assert len(architecture["pattern"]) == architecture["model"]["depth"]
        assert set(architecture["attention"]) == {name}
        assert ("attention.linformer.rank" in parameters) == (name == "linformer")
        assert ("attention.longformer.window" in parameters) == (name == "longformer")


def test_a_pattern_repeats_over_depth_and_samples_only_its_mechanisms():
    seen = set()
    for architecture, parameters in draws(HYBRIDS):
        seen.add(tuple(architecture["pattern"]))
        assert ("attention.longformer.window" in parameters) == ("longformer" in architecture["pattern"])
    local = "longformer"
    assert seen == {("softmax",) * d for d in (1, 2, 3)} | {(local,), (local, local), (local, local, "softmax")}


def test_a_pattern_can_be_fixed_or_a_single_name():
    for fixed in (["linformer", "softmax"], "linformer"):
        for architecture, _ in draws({**TREE, "pattern": fixed}, 5):
            assert architecture["pattern"][0] == "linformer"


def test_dimensions_of_other_branches_are_not_sampled():
    branches = {"choice": {"small": {"_target_": "f.F", "ratio": {"int": [1, 2]}}, "none": None}}
    tree = {**TREE, "model": {**TREE["model"], "feed_forward": branches}}
    for architecture, parameters in draws(tree):
        drawn = architecture["model"]["feed_forward"]
        assert (drawn is None) == (parameters["model.feed_forward"] == "none")
        assert ("model.feed_forward.ratio" in parameters) == (drawn is not None)


@pytest.mark.parametrize("tree", [TREE, HYBRIDS])
def test_corners_are_all_combinations_of_bounds_without_repetition(tree):
    corners = [key(corner) for corner in Space(tree).corners()]
    assert len(corners) == len(set(corners))
    knobs = {"softmax": [{}], "linformer": [{"rank": 16}, {"rank": 32}], "longformer": [{"window": 8}, {"window": 32}]}
    expected = set()
    patterns = tree.get("pattern", {"choice": [[name] for name in knobs]})["choice"]
    for depth, names in itertools.product((1, 3), patterns):
        blocks = [names[block % len(names)] for block in range(depth)]
        used = sorted(set(blocks))
        for values in itertools.product(*(knobs[name] for name in used)):
            expected.add((tuple(blocks), json.dumps(dict(zip(used, values, strict=True)), sort_keys=True)))
    found = set()
    for text in corners:
        corner = json.loads(text)
        kept = {
            name: {knob: value for knob, value in config.items() if knob in ("rank", "window")}
            for name, config in corner["attention"].items()
        }
        found.add((tuple(corner["pattern"]), json.dumps(kept, sort_keys=True)))
    assert found == expected


def test_train_corners_are_the_bounds_of_train():
    assert list(Space(TREE).train_corners()) == [{"epochs": 2, "lr": 1e-3}, {"epochs": 2, "lr": 1e-2}]


def test_the_largest_architecture_of_each_pattern_has_the_upper_bounds():
    largest = list(Space(TREE).largest())
    assert [pattern(each) for each in largest] == ["softmax", "linformer", "longformer"]
    assert [short_settings(each).get("rank", short_settings(each).get("window")) for each in largest] == [None, 32, 32]
    assert all(each["model"]["depth"] == 3 and each["train"]["lr"] == 1e-2 for each in largest)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"atention": {}}, ["space: 'atention' is unknown; it accepts input, attention, model, pattern, roles, train"]),
        ({"attention": {}}, ["attention: missing"]),
        ({"model": {"_target_": "m.M"}}, ["model.depth=null: it must be a whole number from 1 to 1000"]),
        ({"model": {"_target_": "m.M", "depth": {"choice": [1, "deep"]}}}, ["model.depth='deep': it must be"]),
        ({"model": {"_target_": "m.M", "depth": {"int": [0, 2]}}}, ["model.depth=0: it must be"]),
        ({"attention": {"mine": {"rank": 3}}}, ["attention.mine: names no class; write _target_"]),
        ({"model": {"depth": 1}}, ["model: names no class; write _target_"]),
        ({"pattern": ["softmx"]}, ["pattern: 'softmx' is not among this space's mechanisms: softmax, linformer"]),
        ({"pattern": [["softmax"]]}, ["pattern: ['softmax'] is not among this space's mechanisms: softmax, linformer"]),
        ({"attention": {"mine": 1}}, ["attention.mine=1: it must be a mapping with the key _target_"]),
        ({"pattern": []}, ["pattern=[]: it must be a list of mechanisms"]),
        ({"pattern": 5, "roles": {"cross": 5}}, ["pattern=5: it must be a list", "roles.cross: 5 is not among this"]),
        ({"roles": 5, "input": [1]}, ["roles=5: it must be a mapping", "input=[1]: it must be a mapping"]),
        ({"pattern": {"choice": [[]]}}, ["pattern=[]: it must be a list of mechanisms"]),
        (
            {"model": {"_target_": "m.M", "depth": {"int": [1, 6], "stpe": 2}}, "train": {"lr": {"float": [2, 1]}}},
            ["model.depth: unknown key 'stpe' in a dimension 'int'", "train.lr: low 2 is above high 1"],
        ),
        (
            {"model": {"_target_": "m.M", "depth": {"itn": [1, 6]}}},
            ["model.depth: {'itn': [1, 6]} is no value; a dimension has"],
        ),
        (
            {
                "attention": {
                    "a": {"_target_": "a.A", "b": {"choice": {"c": {"_target_": "d.D", "e": {"int": [2, 1]}}}}}
                }
            },
            ["attention.a.b.e: low 2 is above high 1"],
        ),
    ],
)
def test_all_mistakes_are_reported_at_once(change, messages):
    with pytest.raises(ConfigError) as error:
        Space({**TREE, **change})
    assert all(message in str(error.value) for message in messages), str(error.value)


def test_an_architecture_survives_json_and_is_identified_by_its_key():
    architectures = [architecture for architecture, _ in draws(HYBRIDS)]
    for architecture in architectures:
        assert json.loads(key(architecture)) == architecture
    assert len({key(architecture) for architecture in architectures}) > 1
    a, b = {"model": {"x": 1, "y": 2}}, {"model": {"y": 2, "x": 1}}
    assert key(a) == key(b)


def test_an_architecture_is_described_by_its_shortest_unique_names():
    architecture = {
        "model": {"_target_": "m.M", "depth": 2},
        "pattern": ["linformer", "synthesizer"],
        "attention": {"linformer": {"_target_": "l.L", "rank": 16}, "synthesizer": {"_target_": "s.S", "rank": 8}},
        "train": {"lr": 0.00123456},
    }
    assert settings(architecture)["attention.linformer.rank"] == 16
    assert (
        describe(architecture, {"model.depth", "attention.synthesizer.rank"}) == "linformer+synthesizer depth=2 rank=8"
    )
    assert describe(architecture) == "linformer+synthesizer depth=2 linformer.rank=16 synthesizer.rank=8 lr=0.00123"
    assert describe(architecture, set()) == "linformer+synthesizer depth=2"  # nothing is searched


def test_dimension_names_include_those_of_branches():
    branches = {"choice": {"small": {"_target_": "f.F", "ratio": {"int": [1, 2]}}, "none": None}}
    tree = {**HYBRIDS, "model": {**TREE["model"], "feed_forward": branches}}
    assert Space(tree).dimension_names() == {
        "pattern",
        "model.depth",
        "model.feed_forward",
        "model.feed_forward.ratio",
        "attention.linformer.rank",
        "attention.longformer.window",
        "train.lr",
    }


def test_smallest_gives_parameters_of_the_smallest_models():
    tree = {**TREE, "model": {**TREE["model"], "width": {"choice": [64, 16, 32]}}}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for parameters in Space(tree).smallest():
        study.enqueue_trial(parameters)
    drawn = [Space(tree).suggest(study.ask()) for _ in range(3)]
    assert [each["pattern"] for each in drawn] == [["softmax"], ["linformer"], ["longformer"]]
    assert all((each["model"]["depth"], each["model"]["width"]) == (1, 16) for each in drawn)
    assert list(Space({**tree, "pattern": ["softmax", "linformer"]}).smallest()) == [
        {"model.depth": 1, "model.width": 16}
    ]
    assert next(Space(tree).smallest(largest=True)) == {"pattern": "softmax", "model.depth": 3, "model.width": 64}


def test_options_that_are_no_numbers_are_sampled_in_the_smallest_models():
    names = {"pooling": {"choice": ["mean", "max", "last"]}, "sparsity": {"choice": [0, 0.5, "2:4"]}}
    space = Space({**TREE, "model": {**TREE["model"], **names}, "pattern": ["softmax"]})
    (parameters,) = space.smallest()
    assert parameters == {"model.depth": 1}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(20):
        study.enqueue_trial(parameters)
        drawn.append(space.suggest(study.ask())["model"])
    assert {each["depth"] for each in drawn} == {1}
    assert {each["pooling"] for each in drawn} == {"mean", "max", "last"}
    assert {each["sparsity"] for each in drawn} == {0, 0.5, "2:4"}


def test_the_grid_contains_every_architecture_once():
    tree = {**TREE, "train": {"epochs": 2, "lr": {"float": [0.1, 0.3], "step": 0.1}}}
    tree["attention"] = {**TREE["attention"], "longformer": {"_target_": "w.W", "window": {"int": [8, 32], "step": 8}}}
    space = Space(tree)
    grid = list(space.grid())
    architectures = {key(space.suggest(optuna.trial.FixedTrial(each))) for each in grid}
    assert len(grid) == len(architectures) == 3 * 3 * (1 + 2 + 4)
    drawn = {key(architecture) for architecture, _ in draws(tree, 200)}
    assert drawn <= architectures


def test_a_grid_over_a_continuous_dimension_is_refused():
    with pytest.raises(
        ConfigError, match=r"train.lr is continuous; a grid search \(n_trials=null\) needs a choice or a step"
    ):
        Space(TREE).grid()


EACH = {
    **TREE,
    "model": {**TREE["model"], "depth": 3, "feed_forward": {"each": {"choice": [0.5, 1.0]}}},
    "pattern": {"each": {"choice": ["softmax", "linformer"]}},
}


def test_each_gives_every_block_a_dimension_of_its_own():
    names = {f"{name}.{block}" for name in ("pattern", "model.feed_forward") for block in range(3)}
    assert names < Space(EACH).dimension_names()
    patterns, shares = set(), set()
    for architecture, parameters in draws(EACH, 200):
        patterns.add(tuple(architecture["pattern"]))
        shares.add(tuple(architecture["model"]["feed_forward"].values()))
        assert architecture["pattern"] == [parameters[f"pattern.{block}"] for block in range(3)]
    assert len(patterns) == len(shares) == 2**3


def test_the_corners_with_each_have_the_same_value_in_all_blocks():
    corners = list(Space(EACH).corners())
    assert {tuple(corner["pattern"]) for corner in corners} == {("softmax",) * 3, ("linformer",) * 3}
    assert {tuple(corner["model"]["feed_forward"].values()) for corner in corners} == {(0.5,) * 3, (1.0,) * 3}
    assert len(corners) == len({key(corner) for corner in corners}) == 2 + 2 * 2  # linformer has two ranks


@pytest.mark.parametrize("largest", [False, True])
def test_with_each_the_smallest_and_the_largest_fix_the_dimensions_of_all_blocks(largest):
    found = list(Space(EACH).smallest(largest=largest))
    share = 1.0 if largest else 0.5
    assert found == [
        {f"pattern.{block}": name for block in range(3)} | {f"model.feed_forward.{block}": share for block in range(3)}
        for name in ("softmax", "linformer")
    ]
    assert [each["pattern"] for each in Space(EACH).largest()] == [["softmax"] * 3, ["linformer"] * 3]


def test_the_values_of_all_blocks_are_shown_as_one_setting():
    architecture = {"pattern": ["a", "b", "b"], "model": {"feed_forward": {"0": 1.0, "1": 0.5, "2": 0}}, "train": {}}
    assert describe(architecture) == "a+b*2 feed_forward=1,0.5,0"
    sized = {**architecture, "model": {"depth": 3, "width": 8, **architecture["model"]}, "train": {"lr": 0.1}}
    assert brief(sized) == "a+b*2 3x8 feed_forward=1,0.5,0 lr=0.1"


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"depth": {"int": [1, 3]}, "x": {"each": 1}}, "model.x: each needs a fixed model.depth, a whole number"),
        ({"depth": 2, "x": {"each": 1, "log": True}}, "model.x: each has no other keys beside it; found log"),
        ({"depth": 2, "x": {"each": {"choice": []}}}, "model.x.0: the choice is empty; list at least one value"),
    ],
)
def test_each_is_refused(model, problem):
    with pytest.raises(ConfigError, match=problem):
        Space({**TREE, "model": {**TREE["model"], **model}})
