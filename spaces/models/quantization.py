"""Linear layers in 8-bit integers or in bfloat16, for inference on a CPU.

Integers as in Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018: weights are quantized per output feature, symmetrically; inputs per call, by their range. Training is
in float32.
Which of them is faster than float32 depends on the processor's instructions: VNNI for integers, AMX for bfloat16.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BY_PROGRAM = "onnxruntime-int8"  # that of a program of the network, which itself stays in floating point
LARGEST = 127  # of the integers
# Without VNNI instructions, kernels add pairs of products in 16 bits; inputs then have 7 bits, so that none overflows.
# With MiniLM, the cosine of sentence embeddings with those in floating point is 0.974 at 7 bits and 0.993 at 8.
REDUCE_RANGE = not getattr(torch.cpu, "_is_vnni_supported", lambda: False)()


class PackedLinear(nn.Linear):
    """A linear layer that computes in another format where no gradients are needed, on a CPU.

    Its parameters are those of the layer in float32, from which those of the format follow.
    """

    _packed: tuple[object, Any] | None = None  # the versions of the parameters, and what they were packed into

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """One with the parameters of ``linear``."""
        with torch.device("meta"):
            made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None)
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        if torch.is_grad_enabled() or self.weight.device.type != "cpu":
            self._packed = None  # a step of training follows
            return super().forward(x)
        return self.compute(x, self._packed_weight())

    @abstractmethod
    def pack(self) -> Any:
        """Weight and bias in the format."""

    @abstractmethod
    def compute(self, x: Tensor, packed: Any) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``, with what :meth:`pack` has returned."""

    def train(self, mode: bool = True) -> Self:
        """See :meth:`torch.nn.Module.train`; afterwards the weight is packed again."""
        self._packed = None  # fused optimizers change parameters without changing their versions
        return super().train(mode)

    def _packed_weight(self) -> Any:
        """Weight and bias in the format, computed again after either has changed."""
        versions = _version(self.weight), _version(self.bias)
        if self._packed is None or self._packed[0] != versions:
            self._packed = versions, self.pack()
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}  # it cannot be copied


class Int8Linear(PackedLinear):
    """In 8-bit integers."""

    def pack(self) -> Any:
        """In the layout of the kernel."""
        bias = None if self.bias is None else self.bias.detach()
        return torch.ops.quantized.linear_prepack(quantized(self.weight.detach()), bias)

    def compute(self, x: Tensor, packed: Any) -> Tensor:
        """See :class:`PackedLinear`."""
        output: Tensor = torch.ops.quantized.linear_dynamic(x, packed, REDUCE_RANGE)
        return output


class BFloat16Linear(PackedLinear):
    """In bfloat16, with sums in float32; inputs and outputs are float32."""

    def pack(self) -> tuple[Tensor, Tensor | None]:
        """Rounded."""
        return self.weight.detach().bfloat16(), None if self.bias is None else self.bias.detach().bfloat16()

    def compute(self, x: Tensor, packed: Any) -> Tensor:
        """See :class:`PackedLinear`."""
        return F.linear(x.bfloat16(), *packed).to(x.dtype)


LAYERS: Mapping[str, type[PackedLinear]] = {"int8": Int8Linear, "bf16": BFloat16Linear}
QUANTIZATIONS = ("none", *LAYERS, BY_PROGRAM)


def _version(parameter: Tensor | None) -> tuple[int, int] | None:
    """Changes when the parameter does; one that was created in inference mode is never trained."""
    if parameter is None:
        return None
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version


def quantized(weight: Tensor) -> Tensor:
    """A weight ``(out_features, in_features)`` as a quantized tensor: each row by its largest absolute value."""
    scales = weight.abs().amax(1).clamp(min=torch.finfo(weight.dtype).tiny).double() / LARGEST
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor, torch.quantize_per_channel")
        return torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)


def quantize(network: nn.Module, quantization: str) -> nn.Module:
    """Replace the linear layers of a network as ``quantization`` says, one of ``QUANTIZATIONS``.

    Raises:
        ValueError: it is unknown, or this build of PyTorch cannot.
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r}: it must be one of {', '.join(QUANTIZATIONS)}")
    if quantization in ("none", BY_PROGRAM):
        return network
    kernels = torch.backends.quantized.engine != "none" and hasattr(torch.ops.quantized, "linear_dynamic")
    if quantization == "int8" and not kernels:
        raise ValueError(f"quantization={quantization!r}: this build of PyTorch has no kernels for it; it must be none")
    replaced = dict[nn.Module, nn.Module]()  # layers that several modules share stay shared
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                replaced.setdefault(child, LAYERS[quantization].of(child))
                setattr(module, name, replaced[child])
    return network
