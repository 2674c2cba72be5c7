"""The ranking of mechanisms by multi-query associative recall."""

from __future__ import annotations

import pytest

from search import ranking
from search.ranking import MECHANISMS, SIZES, Training, accuracies, contradictions


def test_the_known_order_is_contradicted_only_beyond_the_margin():
    known = dict(zip(MECHANISMS, (1.0, 0.9, 0.8, 0.5, 0.1), strict=True))
    assert contradictions(known) == []
    assert contradictions(known | {"gated": 0.91}) == []
    assert contradictions(known | {"gated": 0.95}) == ["gated 0.95 is better than delta 0.90"]
    assert len(contradictions(known | {"linear": 1.1})) == 4
    assert contradictions({"softmax": 0.5, "linear": 0.6}) == ["linear 0.60 is better than softmax 0.50"]


def test_the_learning_rate_is_chosen_on_validation_and_the_accuracy_is_that_on_test():
    runs = [Training("delta", SIZES[0], lr, seed, 1, 1) for lr in (0.1, 0.2) for seed in (0, 1)]
    results = [(0.5, 0.9), (0.5, 0.9), (0.4, 0.1), (0.8, 0.3)]
    assert accuracies(runs, results) == {(SIZES[0], "delta"): pytest.approx(0.2)}


@pytest.mark.slow
def test_the_command_trains_every_mechanism_and_prints_the_table(capsys):
    assert ranking.main(["--sizes", "1", "--rows", "64", "--epochs", "1", "--jobs", "1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| size | softmax | delta | gated | window | linear |"
    assert table[2].startswith("| width 16, state 256, 4 pairs, 32 tokens | 0.")
    assert "The known order: softmax > delta > gated > window > linear." in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "4"], "--sizes=4: it must be 1..3"),
        (["--only", "luck"], "--only: unknown mechanism 'luck'; known: softmax, delta"),
        (["--epochs", "0"], "epochs=0: it must be a whole number from 1"),
        (["--lr", "0"], "lr=0.0: it must be a number above 0"),
    ],
)
def test_invalid_arguments_are_refused_before_training(arguments, message, capsys):
    assert ranking.main(arguments) == 2
    assert message in capsys.readouterr().err
