"""Opens programs in their run-times: files of ONNX in onnxruntime and OpenVINO, of ``torch.export`` in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]  # inputs by name
Run = Callable[[Feed], Array]  # from inputs to logits
State = list[Array]
Step = Callable[[Array, State], tuple[Array, State]]  # from ids and a state to logits and the next state
SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # an environment variable of PyTorch


def open_onnx(path: Path, threads: int) -> Run:
    """The function of an ONNX program, from inputs by name to logits."""
    session = _onnx_session(path, threads)
    return lambda feed: np.asarray(session.run(None, feed)[0])


def open_onnx_step(path: Path, threads: int) -> Step:
    """The function of an ONNX program of a step."""
    session = _onnx_session(path, threads)
    names = [each.name for each in session.get_inputs()]

    def step(ids: Array, state: State) -> tuple[Array, State]:
        logits, *following = session.run(None, dict(zip(names, [ids, *state], strict=True)))
        return logits, following

    return step


def _onnx_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_torch(path: Path, threads: int) -> Run:
    """The same of a ``torch.export`` program."""
    import torch

    module = _torch_module(path, threads)

    def run(feed: Feed) -> Array:
        with torch.no_grad():
            logits: Array = module(**{name: torch.from_numpy(array) for name, array in feed.items()}).numpy()
        return logits

    return run


def open_torch_step(path: Path, threads: int) -> Step:
    """The function of a ``torch.export`` program of a step."""
    import torch

    module = _torch_module(path, threads)

    def step(ids: Array, state: State) -> tuple[Array, State]:
        with torch.no_grad():
            logits, *following = module(*map(torch.from_numpy, [ids, *state]))
        return logits.numpy(), [each.numpy() for each in following]

    return step


def _torch_module(path: Path, threads: int) -> Any:
    """A program as a function of tensors; unlike PyTorch's own loader this never unpickles code."""
    import torch

    torch.set_num_threads(threads)
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"  # without it PyTorch unpickles example inputs that its safe loader refuses
    try:
        return torch.export.load(path).module()
    finally:
        os.environ.pop(SAFE) if before is None else os.environ.update({SAFE: before})


def open_openvino(path: Path, threads: int) -> Run:
    """The same of an ONNX program in OpenVINO, in 32 bits, as some processors compute in 16 otherwise."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    program = openvino.compile_model(path, "CPU", settings)
    return lambda feed: np.array(program(feed)[0])  # a copy: the next call overwrites it


RUNTIMES = {
    "onnxruntime": ("model.onnx", open_onnx),
    "torch": ("model.pt2", open_torch),
    "openvino": ("model.onnx", open_openvino),
    "onnxruntime-int8": ("model.int8.onnx", open_onnx),  # last, as its answers differ from the network's
}
STEPS = {  # of language models, by run-time
    "torch": ("step.pt2", open_torch_step),
    "onnxruntime": ("step.onnx", open_onnx_step),
}
