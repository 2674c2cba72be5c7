"""What repeated trainings tell about the members of a front: means with intervals, ties and lucky members.

- The interval of a mean is that of Student's t distribution, at 95 %. It is about the noise of training, not about that
  of a finite split.
- A member was lucky if its metric in the search is better than the 95 % prediction interval of a further training.
- A member is tied with a cheaper one if its mean on validation is not significantly better, by Welch's t-test, 1947, at
  5 %, one-sided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy import stats

from search.report.intervals import Sample, sample
from search.study.confirmations import Repetition
from search.study.records import Objectives, Record, front
from spaces.evaluation import LEVEL


@dataclass(frozen=True)
class Confirmed:
    """A member of a front with its repeated trainings.

    Attributes:
        record: of the search.
        validation: the objective on validation.
        test: the same on test; None if it has none there.
        is_lucky: whether the search had a better metric than a further training may have.
        on_front: whether it is on the front of the means.
        tied_with: the cheapest member that it is not significantly better than; None if there is none.
    """

    record: Record
    validation: Sample
    test: Sample | None
    is_lucky: bool
    on_front: bool
    tied_with: int | None


def confirmed(
    members: Sequence[Record], repetitions: Mapping[int, Mapping[int, Repetition]], objectives: Objectives
) -> list[Confirmed]:
    """The members with at least two repetitions, in their order, which is that of ascending cost."""
    repeated = []
    for member in members:
        found = repetitions.get(member.number, {}).values()
        if (validation := sample(found, "validation", objectives)) is not None:
            repeated.append((member, validation, sample(found, "test", objectives)))
    by_mean = [replace(member, metric=validation.mean) for member, validation, _ in repeated]
    on_front = {member.number for member in front(by_mean, objectives)}
    results = list[Confirmed]()
    for at, (member, validation, test) in enumerate(repeated):
        tied = next(
            (other.number for other, cheaper, _ in repeated[:at] if _tied(validation, cheaper, objectives)), None
        )
        assert member.metric is not None, "members of a front are complete"
        gain = objectives.loss(validation.mean) - objectives.loss(member.metric)
        lucky = gain > validation.reach
        results.append(Confirmed(member, validation, test, lucky, member.number in on_front, tied))
    return results


def _tied(sample: Sample, cheaper: Sample, objectives: Objectives) -> bool:
    """Whether ``sample`` is not significantly better."""
    loss, other = objectives.loss(sample.mean), objectives.loss(cheaper.mean)
    if sample.std == cheaper.std == 0:
        return loss >= other
    sizes = {"nobs1": len(sample.values), "nobs2": len(cheaper.values), "std1": sample.std, "std2": cheaper.std}
    test = stats.ttest_ind_from_stats(mean1=loss, mean2=other, **sizes, equal_var=False, alternative="less")
    return not test.pvalue < LEVEL
