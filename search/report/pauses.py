"""What pausing trials saved, in epochs, and risked: the members that the front may lack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from search import pareto
from search.samplers.curves import extrapolate_final_loss
from search.study.history import History
from search.study.records import Objectives, Record, State, front


class Predicted(NamedTuple):
    """A paused trial with the metric that its learning curve predicts for its last epoch."""

    record: Record
    metric: float
    std: float
    may_be_on_front: bool  # if it ended one standard deviation better


def predict_paused(records: Sequence[Record], objectives: Objectives) -> list[Predicted]:
    """The paused trials that have a learning curve, with predictions from those of the complete trials."""
    history = History.of(records, objectives)
    paused = [record for record in records if record.state == State.PAUSED and record.curve]
    rows = np.array([history.row(record.number) for record in paused], dtype=np.intp)
    losses, stds = extrapolate_final_loss(history, rows)
    members = [objectives.point(member) for member in front(records, objectives)]
    points = [point for point in members if point is not None]
    found = []
    for record, loss, std in zip(paused, losses, stds, strict=True):
        point = (loss - std, *(record.costs[name] for name in objectives.costs))
        dominated = bool(points) and bool(pareto.dominating(points, point).any())
        found.append(Predicted(record, objectives.loss(loss), float(std), not dominated))
    return found


def describe_pauses(predicted: Sequence[Predicted]) -> str:
    """What pausing saved and risked, in sentences."""
    epochs = sum(each.record.epochs for each in predicted)
    whole = sum(int(each.record.architecture["train"]["epochs"]) for each in predicted)
    count = sum(each.may_be_on_front for each in predicted)
    trials = f"{len(predicted)} paused trial{'s' * (len(predicted) != 1)}"
    return (
        f"Saved: the {trials} took {epochs} of {whole} epochs. Risked: {count} of them would be on the front if they "
        "ended one standard deviation (the bars) better than their learning curves predict (the points)."
    )
