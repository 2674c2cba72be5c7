"""A study is read page by page, and neither reading nor running trials takes more memory than the trials."""

import gc
import tracemalloc

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.load.measure import NoReporter, fill, opened
from search.load.objective import fake_search
from search.study import paged
from search.study.storage import close_storage, open_read_only, open_storage
from search.study.store import TrialStore
from search.worker import work


@pytest.mark.parametrize("page", [1, 3, 7, 8])
def test_pages_are_the_trials_of_one_query(page, url, monkeypatch):
    monkeypatch.setattr(paged, "PAGE", page)
    storage = open_storage(url=url)
    for name in ("other", "own"):
        study = optuna.create_study(storage=storage, study_name=name)
        for state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING, TrialState.PRUNED) * 2:
            trial = optuna.create_trial(
                state=state,
                value=1.0 if state == TrialState.COMPLETE else None,
                params={"a": 0.5},
                distributions={"a": optuna.distributions.FloatDistribution(0, 1)},
                user_attrs={"b": [1, 2]},
            )
            study.add_trial(trial)
    own, backend = study._study_id, study._storage._backend
    expected = RDBStorage._get_trials(backend, own, None, set(), -1)
    assert len(expected) == 8
    assert backend._get_trials(own, None, set(), -1) == expected
    assert study.get_trials() == expected
    with open_read_only(url) as reading:
        assert reading.get_all_trials(own) == expected
    last = expected[-1]._trial_id
    assert backend._get_trials(own, None, {expected[2]._trial_id}, last - 1) == [expected[2], expected[7]]
    assert backend._get_trials(own, [TrialState.WAITING], set(), -1) == [expected[2], expected[6]]
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
        assert peak < 2.5 * live, "of one query it is 4 times"


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
