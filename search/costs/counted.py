"""Costs known before training: parameters, arithmetic and memory of one use of a network, the same in every run.

Counted, not timed: a cost is a function of the network and the sizes of its input alone. Milliseconds are the business
of :mod:`search.costs.latency`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from spaces.tasks import Task


def count(network: nn.Module, task: Task) -> dict[str, float]:
    """All of them by name, of one sequence at the task's full length."""
    batch = task.sample()
    return {
        "parameters": float(parameters(network)),
        "flops": float(flops(network, batch, use=task.predict)),
        "memory_mb": memory_mb(network, batch, use=task.predict),
    }


def forward(network: nn.Module, batch: Any) -> Any:
    """One forward pass."""
    return network(batch)


def parameters(network: nn.Module) -> int:
    """How many numbers training may change; a shared one counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: nn.Module, batch: Any, *, use: Callable[[nn.Module, Any], object] = forward) -> int:
    """Floating-point operations of matrix products and triangular solves, convolutions, attention, Fourier transforms.

    In one use; a multiplication and an addition are two. What works element by element, sorts or selects is not
    counted: it is small beside these, except where all pairs of tokens go through it, as with entmax; there compare
    milliseconds.
    """
    with evaluating(network), torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        use(network, batch)
    return int(counter.get_total_flops())


def memory_mb(network: nn.Module, batch: Any, *, use: Callable[[nn.Module, Any], object] = forward) -> float:
    """Megabytes (10^6 bytes) that exist at once in one use at most: parameters, buffers, inputs, activations.

    Counted over storages, so that views are free. What a kernel allocates for itself and frees again is not seen.
    """
    # Not inference_mode: under it composite operators reach a dispatch mode whole, and what they hold is not seen.
    with evaluating(network), torch.no_grad(), _LiveBytes() as counter:
        counter.see([*network.parameters(), *network.buffers(), batch])
        use(network, batch)
    return counter.peak / 1e6


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode; afterwards each of its modules has its own mode again."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all storages that operators returned and that somebody still holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self.known: set[int] = set()

    def see(self, tensors: object) -> None:
        """Count the storages of all tensors in a nest of lists, tuples and dicts, until they are freed."""
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            address, size = storage._cdata, storage.nbytes()
            if address not in self.known:
                self.known.add(address)
                self.live += size
                weakref.finalize(storage, self._forget, address, size)
        self.peak = max(self.peak, self.live)

    def _forget(self, address: int, size: int) -> None:
        self.known.discard(address)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.see(result)
        return result


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Two products, of shapes ``(..., n, d) (..., d, m)`` and ``(..., n, m) (..., m, d)``."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _fourier(shape: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    """``5 n log2 n``, the count of Cooley and Tukey's radix 2, which the field uses for all lengths."""
    return round(5 * math.prod(shape) * math.log2(math.prod(shape[axis] for axis in axes)))


def _from_reals(shape: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    """Half of the complex transform's."""
    return _fourier(shape, axes) // 2


def _to_reals(_: Any, axes: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any) -> int:
    """As much as the way there."""
    return _from_reals(out_shape, axes)


def _triangular_solve(matrix: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """``n^2`` for each column that is solved for: Golub & Van Loan, "Matrix Computations", 2013, section 3.1."""
    return matrix[-1] * math.prod(out_shape)


# Torch's counter knows neither its own attention on the CPU (it counts 0 there), Fourier transforms nor solves.
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.linalg_solve_triangular: _triangular_solve,
    torch.ops.aten._fft_c2c: _fourier,
    torch.ops.aten._fft_r2c: _from_reals,
    torch.ops.aten._fft_c2r: _to_reals,
}
