"""FLOPs as sums over parts, against those of whole networks."""

import numpy as np
import pytest

from search.costs.counted import flops
from search.costs.latency import FlopsLatency
from search.costs.measured import MeasuredCosts
from search.costs.parts import SummedFlops
from search.samplers.candidates import Draw
from spaces.architecture import network_key
from spaces.build import build, task_of
from spaces.instantiate import instantiate
from spaces.space import Space
from spaces.tasks import Task
from tests.test_conf import FEW_TEXTS, SPACES, composed

PER_BLOCK = [  # of the space nlp
    "space.model.depth=3",
    "+space.pattern={each:{choice:[softmax,longformer,linformer]}}",
    "~space.model.feed_forward",
    "+space.model.feed_forward={each:{choice:[0,1,2]}}",
]
SMALL = {
    "generation": ["++task.length=24", "++task.generate=8", "++task.train=40"],
    "translation": ["++task.train=60", "++task.validation=10", "++task.test=10", "++task.clauses=1"],
    **{name: [*few] for name, few in FEW_TEXTS.items()},
}


def drawn(space, count, seed=0):
    """Architectures with different networks, or as many as there are."""
    random, found = np.random.default_rng(seed), {}
    for _ in range(10 * count):
        architecture = space.suggest(Draw(random))
        if len(found) < count:
            found.setdefault(network_key(architecture), architecture)
    return list(found.values())


def of(name, *overrides):
    config = composed(f"+space={name}", *SMALL.get(name, []), *overrides)
    return Space(config["space"]), instantiate(Task, config["task"], "task")


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *(pytest.param(name, [], id=name) for name in SPACES),
        pytest.param("nlp", PER_BLOCK, id="per block"),
        pytest.param("translation", ["++space.model.copies=true"], id="copies"),
    ],
)
def test_the_sum_over_the_parts_is_what_the_whole_network_computes(name, overrides):
    space, task = of(name, *overrides)
    summed = SummedFlops(task)
    for architecture in drawn(space, 15):
        own = task_of(architecture, task)
        expected = flops(build(dict(architecture), task), own.sample(), use=own.predict)
        assert summed.of(architecture) == expected, architecture


def test_networks_of_known_parts_are_not_built(monkeypatch):
    space, task = of("nlp", *PER_BLOCK)
    built = []
    monkeypatch.setattr("search.costs.parts.build", lambda *given: built.append(given) or build(*given))
    summed = SummedFlops(task)
    architectures = drawn(space, 200)
    for architecture in architectures:
        summed.of(architecture)
    assert 0 < len(built) < len(architectures) / 2


def test_candidates_have_all_counted_costs_that_were_asked_for():
    space, task = of("nlp")
    (architecture,) = drawn(space, 1)
    few, all_counted = (
        MeasuredCosts(task, FlopsLatency(), also=also) for also in (["latency_ms", "flops"], ["memory_mb"])
    )
    assert few.counted_of_candidate(architecture) == {"flops": few.counted(architecture)["flops"]}
    assert all_counted.counted_of_candidate(architecture) == all_counted.counted(architecture)


def test_the_parts_of_a_network_of_the_user_are_unknown():
    space, task = of("nlp")
    (architecture,) = drawn(space, 1)
    own = {**architecture, "model": {**architecture["model"], "_target_": "my_models.Encoder"}}
    assert SummedFlops(task).of(own) is None
