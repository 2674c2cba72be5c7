"""Latency on another device, over ssh: each network is sent as an ONNX program and timed there by onnxruntime.

The device needs Python, numpy and onnxruntime, and a login by ssh without a password. Nothing is written there.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from search.costs.latency import MAX_THREADS
from search.costs.meter import Latency, Meter
from search.programs.loaded import LoadedProgram
from spaces.dimensions import ConfigError, check_above, check_whole
from spaces.tasks import Task

TIMER = Path(__file__).with_name("remote_timer.py")
HOST = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@:-]*")  # a leading - would be an option of ssh
TIMEOUT_S = 600.0


class RemoteLatency(Meter):
    """Wall-clock time of ONNX programs on another device.

    Args:
        host: of the device, as ``ssh`` takes it, such as ``user@board``.
        python: the command of Python there.
        ssh: the command that connects, with its options.
        batch: sequences in one forward pass.
        length: of the sequences in tokens; None for the task's full length.
        threads: that onnxruntime uses.
        rounds: of repeats.
        seconds: time limit per network over all rounds.
    """

    def __init__(
        self,
        *,
        host: str,
        python: str = "python3",
        ssh: str = "ssh -o BatchMode=yes",
        batch: int = 1,
        length: int | None = None,
        threads: int = 1,
        rounds: int = 3,
        seconds: float = 0.3,
    ) -> None:
        super().__init__(batch=batch, length=length)
        check_whole(1, MAX_THREADS, threads=threads)
        check_whole(1, rounds=rounds)
        check_above(0.0, seconds=seconds)
        if not HOST.fullmatch(host):
            raise ValueError(f"host={host!r}: it must be a host as ssh takes it, such as user@board")
        self.threads, self.runtimes = threads, ("onnxruntime",)
        self.host, self.rounds, self.seconds = host, rounds, seconds
        self._command = [*shlex.split(ssh), host, "--", f"{python} -c {shlex.quote(TIMER.read_text(encoding='utf-8'))}"]

    @cached_property
    def hardware(self) -> str:
        """What the device says of itself.

        Raises:
            ConfigError: it cannot be reached, or lacks a package.
        """
        try:
            return str(self._time({})["device"])
        except OSError as error:
            raise ConfigError(f"latency: {error}") from error

    def measure_all(self, networks: Sequence[nn.Module], tasks: Sequence[Task]) -> list[Latency]:
        """See :class:`Meter`; the networks are programs, whose rounds alternate."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for number, (network, task) in enumerate(zip(networks, tasks, strict=True)):
            assert isinstance(network, LoadedProgram)
            arrays[f"program{number}"] = np.frombuffer(network.content, np.uint8)
            for name, value in network.feed(task.sample(self.batch, self.length)).items():
                arrays[f"{name}{number}"] = value
        if not arrays:
            return []
        found = self._time(arrays)
        lengths = [self.length or task.spec.length for task in tasks]
        return [
            Latency(
                ms=1e3 * min(times),
                spread=max(times) / min(times) - 1,
                batch=self.batch,
                length=length,
                threads=self.threads,
                rounds_ms=tuple(1e3 * each for each in times),
                reference_ms=1e3 * found["reference"],
            )
            for times, length in zip(found["seconds"], lengths, strict=True)
        ]

    def _time(self, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """What :mod:`search.costs.remote_timer` prints there."""
        archive = io.BytesIO()
        np.savez(archive, **arrays)  # type: ignore[arg-type]
        settings = f"{self.threads} {self.rounds} {self.seconds}"
        command = [*self._command[:-1], f"{self._command[-1]} {settings}"]
        try:
            done = subprocess.run(
                command, input=archive.getvalue(), capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{self.host} did not answer within {TIMEOUT_S:.0f} s") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise ConnectionError(f"{self.host}: {lines[-1] if lines else f'exit code {done.returncode}'}")
        return dict(json.loads(done.stdout))
