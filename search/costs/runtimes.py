"""Run-times: what executes a trained network. All predict the same, and which is the fastest is measured.

======================  ================================================================================
``eager``               PyTorch, operator by operator
``compile``             ``torch.compile``: fused loops in C++, which take seconds to minutes to compile
``torch``               the program of ``torch.export``
``onnxruntime``         the ONNX program in onnxruntime
``openvino``            the ONNX program in OpenVINO, which is for Intel's processors first
======================  ================================================================================

A program's logits are compared with the network's on random inputs, see :mod:`search.programs.program`. So a network
has one metric in all run-times, and only its fastest one can be on a front.

In 8-bit integers predictions differ, so they are a dimension of the architecture, ``model.quantization``, which says
what executes the network, see ``EXECUTED_BY``; its latency and its metrics are those of the integers.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from search.costs.exclusive import torch_threads
from search.programs.interface import Interface, check_program
from search.programs.loaded import loaded
from search.programs.program import Exporter, ExportError, Program
from search.programs.sessions import Run, open_onnx, open_openvino, open_torch
from spaces.architecture import Architecture
from spaces.dimensions import ConfigError
from spaces.models.quantization import BY_PROGRAM, LAYERS
from spaces.tasks import Task

EAGER = "eager"
NEEDED = {  # packages by run-time
    "onnxruntime": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


EXECUTED_BY = {  # run-times by quantization, of those that do not execute all
    **dict.fromkeys(LAYERS, (EAGER, "compile")),  # which alone have the kernels of these layers
    BY_PROGRAM: ("onnxruntime",),
}


@dataclass(frozen=True)
class BuiltNetwork:
    """A network, and what its export to programs needs.

    Args:
        network: in evaluation mode.
        architecture: of the network.
        task: with the architecture's settings of the input.
        threads: that programs use.
    """

    network: nn.Module
    architecture: Architecture
    task: Task
    threads: int

    @property
    def quantization(self) -> str:
        """See :func:`quantization_of`."""
        return quantization_of(self.architecture)

    @cached_property
    def exporter(self) -> Exporter:
        """For all formats."""
        return Exporter(self.network, Interface.of(self.architecture, self.task))


Prepare = Callable[[BuiltNetwork], nn.Module]


class NoRuntimeError(Exception):
    """A network can be executed in none of the run-times; the message is a clause."""


def check_runtimes(runtimes: Sequence[str], task: Task) -> None:
    """Check that run-times are installed, and that the task's networks can be programs.

    Raises:
        ConfigError: they are not, or they cannot.
    """
    for runtime in runtimes:
        if missing := [package for package in NEEDED.get(runtime, ()) if find_spec(package) is None]:
            extras = "export,openvino" if runtime == "openvino" else "export"
            raise ConfigError(
                f"latency.runtimes: {runtime} needs {', '.join(missing)}: pip install 'paretoformer[{extras}]'"
            )
    if "compile" in runtimes and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise ConfigError("latency.runtimes: compile needs a C++ compiler such as g++, and there is none")
    if set(runtimes) & set(PROGRAMS):
        try:
            check_program(task)
        except ConfigError as error:
            raise ConfigError(f"latency.runtimes: {error}; {EAGER} and compile run every task") from error


def in_runtimes(
    network: nn.Module, architecture: Architecture, task: Task, runtimes: Sequence[str], *, threads: int = 1
) -> dict[str, nn.Module]:
    """The network in each run-time that can execute it, by name.

    Args:
        network: in evaluation mode.
        architecture: of the network.
        task: with the architecture's settings of the input.
        runtimes: names of :data:`RUNTIMES`.
        threads: that programs use.

    Raises:
        NoRuntimeError: there is none.
    """
    built, found, problems = BuiltNetwork(network, architecture, task, threads), {}, []
    for runtime in runtimes:
        try:
            if runtime not in EXECUTED_BY.get(built.quantization, RUNTIMES):
                raise ExportError(f"it has no kernels for model.quantization={built.quantization}")
            with torch_threads(threads):  # loading a program changes the number
                found[runtime] = RUNTIMES[runtime](built)
        except ExportError as error:
            problems.append(f"{runtime}: {error}")
    if not found:
        raise NoRuntimeError(f"it runs in no run-time of latency.runtimes ({'; '.join(problems)})")
    return found


def quantization_of(architecture: Architecture) -> str:
    """One of :data:`spaces.models.quantization.QUANTIZATIONS`."""
    return str(architecture["model"].get("quantization", "none"))


def _eager(built: BuiltNetwork) -> nn.Module:
    return built.network


def _compiled(built: BuiltNetwork) -> nn.Module:
    compiled: nn.Module = torch.compile(built.network)  # type: ignore[assignment]
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built.task.predict(compiled, built.task.sample())
    except Exception as error:  # the compiler raises whatever its passes raise
        raise ExportError((str(error).splitlines() or [type(error).__name__])[0][:100]) from error
    return compiled


def _program(write: Callable[[Exporter, Path], Program], load: Callable[[Path, int], Run]) -> Prepare:
    """Export to a temporary file, and load it again."""

    def prepare(built: BuiltNetwork) -> nn.Module:
        exporter = built.exporter
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program"
            chosen = Exporter.write_int8 if built.quantization == BY_PROGRAM else write
            program = chosen(exporter, path)
            return loaded(load(path, built.threads), exporter.interface, program.free, path.read_bytes())

    return prepare


PROGRAMS = {
    "torch": _program(Exporter.write_torch, open_torch),
    "onnxruntime": _program(Exporter.write_onnx, open_onnx),
    "openvino": _program(Exporter.write_openvino, open_openvino),
}
RUNTIMES: Mapping[str, Prepare] = {
    EAGER: _eager,
    "compile": _compiled,
    **PROGRAMS,
}
