"""Trainings whose numbers are useless: NaN or infinite losses, weights, logits or metrics, and those out of memory."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search.costs.runtimes import NoRuntimeError

_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


class DivergenceError(ArithmeticError):
    """A training whose result does not count; the message is a clause that tells why."""


def reason_to_prune(error: Exception) -> str:
    """Why an error is the fault of the architecture, whose trial is then pruned; empty if it is not."""
    if isinstance(error, DivergenceError | NoRuntimeError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error))):
        return f"out of memory: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return ""


def check_metric(name: str, value: object, *, finite: bool = True) -> float:
    """``value`` as a float.

    Raises:
        DivergenceError: it is no number, or it must be finite and is not.
    """
    try:
        if value is None or isinstance(value, str | bytes | bool):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DivergenceError(f"{name} is {value!r}, which is no number") from None
    if finite and not math.isfinite(number):
        raise DivergenceError(f"{name} is {number}")
    return number


class FiniteChecks:
    """Collects the losses and logits of an epoch without waiting for the device; ``check`` then looks at all of them.

    A logit of -inf is a masked class and allowed.
    """

    def __init__(self) -> None:
        self._loss: Tensor | float = 0.0
        self._logits: list[Tensor] = []

    def add_loss(self, loss: Tensor) -> None:
        """Note the loss of a batch."""
        self._loss = self._loss + loss.detach().float()

    def add_logits(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note the output of a forward pass; a forward hook."""
        if isinstance(output, Tensor):
            if output.is_floating_point():
                self._logits.append((output.isnan() | output.isposinf()).any())
        elif isinstance(output, Mapping | Sequence) and not isinstance(output, str):
            for part in output.values() if isinstance(output, Mapping) else output:
                self.add_logits(module, inputs, part)

    def check(self, network: nn.Module) -> None:
        """Look at everything noted since the last time, and at the weights.

        Raises:
            DivergenceError: something is NaN or infinite.
        """
        loss, self._loss = float(self._loss), 0.0
        logits, self._logits = self._logits, []
        if not math.isfinite(loss):
            raise DivergenceError(f"the training loss is {loss}")
        if not all(bool(weights.detach().isfinite().all()) for weights in network.parameters()):
            raise DivergenceError("weights are NaN or infinite")
        if logits and bool(torch.stack(logits).any()):
            raise DivergenceError("logits are NaN or infinite")
