"""Runs on the device that is timed, with numpy and onnxruntime alone: reads programs and inputs, prints their times.

Standard input is a NumPy archive with ``program0``, ``inputs0`` and perhaps ``padding0``, and so on for each network.
The arguments are the number of threads, of rounds, and the seconds per network. Without a program it tells the device.
"""

from __future__ import annotations

import io
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnxruntime

threads, rounds, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
matrix = np.full((96, 96), 1 / 96, np.float32)


def fastest(use: Callable[[], object], limit: float, repeats: int) -> float:
    """The minimum of the seconds of a use, of at least two and at most ``repeats`` within the time limit."""
    best, end = float("inf"), time.perf_counter() + limit
    for repeat in range(repeats):
        if repeat >= 2 and time.perf_counter() >= end:
            break
        start = time.perf_counter()
        use()
        best = min(best, time.perf_counter() - start)
    return best


archive = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = threads, 3
uses: list[Callable[[], object]] = []
while f"program{len(uses)}" in archive:
    number = len(uses)
    program = archive[f"program{number}"].tobytes()
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    feed = {name: archive[f"{name}{number}"] for name in ("inputs", "padding") if f"{name}{number}" in archive}
    uses.append(partial(session.run, None, feed))
for use in uses:
    fastest(use, seconds / rounds, 5)  # warm-up
times: list[list[float]] = [[] for _ in uses]
for _ in range(rounds):
    for use, found in zip(uses, times, strict=True):
        found.append(fastest(use, seconds / rounds, 50))
device = f"{platform.node()}: {platform.processor() or platform.machine()}, onnxruntime {onnxruntime.__version__}"
reference = fastest(lambda: matrix @ matrix, 0.01, 50)
print(json.dumps({"device": device, "seconds": times, "reference": reference}))  # noqa: T201
