"""What a user must know about sparse weights: that they cost as much time as others."""

from __future__ import annotations

from spaces.models.sparsity import DENSE
from spaces.space import Space
from spaces.tree import bounds_of

NO_GAIN = (
    "model.sparsity: weights of 0 are stored and multiplied like others, so latency does not follow; it is measured as"
    " it is. Parameters without them are the cost nonzero."
)


def describe_sparsity(space: Space) -> list[str]:
    """A note, if the space has sparse networks."""
    found = bounds_of(space.model.get("sparsity", DENSE), "model.sparsity")
    return [NO_GAIN] if any(each != DENSE for each in found) else []
