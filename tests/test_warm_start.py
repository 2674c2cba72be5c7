import pytest
from tiny_task import OBJECTIVES, TREE, run_trials, tiny_search, tiny_study

from search.study.records import front
from search.study.store import TrialStore
from search.study.warm_start import initial_params
from spaces.dimensions import ConfigError
from spaces.space import Space

NARROW = {**TREE, "model": {**TREE["model"], "width": 4}, "train": {**TREE["train"], "lr": {"choice": [0.5]}}}


@pytest.mark.slow
def test_a_study_starts_with_the_front_of_another_one(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    first = tiny_study(url, name="first")
    run_trials(first, tiny_search(), 4)
    members = front(TrialStore(first).records(), OBJECTIVES)
    second = tiny_study(url, name="second", seed=5)
    given = initial_params(second._storage._backend, "first", Space(TREE), OBJECTIVES)
    assert given == [first.trials[member.number].params for member in members]
    TrialStore(second).enqueue_first(given)
    run_trials(second, tiny_search(seed=5), len(given))
    trials = TrialStore(second).records()
    assert [trial.architecture for trial in trials] == [member.architecture for member in members]
    assert all(trial.curve and trial.costs for trial in trials)  # trained and measured again


@pytest.mark.slow
def test_an_unknown_study_or_an_unfit_front_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    first = tiny_study(url, name="first")
    run_trials(first, tiny_search(), 2)
    with pytest.raises(ConfigError, match=r"there is no study 'frist' in .*; there are first"):
        initial_params(first._storage._backend, "frist", Space(TREE), OBJECTIVES)
    with pytest.raises(ConfigError, match=r"none of the . trials on the front of 'first' is in this space"):
        initial_params(first._storage._backend, "first", Space(NARROW), OBJECTIVES)
