"""Derived seeds: equal to those of earlier versions, and different for different parts."""

from itertools import product

from spaces.seeds import epoch_seed, repetition_seed, split_seed, trial_seed
from spaces.tasks import SPLITS, split_generator


def test_parts_of_the_same_kind_have_different_seeds():
    for derived in (trial_seed, epoch_seed):
        assert len({derived(seed, index) for seed, index in product(range(5), range(300))}) == 1500
    assert len({split_seed(seed, split, 3) for seed, split in product(range(9), range(3))}) == 27
    assert len({repetition_seed(epoch_seed(0, epoch), n) for epoch, n in product(range(99), range(9))}) == 891


def test_trial_seeds_fit_numpy():
    assert 0 <= trial_seed(10**9, 10**6) < 2**32


def test_seeds_are_those_of_recorded_runs():
    assert (trial_seed(2, 7), epoch_seed(2, 7), repetition_seed(5, 2)) == (2_000_013, 20_021, 2_000_011)
    assert [split_generator(4, split).initial_seed() for split in SPLITS] == [12, 13, 14]
