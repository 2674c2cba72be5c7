"""Programs of a network that run without its Python code: ``torch.export`` and ONNX, checked against the network.

A program takes ``inputs``, ids ``(batch, length)`` int64 or frames ``(batch, length, features)`` float32, and, where
examples are padded, ``padding`` ``(batch, length)`` bool, and returns logits; that of a translator also takes the
translation so far, ``decoder_input_ids`` ``(batch, answer_length)`` int64. Its batch is free. Its length is free too
where the mechanism allows, otherwise it is that of the longest example, to which shorter ones are padded.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search.programs.interface import Interface
from search.programs.sessions import Run, open_onnx, open_openvino, open_torch
from spaces.tasks import Batch

TOLERANCE = 1e-4  # largest accepted difference of a logit, relative to the largest logit
INT8_TOLERANCE = math.inf  # any finite difference in 8-bit integers, as their metrics tell what it costs
BATCHES = (1, 2, 5)  # sizes that a program is checked with
Free = tuple[str, ...]  # dimensions that are free


class TensorNetwork(nn.Module):
    """A network as a function of tensors instead of a :class:`~spaces.batch.Batch`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, padding: Tensor | None = None, decoder_input_ids: Tensor | None = None) -> Tensor:
        """The logits."""
        logits: Tensor = self.network(_batch(inputs, padding, decoder_input_ids))
        return logits


def _batch(inputs: Tensor, padding: Tensor | None = None, decoder_input_ids: Tensor | None = None) -> Batch:
    """A batch with any labels."""
    return Batch(inputs, padding, inputs if decoder_input_ids is None else decoder_input_ids, decoder_input_ids)


@dataclass(frozen=True)
class Program:
    """A program in a file.

    Attributes:
        path: the file.
        free: which dimensions are free: ``batch``, and ``length`` if it is.
        error: the largest difference of a logit to those of the network on random inputs.
        logits: the largest of these logits.
    """

    path: Path
    free: Free
    error: float
    logits: float


class ExportError(Exception):
    """A network cannot be exported to a format; the message is the cause in a line."""


