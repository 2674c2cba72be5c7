import pytest
from tiny_task import OBJECTIVES, TREE, Silence, small_search, small_study

from search.study.records import front
from search.study.trials import enqueue_first, records
from search.study.warm_start import beginnings
from search.worker import work
from spaces.dimensions import ConfigError
from spaces.space import Space

NARROW = {**TREE, "model": {**TREE["model"], "width": 4}, "train": {**TREE["train"], "lr": {"choice": [0.5]}}}


def test_a_study_begins_with_the_front_of_another(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    first = small_study(url, name="first")
    work(first, small_search(), 4, Silence(), lambda trial: None, grace_s=60)
    members = front(records(first), OBJECTIVES)
    second = small_study(url, name="second", seed=5)
    given = beginnings(second._storage, "first", Space(TREE), OBJECTIVES)
    assert given == [first.trials[member.number].params for member in members]
    enqueue_first(second, given)
    work(second, small_search(seed=5), len(given), Silence(), lambda trial: None, grace_s=60)
    begun = records(second)
    assert [trial.architecture for trial in begun] == [member.architecture for member in members]
    assert all(trial.curve and trial.costs for trial in begun)  # learned and measured anew


def test_what_cannot_be_begun_with_is_said(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    first = small_study(url, name="first")
    work(first, small_search(), 2, Silence(), lambda trial: None, grace_s=60)
    with pytest.raises(ConfigError, match="warm_start: there is no study 'frist' in this storage; there are first"):
        beginnings(first._storage, "frist", Space(TREE), OBJECTIVES)
    with pytest.raises(ConfigError, match=r"the front of 'first' has . members, and none lies in this space"):
        beginnings(first._storage, "first", Space(NARROW), OBJECTIVES)
