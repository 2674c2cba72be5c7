"""Where networks are trained, and in which precision: Lightning's names, checked before any training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from search.config.schema import Precision
from search.costs.gpu import missing_gpu
from spaces.dimensions import ConfigError


@dataclass(frozen=True, kw_only=True)
class Device:
    """How networks are trained; see :func:`select_device` for checked values.

    Args:
        name: ``cpu``, ``mps``, ``cuda`` or one of several GPUs such as ``cuda:1``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        compile: whether the network is compiled for training by ``torch.compile``.
    """

    name: str = "cpu"
    precision: Precision = "32-true"
    compile: bool = False

    @property
    def accelerator(self) -> str:
        """Lightning's name of the kind of device."""
        return self.name.split(":")[0]

    @property
    def devices(self) -> int | list[int]:
        """What Lightning is to use: one device, or the one of a given number."""
        return [int(self.name.split(":")[1])] if ":" in self.name else 1


def select_device(name: str = "auto", *, precision: Precision = "32-true", compile_network: bool = False) -> Device:
    """The device of a name; ``auto`` is CUDA if available, else MPS, else the CPU.

    The names are those of :class:`search.config.schema.RunConfig`.

    Raises:
        ConfigError: the device is not available, or the precision is not available there.
    """
    name = _best() if name == "auto" else name
    problems = _unavailable(name)
    if precision == "16-mixed" and name == "cpu":
        problems.append("precision='16-mixed': it needs a GPU; on the CPU use bf16-mixed or 32-true")
    if problems:
        raise ConfigError("\n".join(problems))
    return Device(name=name, precision=precision, compile=compile_network)


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _unavailable(name: str) -> list[str]:
    """Error messages if there is no such device."""
    if name == "mps" and not torch.backends.mps.is_available():
        return [f"device={name!r}: PyTorch finds no MPS device; use device=auto or device=cpu"]
    if problem := missing_gpu(name):
        return [f"device={name!r}: {problem}; use device=auto or device=cpu"]
    return []