class Exporter:
    """Exports a network. What formats have in common is made once, so its weights must not change meanwhile.

    Args:
        network: in evaluation mode.
        interface: of its programs.
    """

    def __init__(self, network: nn.Module, interface: Interface) -> None:
        self.network, self.interface = network, interface
        self._graphs: dict[Free, torch.export.ExportedProgram] = {}
        self._onnx_graphs: dict[Free, torch.onnx.ONNXProgram] = {}

    def write_torch(self, path: Path) -> Program:
        """Write a ``torch.export`` program.

        Raises:
            ExportError: no attempt succeeded.
        """
        return self._first_that_works(path, self._save_torch, open_torch)

    def write_onnx(self, path: Path) -> Program:
        """Write an ONNX program, likewise."""
        return self._first_that_works(path, self._save_onnx, open_onnx)

    def write_openvino(self, path: Path) -> Program:
        """Write an ONNX program that OpenVINO executes, likewise."""
        return self._first_that_works(path, self._save_onnx, open_openvino)

    def write_int8(self, path: Path) -> Program:
        """Write an ONNX program that multiplies by weights in 8-bit integers, likewise.

        It is onnxruntime's dynamic quantization. Weights are rounded once, their inputs while the program runs: Jacob
        et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018.
        """
        return self._first_that_works(path, self._save_int8, open_onnx, INT8_TOLERANCE)

    def _first_that_works(
        self,
        path: Path,
        write: Callable[[Free, Path], None],
        load: Callable[[Path, int], Run],
        tolerance: float = TOLERANCE,
    ) -> Program:
        problem, interface = "", self.interface
        attempts: list[Free] = [("batch", "length"), ("batch",)]
        of_one_length = not (interface.padded or interface.language_model)
        if of_one_length or interface.length <= interface.least:
            del attempts[0]
        for free in attempts:
            try:
                with quiet():
                    write(free, path)
                    return _checked(load, path, free, self.network, interface, tolerance)
            except Exception as failure:  # the exporters raise whatever their passes raise
                problem = _cause(failure)
        path.unlink(missing_ok=True)
        raise ExportError(problem)

    def _graph(self, free: Free) -> torch.export.ExportedProgram:
        if free not in self._graphs:
            self._graphs[free] = _exported(self.network, self.interface, free)
        return self._graphs[free]

    def _save_torch(self, free: Free, path: Path) -> None:
        torch.export.save(self._graph(free), path)

    def _save_onnx(self, free: Free, path: Path) -> None:
        if free not in self._onnx_graphs:
            made = torch.onnx.export(self._graph(free), dynamo=True, verbose=False, output_names=["logits"])
            assert made is not None
            self._onnx_graphs[free] = made
        self._onnx_graphs[free].save(str(path))

    def _save_int8(self, free: Free, path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder) / "exact.onnx"
            self._save_onnx(free, exact)
            # Weights of 7 bits: on processors without VNNI instructions, sums of products of 8 bits saturate.
            quantize_dynamic(exact, path, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


def check_in(load: Callable[[Path, int], Run], program: Program, network: nn.Module, interface: Interface) -> Program:
    """A program that another run-time reads too, with its error there.

    Raises:
        ExportError: it cannot be read, or its logits differ.
    """
    try:
        with quiet():
            return _checked(load, program.path, program.free, network, interface, TOLERANCE)
    except Exception as failure:  # run-times raise whatever they like
        raise ExportError(_cause(failure)) from failure


def _checked(
    load: Callable[[Path, int], Run], path: Path, free: Free, network: nn.Module, interface: Interface, tolerance: float
) -> Program:
    """The program in a file.

    Raises:
        ExportError: its logits differ by more than ``tolerance`` of the largest, or are not finite.
    """
    error, logits = check(load(path, 1), network, interface, free)
    if not math.isfinite(error) or error > tolerance * max(1.0, logits):
        raise ExportError(f"its logits differ by {error:.2g}")
    return Program(path, free, error, logits)


def _exported(network: nn.Module, interface: Interface, free: Free) -> torch.export.ExportedProgram:
    batch = torch.export.Dim.DYNAMIC
    length: Any = None
    size = interface.length
    if "length" in free:
        positions = torch.export.Dim("length", min=2, max=interface.length // interface.multiple)
        length = interface.multiple * positions if interface.multiple > 1 else positions
    feed = interface.random_feed(3, size, np.random.default_rng(0))
    every = {0: batch, 1: length} if length is not None else {0: batch}
    shapes = {name: {0: batch} if name == "decoder_input_ids" else every for name in feed}
    arguments = {name: torch.from_numpy(array) for name, array in feed.items()}
    with torch.no_grad():
        return torch.export.export(TensorNetwork(network).eval(), (), arguments, dynamic_shapes=shapes, strict=False)


def check(run: Run, network: nn.Module, interface: Interface, free: Free) -> tuple[float, float]:
    """The largest difference of a logit between a program and its network on random inputs, and the largest logit.

    The network gets each batch without superfluous padding, as in evaluation.
    """
    generator, error, largest = np.random.default_rng(1), 0.0, 0.0
    most = interface.length // interface.multiple
    lengths = sorted({2, 3, most // 3, most // 2, most} - {0, 1}) if "length" in free else [most]
    eager = network.eval()
    for positions in lengths:
        for batch in BATCHES:
            feed = interface.random_feed(batch, min(positions, most) * interface.multiple, generator)
            tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
            with torch.no_grad():
                expected = eager(_batch(**tensors).trim_padding()).numpy()
            found = run(feed)
            logits_of_inputs = found.ndim == 3 and interface.answer_length is None
            if logits_of_inputs and "padding" in feed:  # those at padding do not count
                shown = ~feed["padding"][:, : expected.shape[1]]
                found, expected = found[:, : expected.shape[1]][shown], expected[shown]
            if found.shape != expected.shape or not np.isfinite(found).all():
                return float("inf"), largest
            error = max(error, float(np.abs(found - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
    return error, largest


def _cause(failure: BaseException) -> str:
    """The first sentence of the error at the root of a failure."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    line = re.split(r"\n|\. ", str(failure).strip())[0]
    return re.sub(r"\x1b\[\d*m", "", line)[:100] or type(failure).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' own messages: what fails is reported in a line."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
