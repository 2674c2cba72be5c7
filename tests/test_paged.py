"""A study is read page by page, and neither reading nor running trials takes more memory than the trials."""

import gc
import math
import tracemalloc

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.load.measure import NoReporter, fill, opened
from search.load.objective import fake_search
from search.study import paged
from search.study.storage import close_storage, open_read_only, open_storage
from search.study.store import TrialStore
from search.worker import work


def written_out(trial):
    """As text, since NaN is not equal to itself; databases return rows in any order, so dicts are sorted."""
    fields = {name: sorted(value.items()) if isinstance(value, dict) else value for name, value in vars(trial).items()}
    return repr(sorted(fields.items()))


def numbers(trials):
    return [trial.number for trial in trials]


@pytest.mark.parametrize(("page", "most"), [(1, 500), (3, 0), (7, 500), (8, 500)])
def test_trials_are_read_as_by_optuna(page, most, url, monkeypatch, time_zone):
    monkeypatch.setattr(paged, "PAGE", page)
    monkeypatch.setattr(paged, "MAX_INCLUDED", most)
    storage = open_storage(url=url)
    for name in ("other", "own"):
        study = optuna.create_study(storage=storage, study_name=name, directions=["minimize"] * 3)
        for state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING, TrialState.PRUNED) * 2:
            trial = optuna.create_trial(
                state=state,
                values=[math.inf, -1.5, 0.0] if state == TrialState.COMPLETE else None,
                params={"z": 0.5, "a": "c", "b": 3},
                distributions={
                    "z": FloatDistribution(0, 1),
                    "a": CategoricalDistribution(["b", "c", None]),
                    "b": IntDistribution(1, 9, step=2),
                },
                user_attrs={"b": [1, {"c": 2.5}]},
                system_attrs={"fixed_params": {"a": 1}},
                constraints={"d": 1.0},
                intermediate_values={3: math.nan, 1: 2.5, 2: -math.inf} if state == TrialState.PRUNED else {},
            )
            study.add_trial(trial)
    own, backend = study._study_id, study._storage._backend
    expected = RDBStorage._get_trials(backend, own, None, set(), -1)
    assert len(expected) == 8
    read = backend._get_trials(own, None, set(), -1)
    assert list(map(written_out, read)) == list(map(written_out, expected))
    assert [list(trial.params) for trial in read] == [["z", "a", "b"]] * 8
    with open_read_only(url) as reading:
        assert list(map(written_out, reading.get_all_trials(own))) == list(map(written_out, expected))
    last = expected[-1]._trial_id
    assert numbers(backend._get_trials(own, None, {expected[2]._trial_id, last}, last - 1)) == [2, 7]
    assert numbers(backend._get_trials(own, [TrialState.WAITING], set(), -1)) == [2, 6]
    with pytest.raises(KeyError):
        backend._get_trials(own + 1, None, set(), -1)
    close_storage(backend)


def traced(action):
    """What ``action`` returns, and the bytes that live after it and at the peak."""
    gc.collect()
    tracemalloc.start()
    result = action()
    peak = tracemalloc.get_traced_memory()[1]
    gc.collect()
    live = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return result, live, peak


@pytest.mark.slow
def test_reading_takes_little_more_than_the_memory_of_the_trials(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    fill(url, "study", 3 * paged.PAGE)
    with opened(url, "study") as study:
        optuna.get_all_study_names(study._storage)  # imports
        trials, live, peak = traced(lambda: study.get_trials(deepcopy=False))
        assert len(trials) == 3 * paged.PAGE
        assert peak < 2 * live, "of one query it is 4 times"


@pytest.mark.slow
def test_a_worker_keeps_no_more_than_the_trials(tmp_path):
    url, warm_up, trials = f"sqlite:///{tmp_path / 'a.db'}", 3, 10
    with opened(url, "study") as study:
        store, search = TrialStore(study), fake_search(RandomSampler(seed=0))

        def run(total):
            work(store, search, total, NoReporter(), lambda record: None, grace_s=60)

        run(warm_up)
        _, kept, _ = traced(lambda: run(warm_up + trials))
    with opened(url, "study") as study:
        _, read, _ = traced(lambda: TrialStore(study).records())
    assert kept / trials < 1.5 * read / (warm_up + trials)
