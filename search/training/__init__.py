"""Training one network with Lightning, epoch by epoch, behind the interface that recorded tables have too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from search.study.records import Record

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spaces.tasks import Split


class Epoch(NamedTuple):
    """What an epoch of training gave."""

    number: int  # from 1
    metric: float  # on the validation split
    cpu_s: float  # CPU-seconds, on a GPU seconds, of training from its start until now


class Training(Protocol):
    """A training in progress; epochs are trained as they are asked for."""

    @property
    def epochs(self) -> int:
        """How many the whole training has."""

    @property
    def overhead(self) -> float:
        """The share of its CPU time so far outside forward, backward and optimizer steps."""

    @property
    def metric(self) -> float:
        """The result so far: the metric on validation of the last epoch, or of the best one where that one is kept."""

    def __iter__(self) -> Iterator[Epoch]:
        """The epochs that are left."""

    def save(self, *, if_due: bool = False) -> None:
        """Write a checkpoint of the epoch that was handed over last; with ``if_due`` only once in some seconds."""

    def save_weights(self) -> str:
        """Keep the weights that :attr:`metric` is of; returns the path of their file, empty if there is none."""

    def evaluate(self, split: Split) -> dict[str, float]:
        """The metrics on validation or test by name, of the weights that :attr:`metric` is of."""


class Parent(Protocol):
    """A trained network that others start from and learn from."""

    @property
    def logits(self) -> Tensor:
        """Its predictions for the training examples, ``(examples, classes)``."""

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode."""

    def load_into(self, network: nn.Module, architecture: Mapping[str, Any]) -> None:
        """Give a network that has just been built its first weights."""

    def weights_of(self, architecture: Mapping[str, Any]) -> Mapping[str, Tensor] | None:
        """The trained weights of an architecture that is the parent itself; None of any other."""


class Learner(Protocol):
    """Trains architectures, or looks up what training gave."""

    def saved_epochs(self, record: Record) -> int:
        """The epochs that the training in a trial's checkpoint has completed; 0 if there is none."""

    def discard(self, number: int) -> None:
        """Delete the checkpoint of a trial that has ended for good."""

    def train(self, record: Record, *, resume: bool, trained: Record | None = None) -> AbstractContextManager[Training]:
        """The training of a trial that has begun, from its checkpoint or from the start.

        ``trained`` is a complete trial with the same weights, which are taken from it if they were kept.
        """
