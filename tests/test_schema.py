"""The schema of a configuration, and settings checked against the annotations of what takes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.samplers import BaseSampler, TPESampler

from search.budget.scale import register_resolvers
from search.config import CONF, COSTS, GROUPS
from search.config.schema import RunConfig, validate_config
from search.samplers.seeded import seeded_sampler
from spaces.attention import Mechanism
from spaces.dimensions import ConfigError
from spaces.instantiate import instantiate
from spaces.schema import expected, shown, wrong_type
from spaces.tasks import Task


@pytest.fixture(scope="module")
def composed():
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=["+space=smoke"]), resolve=True)


def messages(config):
    with pytest.raises(ConfigError) as caught:
        validate_config(config)
    return str(caught.value).splitlines()


def test_the_schema_has_the_keys_of_the_configuration(composed):
    assert set(RunConfig.model_fields) == set(composed)
    validate_config(composed)


@pytest.mark.parametrize("key", RunConfig.model_fields)
def test_a_missing_key_is_reported_with_what_is_accepted(composed, key):
    (message,) = messages({name: value for name, value in composed.items() if name != key})
    assert message.startswith(f"{key}: missing; it must be ")


NOTHING = "no value of YAML is accepted"
ACCEPTED = {  # besides null, values of YAML that are no error
    "study": ["a", "1", "auto", "cpu", "90s", "10m", "16-mixed"],
    "n_trials": ["auto", 1],
    "budget": ["90s", 1, 0.5, "1"],
    "patience": ["90s", 1, "1"],
    "min_gain": [0.5, 1],
    "workers": ["auto", 1],
    "seed": [0, 1],
    "scale": ["auto"],
    "costs": [["flops"], ["latency_ms", "parameters"]],
    "limits": [{}, {"flops": 1}],
    "prefer": [{}, {"flops": 1}],
    "warm_start": ["a", "1"],
    "teacher": ["a", "1"],
    "baselines": [True, False],
    "device": ["auto", "cpu", "cuda:1"],
    "hardware": ["auto", "a", "1"],
    "precision": ["16-mixed"],
    "compile": [True, False],
    "output": ["quiet", "json"],
    "checkpoints": ["a", "1"],
    "weights_mb": [0, 1, 0.5],
    "measuring_share": [0, 0.5, 1],
}
NULL = {"study", "n_trials", "budget", "patience", "min_gain", "teacher", "warm_start", "weights_mb"}
TEXTS = {"teacher", "warm_start", "checkpoints", "hardware"}  # any text will do
VALUES = [
    *[None, True, False, 0, 1, -1, 0.5, -0.5, math.nan, math.inf, 10**30, "", "a", "1", "auto", "cpu", "cuda:1", "90s"],
    *["10m", "16-mixed", [], ["flops"], ["flops", "flops"], [["flops"]], ["latency_ms", "parameters"], [1], {}],
    *[{"flops": 1}, {"flops": math.nan}, {"flops": 0}, {"a": 1}, {"flops": True}],
]


@pytest.mark.parametrize("key", [key for key in RunConfig.model_fields if key not in GROUPS])
def test_a_key_takes_the_values_of_its_kind_only(composed, key):
    for value in VALUES:
        if (
            (value is None and key in NULL)
            or repr(value) in map(repr, ACCEPTED[key])
            or (isinstance(value, str) and value and key in TEXTS)
            or (value == 10**30 and key in ("n_trials", "patience", "budget", "min_gain", "weights_mb"))
        ):
            validate_config({**composed, key: value})
        else:
            for message in messages({**composed, key: value}):
                assert message.startswith(key), (value, message)
                assert "it must be " in message or "; known: latency_ms, parameters" in message, (value, message)


def test_an_unknown_key_is_reported_with_the_known_ones(composed):
    (message,) = messages({**composed, "sede": 1})
    assert message.startswith("unknown key 'sede'; known: space, task, sampler, ")
    (message,) = messages({**composed, "limits": {"latency": 1}})
    assert message == f"limits: unknown key 'latency'; known: {', '.join(COSTS)}"


@pytest.mark.parametrize(
    ("annotation", "fitting", "other", "words"),
    [
        (int, [0, -3], [True, 1.0, "1", None, math.nan], "a whole number"),
        (float, [0, 0.5], [True, "1", None, math.nan, -math.inf], "a finite number"),
        (bool, [True], [0, "true", None], "true or false"),
        (str, ["", "a"], [1, None, True, ["a"]], "text"),
        (int | None, [1, None], ["a", 0.5], "a whole number or null"),
        (Literal["a", "b", "c"], ["a"], ["d", None, 1, ["a"]], "a, b or c"),
        (Sequence[str], [[], ["a"]], ["a", [1], None, 1], "a list, each item text"),
        (Mapping[str, Any], [{}, {"a": 1}], [[], "a", None, 1], "a mapping"),
        (BaseSampler | None, [None, TPESampler()], ["a"], "an object of BaseSampler, given by its _target_ or null"),
    ],
)
def test_a_value_is_checked_against_an_annotation(annotation, fitting, other, words):
    assert expected(annotation) == words
    assert [wrong_type(value, annotation) for value in fitting] == [""] * len(fitting)
    assert [wrong_type(value, annotation) for value in other] == [f"it must be {words}"] * len(other)


def test_messages_show_the_words_of_yaml_and_shorten_long_values():
    assert [shown(value) for value in (None, True, False, "a", 1.5)] == ["null", "true", "false", "'a'", "1.5"]
    assert len(shown(["a" * 1000] * 1000)) < 1000


class Called(Exception):  # noqa: N818
    """Raised by what must not be called."""


def call(*_, **__):
    raise Called


class NoTask:
    def __init__(self):
        raise Called


class Annotated(Task):
    def __init__(self, *, others: Mapping[str, Task] | None = None, size: int = 1, unknown: "NoSuchName" = 0):  # noqa: F821
        self.others = others

    def examples(self, split):
        raise NotImplementedError


HERE = __name__


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": f"{HERE}.call"}, f"_target_='{HERE}.call': it must be a subclass of spaces.tasks.Task"),
        ({"_target_": f"{HERE}.NoTask"}, f"_target_='{HERE}.NoTask': it must be a subclass of spaces.tasks.Task"),
        ({"_target_": "os"}, "_target_='os': it must be a subclass of spaces.tasks.Task"),
        ({"_target_": f"{HERE}.Annotated", "size": {"_target_": f"{HERE}.call"}}, "size: names a class"),
        ({"_target_": f"{HERE}.Annotated", "others": {"a": {"_target_": f"{HERE}.call"}}}, "others.a: _target_="),
        ({"_target_": f"{HERE}.Annotated", "unknown": {"_target_": f"{HERE}.call"}}, "unknown: names a class"),
        ({"_target_": f"{HERE}.Annotated", "others": {"a": 1}, "size": "x"}, "others={'a': 1}: it must be a mapping"),
    ],
)
def test_what_does_not_belong_in_a_place_is_refused_before_it_is_called(node, message):
    with pytest.raises(ConfigError) as caught:
        instantiate(Task, node, "task")
    assert message in str(caught.value)


def test_what_belongs_there_is_constructed():
    node = {"_target_": f"{HERE}.Annotated", "others": {"a": {"_target_": f"{HERE}.Annotated"}}, "unknown": [1]}
    assert isinstance(instantiate(Task, node, "task").others["a"], Annotated)
    with pytest.raises(ConfigError, match=r"it must be a subclass of spaces\.attention\.Mechanism"):
        instantiate(Mechanism, node, "attention.mine")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_startup_trials": -1}, "n_startup_trials=-1: it must be a whole number from 0"),
        ({"n_startup_trials": "abc"}, "n_startup_trials='abc': it must be a whole number"),
        ({"n_startup_trials": True}, "n_startup_trials=true: it must be a whole number"),
        ({"n_startup_trials": 1.5}, "n_startup_trials=1.5: it must be a whole number"),
        ({"n_startup_trials": None}, "n_startup_trials=null: it must be a whole number"),
        ({"gamma": "abc"}, "gamma='abc': it must be null"),
    ],
)
def test_settings_of_optunas_samplers_are_checked(setting, message):
    with pytest.raises(ConfigError) as caught:
        seeded_sampler({"_target_": "optuna.samplers.TPESampler", **setting}, seed=0)
    assert str(caught.value).startswith(f"sampler: {message}")
