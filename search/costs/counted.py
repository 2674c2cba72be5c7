"""Costs that are counted, not measured: parameters, FLOPs, memory and sizes; the same in every run.

They depend on the network and the shape of its input alone. Latency is in :mod:`search.costs.latency`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from spaces.models.language_model import LanguageModel
from spaces.models.sparsity import zeros
from spaces.tasks import Task


def count(network: nn.Module, task: Task, also: Collection[str] = ()) -> dict[str, float]:
    """The counted costs by name, for one sequence of the task's full length; of ``ON_REQUEST`` those in ``also``."""
    usage = _usage(network, task.sample(), task.predict)
    return {
        "parameters": float(parameters(network)),
        "flops": float(usage.flops),
        "memory_mb": usage.peak / 1e6,
        "file_mb": file_mb(network),
        **{name: count(network, task) for name, count in ON_REQUEST.items() if name in also},
    }


def forward(network: nn.Module, batch: Any) -> Any:
    """One forward pass."""
    return network(batch)


def parameters(network: nn.Module) -> int:
    """Number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def flops(network: nn.Module, batch: Any, *, use: Callable[[nn.Module, Any], object] = forward) -> int:
    """FLOPs of one call of ``use``; a multiply-add counts as two.

    Counted are matrix products, triangular solves, convolutions, attention and Fourier transforms. Elementwise
    operations, sorting and indexing are not. They are small in comparison, except when applied to all pairs of tokens,
    as in entmax; compare latencies there.
    """
    return _usage(network, batch, use).flops


def memory_mb(network: nn.Module, batch: Any, *, use: Callable[[nn.Module, Any], object] = forward) -> float:
    """Peak memory of one call of ``use`` in megabytes (10^6 bytes): parameters, buffers, inputs, activations.

    Storages are counted, so views are free. Workspace that a kernel allocates and frees internally is not included.
    """
    return _usage(network, batch, use).peak / 1e6


def file_mb(network: nn.Module) -> float:
    """Parameters and buffers as they are stored, in megabytes; those of 8-bit layers are stored in floating point."""
    return sum(tensor.nbytes for tensor in network.state_dict().values()) / 1e6


def training_mb(network: nn.Module, task: Task) -> float:
    """Peak memory in megabytes of a training step at the task's batch size: all of :func:`memory_mb`, gradients, Adam.

    Adam has two numbers for each parameter (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015).
    """
    batch = task.sample(task.batch_size)
    before = [parameter.grad for parameter in network.parameters()]
    with torch.random.fork_rng(), _Usage() as counter, torch.enable_grad():
        counter.track([*network.parameters(), *network.buffers(), batch])
        task.loss(network(batch), batch).backward()
    for parameter, gradient in zip(network.parameters(), before, strict=True):
        parameter.grad = gradient
    adam = 2 * sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    return (counter.peak + adam) / 1e6


def state_mb(network: nn.Module, task: Task) -> float:
    """What a language model keeps of a sequence of full length to decode the next token, in megabytes; 0 of others."""
    if not isinstance(network, LanguageModel):
        return 0.0
    with evaluating(network), torch.no_grad():
        _, cache = network.prefill(task.sample().inputs)
    storages = {tensor.data_ptr(): tensor.nbytes for tensor in tree_leaves(cache) if isinstance(tensor, Tensor)}
    return sum(storages.values()) / 1e6


def nonzero(network: nn.Module, task: Task) -> float:
    """Parameters without those that ``model.sparsity`` has set to 0."""
    return float(parameters(network) - zeros(network))


ON_REQUEST: Mapping[str, Callable[[nn.Module, Task], float]] = {  # those that take long, or that few ask for
    "training_mb": training_mb,
    "state_mb": state_mb,
    "nonzero": nonzero,
}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Usage(TorchDispatchMode):
    """Counts the FLOPs of operators, and the bytes of all live storages that they returned.

    Both in one pass, and, unlike with PyTorch's ``FlopCounterMode``, not module by module: generating text takes
    thousands of operators.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.live = self.peak = 0
        self.known: dict[int, weakref.ref[Any]] = {}  # live storages by address

    def track(self, tensors: object) -> None:
        """Count the storages of all tensors in a pytree, until they are freed."""
        for tensor in (tensors,) if isinstance(tensors, Tensor) else tree_leaves(tensors):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            address, size = storage._cdata, storage.nbytes()
            if address not in self.known:
                self.known[address] = weakref.ref(storage, partial(self._forget, address, size))
                self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, address: int, size: int, _: object) -> None:
        del self.known[address]
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.flops += flops_of(func, args, kwargs, result)
        self.track(result)
        return result


def _usage(network: nn.Module, batch: Any, use: Callable[[nn.Module, Any], object]) -> _Usage:
    # Not inference_mode: there a dispatch mode sees composite operators as one, without what they consist of.
    with evaluating(network), torch.no_grad(), _Usage() as usage:
        usage.track([*network.parameters(), *network.buffers(), batch])
        use(network, batch)
    return usage


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Two matrix products, ``(..., n, d) (..., d, m)`` and ``(..., n, m) (..., m, d)``."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _fft(shape: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    """``5 n log2 n``, the count of the radix-2 Cooley-Tukey algorithm, conventionally used for all lengths."""
    return round(5 * math.prod(shape) * math.log2(math.prod(shape[axis] for axis in axes)))


def _real_fft(shape: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    """Half of the complex transform."""
    return _fft(shape, axes) // 2


def _inverse_real_fft(_: Any, axes: Sequence[int], *__: Any, out_shape: Sequence[int], **___: Any) -> int:
    """The same as the forward transform."""
    return _real_fft(out_shape, axes)


def _quantized_linear(x: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """As in floating point."""
    return 2 * math.prod(x) * out_shape[-1]


def _triangular_solve(matrix: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """``n^2`` for each right-hand side: Golub & Van Loan, "Matrix Computations", 2013, section 3.1."""
    return matrix[-1] * math.prod(out_shape)


# FlopCounterMode has no formulas for attention on the CPU (it counts 0), Fourier transforms and triangular solves.
_FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.linalg_solve_triangular: _triangular_solve,
    torch.ops.quantized.linear_dynamic: _quantized_linear,
    torch.ops.aten._fft_c2c: _fft,
    torch.ops.aten._fft_r2c: _real_fft,
    torch.ops.aten._fft_c2r: _inverse_real_fft,
}
_FLOPS: Mapping[Any, Callable[..., int]] = FlopCounterMode(display=False, custom_mapping=_FORMULAS).flop_registry


def flops_of(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """The FLOPs of a call of an operator, which returned ``result``."""
    formula = _FLOPS.get(operator.overloadpacket)
    return 0 if formula is None else formula(*args, **kwargs, out_val=result)
