"""Programs of one step of a language model: from the tokens so far, and a cache of earlier ones, to the next logits.

A step program takes ``inputs``, the ids so far ``(1, n)``, of which it reads the latest, and the state: the tensors of
a cache of the first ``n - 1`` tokens, float32, before the first token 0. It returns logits ``(1, classes)`` and the
next state. What a cache holds depends on the mechanisms (:mod:`spaces.attention`): keys and values of all tokens, or a
state of a fixed size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.programs.program import TOLERANCE, ExportError, quiet
from search.programs.sessions import STEPS
from spaces.attention import DecodeCache
from spaces.batch import Batch
from spaces.models.decoder import Decoder, DecoderCache
from spaces.models.pretrained_decoder import PretrainedCache, PretrainedDecoder
from spaces.models.trunk import TrunkCache

SEEN = 4  # tokens in the cache of the example that is traced
CHECKED = 256  # tokens at most
Stepped = Decoder | PretrainedDecoder


class TensorStep(nn.Module):
    """A step of a language model as a function of tensors instead of a cache."""

    def __init__(self, network: Stepped) -> None:
        super().__init__()
        self.network = network
        cache = network.init_cache(1)
        self.counts = [len(block.tensors) for block in _blocks(cache)]
        # Where a state begins with other values than 0, such as minus infinity for a maximum.
        self.starts = [tensor if tensor.numel() and tensor.any() else None for tensor in _state(cache)]

    def forward(self, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The logits and the next state."""
        network, position = self.network, inputs.shape[1] - 1
        is_first = torch.ones_like(inputs).sum() == 1
        tensors = [
            given if start is None else torch.where(is_first, start, given)
            for given, start in zip(state, self.starts, strict=True)
        ]
        context = tensors.pop(0) if isinstance(network, Decoder) else None
        blocks = []
        for count in self.counts:
            blocks.append(DecodeCache(position, tuple(tensors[:count])))
            del tensors[:count]
        if isinstance(network, PretrainedDecoder):
            logits, latest = network.decode_step(inputs[:, -1], PretrainedCache(position, tuple(blocks)))
            return logits, *_state(latest)
        assert context is not None
        # As in the embedding, the ids before the first one are the one after the vocabulary.
        filled = F.pad(inputs, (network.ngrams - 1, 0), value=network.head.out_features)
        cache = DecoderCache(filled[:, -network.ngrams : -1], TrunkCache(position, context, tuple(blocks)))
        logits, cache = network.decode_step(inputs[:, -1], cache)
        return logits, *_state(cache)


def write_steps(network: nn.Module, folder: Path) -> tuple[list[str], list[list[int]]]:
    """Write the step programs of a network, in evaluation mode, that give its logits.

    Returns:
        The run-times of the programs, none if the network does not decode token by token or if its cache cannot be that
        of a program, and the shapes of the state before the first token, which is 0.
    """
    if not isinstance(network, Stepped):
        return [], []
    try:
        example, grows, shapes = _example(network)
        length = network.blocks[0].mechanism.length
        past = torch.export.Dim("past", min=0, max=length - 1)
        dynamic = {"inputs": {1: past + 1}, "state": tuple({} if axis is None else {axis: past} for axis in grows)}
        with quiet(), torch.no_grad():
            step = TensorStep(network).eval()
            graph = torch.export.export(step, example, dynamic_shapes=dynamic, strict=False)
    except Exception:  # the exporter raises whatever it likes
        return [], []
    found = []
    for runtime, (file, _) in STEPS.items():
        try:
            with quiet():
                _write(graph, folder / file, len(shapes))
                check_step(network, folder, runtime, shapes)
            found.append(runtime)
        except Exception:  # likewise
            (folder / file).unlink(missing_ok=True)
    return found, shapes


def _example(network: Stepped) -> tuple[tuple[Tensor, ...], list[int | None], list[list[int]]]:
    """Inputs of a step, the dimension of each tensor of the state that grows with the tokens, the shapes at first."""
    ids = torch.arange(SEEN + 2)[None] % network.head.out_features
    with torch.no_grad():
        first, seen, later = (
            _state(network.init_cache(1)),
            *(_state(network.prefill(ids[:, :n])[1]) for n in (SEEN, SEEN + 2)),
        )
    grows: list[int | None] = []
    for tensors in zip(first, seen, later, strict=True):
        sizes = list(zip(*(tensor.shape for tensor in tensors), strict=True))
        varied = [axis for axis, of_axis in enumerate(sizes) if len(set(of_axis)) > 1]
        if varied and [sizes[axis] for axis in varied] != [(0, SEEN, SEEN + 2)]:
            raise ExportError("the cache does not grow by a token a step, from nothing")
        grows.append(varied[0] if varied else None)
    return (ids[:, : SEEN + 1], *seen), grows, [list(tensor.shape) for tensor in first]


def _blocks(cache: DecoderCache | PretrainedCache) -> tuple[DecodeCache, ...]:
    return cache.blocks if isinstance(cache, PretrainedCache) else cache.trunk.blocks


def _state(cache: DecoderCache | PretrainedCache) -> tuple[Tensor, ...]:
    """The tensors of a cache that depend on earlier tokens' features."""
    context = () if isinstance(cache, PretrainedCache) else (cache.trunk.context,)
    return *context, *(tensor for block in _blocks(cache) for tensor in block.tensors)


def _write(graph: torch.export.ExportedProgram, path: Path, tensors: int) -> None:
    if path.suffix == ".pt2":
        torch.export.save(graph, path)
        return
    names = [f"state_{number}" for number in range(tensors)]
    outputs = ["logits", *(f"next_{name}" for name in names)]
    made = torch.onnx.export(graph, dynamo=True, verbose=False, input_names=["inputs", *names], output_names=outputs)
    assert made is not None
    made.save(str(path))


def check_step(network: nn.Module, folder: Path, runtime: str, shapes: list[list[int]]) -> float:
    """The largest difference of a logit between a step program and its network on random ids.

    Raises:
        ExportError: it is larger than ``TOLERANCE`` of the largest logit.
    """
    assert isinstance(network, Stepped)
    file, open_step = STEPS[runtime]
    step, state = open_step(folder / file, 1), [np.zeros(shape, np.float32) for shape in shapes]
    length = min(CHECKED, network.blocks[0].mechanism.length)
    ids = np.random.default_rng(1).integers(network.head.out_features, size=(1, length))
    inputs = torch.from_numpy(ids)
    with torch.no_grad():
        expected = network.eval()(Batch(inputs, None, inputs))[0].numpy()
    found = np.empty_like(expected)
    for at in range(length):
        logits, state = step(ids[:, : at + 1], state)
        found[at] = logits[0]
    error = float(np.abs(found - expected).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ExportError(f"its logits differ by {error:.2g}")
    return error
