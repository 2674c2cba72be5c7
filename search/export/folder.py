"""Exports a trial to a folder: weights, architecture, preprocessing, programs that are checked, scored and timed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from search.costs.latency import MeasuredLatency
from search.costs.meter import Latency
from search.costs.runtimes import quantization_of
from search.export.preprocessing import preprocessing, write_training_pairs
from search.export.rebuild import network_of, save_network
from search.programs import decoding, encoders, inference, sessions
from search.programs.interface import Interface
from search.programs.loaded import loaded
from search.programs.program import Exporter, ExportError, Program, check_in
from search.programs.step import write_steps
from search.training.evaluation import evaluate_split
from search.training.weights import read_weights
from spaces.architecture import Architecture
from spaces.baselines import nearest
from spaces.build import task_of
from spaces.dimensions import ConfigError
from spaces.models.quantization import BY_PROGRAM, LAYERS
from spaces.tasks import Task
from spaces.tasks.multitask import SubtaskNetwork
from spaces.tasks.translation import Translation

FORMATS: Mapping[str, Callable[[Exporter, Path], Program]] = {  # by run-time
    "torch": Exporter.write_torch,
    "onnxruntime": Exporter.write_onnx,
    "onnxruntime-int8": Exporter.write_int8,
}
MODULES = (inference, decoding, encoders, sessions, nearest)  # each folder has copies, which run its programs


@dataclass(frozen=True)
class Result:
    """What an exported network, or a program of it, gives.

    Attributes:
        runtime: ``eager``, or a name of :data:`FORMATS`.
        file: of the program; empty for the network itself.
        free: the free dimensions of the program.
        error: the largest difference of a logit from the network's on random inputs.
        test: the metrics on the test split.
        latency: of one example.
        problem: why there is no program; empty if there is one.
    """

    runtime: str
    file: str = ""
    free: tuple[str, ...] = ()
    error: float = 0.0
    test: Mapping[str, float] | None = None
    latency: Latency | None = None
    problem: str = ""


def check_new_folder(folder: Path) -> None:
    """Raise :class:`ConfigError` if the folder has content already, or is no folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: there is something already; name a new or an empty folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that becomes it at the end of the context, and is removed after an error.

    Raises:
        ConfigError: see :func:`check_new_folder`; or it cannot be written.
    """
    check_new_folder(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def export(
    architecture: Architecture,
    weights: Path,
    task: Task,
    folder: Path,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, list[Result]]:
    """Export a trained network to a folder, without the card; of several tasks, the programs of each to one in it.

    Args:
        architecture: of the network.
        weights: the file of its weights.
        task: of the study.
        folder: an empty one.
        report: called with what is done next.

    Returns:
        For each of several tasks, or else for "", what the network and each program give; that of the network is the
        first.

    Raises:
        ConfigError: the weights cannot be read.
    """
    fitted = task_of(architecture, task)
    network = network_of(architecture, fitted)
    network.load_state_dict(read_weights(weights, architecture))
    save_network(folder, network, architecture, fitted.spec)
    source = _in_floating_point(network, architecture, fitted)
    if not fitted.subtasks:
        return {"": _export_programs(network, source, architecture, fitted, folder, report)}
    found = {}
    for name, part in fitted.subtasks.items():
        (folder / name).mkdir()
        networks = SubtaskNetwork(network, name), SubtaskNetwork(source, name)
        report(f"the task {name}")
        found[name] = _export_programs(*networks, architecture, part, folder / name, report)
    return found


def _export_programs(
    network: nn.Module,
    source: nn.Module,
    architecture: Architecture,
    task: Task,
    folder: Path,
    report: Callable[[str], None],
) -> list[Result]:
    """Export a network as programs, from ``source``, which has its weights and no quantization."""
    interface = Interface.of(architecture, task)
    exporter, networks, results = Exporter(source, interface), [network], [Result("eager")]

    def add(runtime: str, make: Callable[[Path], Program]) -> Program | None:
        file, load = sessions.RUNTIMES[runtime]
        try:
            program = make(folder / file)
        except ExportError as error:
            results.append(Result(runtime, file, problem=str(error)))
            return None
        networks.append(loaded(load(folder / file, 1), interface, program.free))
        results.append(Result(runtime, file, program.free, program.error))
        return program

    for runtime, write in FORMATS.items():
        report(f"writing {sessions.RUNTIMES[runtime][0]}")
        written = add(runtime, partial(write, exporter))
        if written is not None and runtime == "onnxruntime" and find_spec("openvino") is not None:
            add("openvino", lambda _: check_in(sessions.open_openvino, written, source, interface))  # noqa: B023
    steps, state = ([], []) if not interface.language_model else write_steps(source, folder)
    _write_preprocessing(folder, architecture, task, interface, results, {"steps": steps, "state": state})
    for module in MODULES:
        shutil.copyfile(str(module.__file__), folder / f"{module.__name__.split('.')[-1]}.py")
    report("scoring on the test split, and measuring latency")
    return _measured(results, networks, task)


def _in_floating_point(network: nn.Module, architecture: Architecture, task: Task) -> nn.Module:
    """The network without quantization, for which exporters lack the operations; its weights are the same."""
    if quantization_of(architecture) not in LAYERS:
        return network
    made = network_of({**architecture, "model": {**architecture["model"], "quantization": "none"}}, task)
    made.load_state_dict(network.state_dict())
    return made


def _write_preprocessing(
    folder: Path,
    architecture: Architecture,
    task: Task,
    interface: Interface,
    results: Sequence[Result],
    decoding: Mapping[str, Any],
) -> None:
    settings, tokenizer = preprocessing(task)
    settings |= decoding
    settings |= {"length": interface.length, "multiple": interface.multiple, "least": interface.least}
    settings |= {"padded": interface.padded, "answer_length": interface.answer_length}
    settings["runtime"] = BY_PROGRAM if quantization_of(architecture) == BY_PROGRAM else None  # the first that runs
    settings["free"] = {result.runtime: result.free for result in results if result.free}
    (folder / "preprocessing.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    if tokenizer is not None:
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    if isinstance(task, Translation) and task.neighbours:
        write_training_pairs(task, folder)


def _measured(results: Sequence[Result], networks: Sequence[nn.Module], task: Task) -> list[Result]:
    """The results with scores and latencies, which are measured in turns."""
    latencies = iter(MeasuredLatency().measure_all(networks, [task] * len(networks)))
    remaining, measured = iter(networks), []
    for result in results:
        if not result.problem:
            network = next(remaining)
            result = replace(result, test=evaluate_split(network, task, "test"), latency=next(latencies))
        measured.append(result)
    return measured
