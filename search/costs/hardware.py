"""What latencies depend on besides the network: the processor and its cores or the GPU, and the version of PyTorch."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from search.costs.exclusive import cores
from spaces.dimensions import ConfigError

AUTO = "auto"
CPUINFO = Path("/proc/cpuinfo")
NAME_FIELD, MODEL_FIELDS = "model name", ("cpu family", "model", "stepping")


def hardware_name(device: str = "cpu") -> str:
    """Equal on machines whose latencies may be compared, such as ``AMD EPYC 25/17/1, 2 cores, torch 2.13``.

    Of a GPU, the processor is named as well: it launches the kernels.
    """
    version = ".".join(torch.__version__.split(".")[:2])
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, {processor()}, torch {version}"
    known = _cpuinfo()
    model = f" {'/'.join(known.get(name, '') for name in MODEL_FIELDS)}" if NAME_FIELD in known else ""
    return f"{processor()}{model}, {cores()} cores, torch {version}"


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    if name := _cpuinfo().get(NAME_FIELD):
        return name
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "Apple"
    return platform.processor() or platform.machine()


def _cpuinfo() -> dict[str, str]:
    """The fields of the last core on Linux; elsewhere empty."""
    try:
        text = CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text, re.MULTILINE))


def check_hardware(given: str, here: str | None, stored: Callable[[Callable[[], str]], str]) -> None:
    """Check that latencies measured here may be compared with those that a study has.

    Args:
        given: the key ``hardware``; ``auto`` for ``here``.
        here: what latencies are measured on; None if they are computed, and so the same everywhere.
        stored: returns the study's name of its hardware, and in a new study stores that of its argument.

    Raises:
        ConfigError: the study's latencies were measured on other hardware.
    """
    if here is None:
        return
    here = here if given == AUTO else given
    known = stored(lambda: here)
    if known != here:
        raise ConfigError(
            f"hardware: the latencies of this study were measured on {known!r}, this worker has {here!r}, and they "
            f"cannot be compared; run the worker on such a machine, or another study (study=NAME, which can begin "
            f"with this one's front: warm_start=STUDY); if the two are equally fast, hardware={known!r}"
        )
