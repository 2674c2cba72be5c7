import optuna
import pytest

from spaces.dimensions import Choice, ConfigError, Float, Int, parse


@pytest.mark.parametrize(
    ("node", "dimension", "bounds"),
    [
        ({"choice": [64, 16]}, Choice({64: 64, 16: 16}), [16, 64]),
        ({"choice": ["b", "a"]}, Choice({"b": "b", "a": "a"}), ["b", "a"]),
        ({"choice": [None, True]}, Choice({None: None, True: True}), [None, True]),
        ({"choice": [["a"], ["a", "b"]]}, Choice({"a": ["a"], "a, b": ["a", "b"]}), [["a"], ["a", "b"]]),
        ({"choice": {"x": {"k": 1}, "y": 2}}, Choice({"x": {"k": 1}, "y": 2}), [{"k": 1}, 2]),
        ({"int": [1, 6]}, Int(1, 6), [1, 6]),
        ({"int": [4, 4]}, Int(4, 4), [4]),
        ({"int": [8, 64], "step": 8}, Int(8, 64, step=8), [8, 64]),
        ({"int": [1, 64], "log": True}, Int(1, 64, log=True), [1, 64]),
        ({"float": [0, 1]}, Float(0.0, 1.0), [0.0, 1.0]),
        ({"float": [0.1, 0.4], "step": 0.1}, Float(0.1, 0.4, step=0.1), [0.1, 0.4]),
        ({"float": [1e-4, 1e-2], "log": True}, Float(1e-4, 1e-2, log=True), [1e-4, 1e-2]),
    ],
)
def test_a_mapping_with_a_key_of_a_dimension_is_parsed(node, dimension, bounds):
    assert parse(node, "x") == dimension
    assert dimension.bounds() == bounds


@pytest.mark.parametrize("node", [4, "choice", None, [1, 2], {}, {"_target_": "a.B"}, {"rank": {"int": [1, 2]}}])
def test_other_nodes_are_plain_values(node):
    assert parse(node, "x") is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"int": [1, 6], "stpe": 2}, "depth: unknown key 'stpe' in a dimension 'int'; it accepts int, step, log"),
        ({"choice": [1], "log": True}, "depth: unknown key 'log' in a dimension 'choice'; it accepts choice"),
        ({"int": [1, 2], "float": [1, 2]}, "depth: unknown key 'float' in a dimension 'int'"),
        ({"choice": []}, "depth: the choice is empty; list at least one value"),
        ({"choice": {}}, "depth: the choice is empty"),
        ({"choice": "abc"}, "depth: choice='abc'; it must be a list of values"),
        ({"choice": 3}, "depth: choice=3; it must be a list of values"),
        ({"choice": [1, 2, 1]}, "depth: duplicate option 1"),
        ({"choice": [{"a": 1}]}, "branches need names"),
        ({"int": [2, 1]}, "depth: low 2 is above high 1"),
        ({"int": [1, 2, 3]}, "depth: int=[1, 2, 3]; it must be two integers, [low, high]"),
        ({"int": 3}, "depth: int=3; it must be two integers"),
        ({"int": [1, 2.5]}, "it must be two integers"),
        ({"int": [False, True]}, "it must be two integers"),
        ({"float": ["a", 1]}, "it must be two finite numbers"),
        ({"float": [0, float("inf")]}, "it must be two finite numbers"),
        ({"float": [float("nan"), 1]}, "it must be two finite numbers"),
        ({"float": [0, 1], "log": True}, "depth: log: low 0 must be above 0"),
        ({"float": [1, 2], "log": "yes"}, "depth: log='yes'; it must be true or false"),
        ({"int": [1, 8], "log": True, "step": 1}, "depth: step and log are mutually exclusive"),
        ({"int": [1, 8], "step": 0}, "depth: step=0; it must be an integer above 0"),
        ({"int": [1, 8], "step": 0.5}, "depth: step=0.5; it must be an integer above 0"),
        ({"int": [1, 8], "step": 2}, "depth: high 8 is not low 1 plus a multiple of step 2"),
    ],
)
def test_mistakes_are_reported_with_their_place(node, message):
    with pytest.raises(ConfigError) as error:
        parse(node, "depth")
    assert message in str(error.value)


def test_samples_are_within_their_dimension():
    dimensions = {
        "choice": Choice({"a": ["a"], 3: 3}),
        "int": Int(2, 8, step=3),
        "log": Int(1, 100, log=True),
        "float": Float(0.0, 1.0, step=0.25),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [
        {name: dim.suggest(trial, name) for name, dim in dimensions.items()}
        for trial in (study.ask() for _ in range(50))
    ]
    assert {str(values["choice"]) for values in drawn} == {"['a']", "3"}
    assert {values["int"] for values in drawn} == {2, 5, 8}
    assert {values["float"] for values in drawn} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert all(1 <= values["log"] <= 100 for values in drawn)
