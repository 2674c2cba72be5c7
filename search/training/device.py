"""Where networks are trained, and in which precision: Lightning's names, checked before any training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from spaces.dimensions import ConfigError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS = get_args(Precision)


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

    Raises:
        ConfigError: a value is unknown, the device is not available, or the precision is not available there.
    """
    problems = []
    known = isinstance(name, str) and re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name)
    if not known:
        problems.append(f"device={name!r}: it must be auto, cpu, mps, cuda, or one of several GPUs such as cuda:1")
    if precision not in PRECISIONS:
        problems.append(f"precision={precision!r}: it must be {', '.join(PRECISIONS)}")
    if not isinstance(compile_network, bool):
        problems.append(f"compile={compile_network!r}: it must be true or false")
    if known:
        name = _best() if name == "auto" else name
        problems += _unavailable(name)
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
    kind, _, number = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        return [f"device={name!r}: PyTorch finds no MPS device; use device=auto or device=cpu"]
    if kind != "cuda":
        return []
    if not torch.cuda.is_available():
        return [f"device={name!r}: PyTorch finds no CUDA device; use device=auto or device=cpu"]
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        there = ", ".join(f"cuda:{each}" for each in range(count))
        return [f"device={name!r}: there is no such GPU; there are {there}"]
    return []
