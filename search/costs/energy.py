"""Energy of a prediction, from the counters of the processor (RAPL), where they can be read.

David et al., "RAPL: memory power estimation and capping", 2010. The counters are those of whole processor packages, so
what other processes and idle cores use is included; on most systems only root can read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from spaces.dimensions import ConfigError

POWERCAP = Path("/sys/class/powercap")
SECONDS = 0.5  # of repeats between two readings, as counters are updated about every millisecond


def packages(folder: Path | None = None) -> list[Path]:
    """The folders of the processor packages whose counters can be read; empty where there are none."""
    found = []
    for package in sorted((folder or POWERCAP).glob("intel-rapl:*")):
        if package.name.count(":") > 1:  # a part of a package
            continue
        try:
            (package / "energy_uj").read_text()
        except OSError:
            continue
        found.append(package)
    return found


def needed_packages() -> list[Path]:
    """As :func:`packages`, of which there must be one.

    Raises:
        ConfigError: there is none.
    """
    if not (found := packages()):
        raise ConfigError(
            f"energy_mj: there are no energy counters (RAPL) in {POWERCAP} that this user may read;"
            " on most systems root alone may"
        )
    return found


def millijoules(use: Callable[[], object], folders: list[Path], *, seconds: float = SECONDS) -> float:
    """Of one call of ``use``, the mean over repeated calls."""
    calls, before, end = 0, [_microjoules(each) for each in folders], time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        use()
        calls += 1
    spent = 0
    for folder, earlier in zip(folders, before, strict=True):
        later = _microjoules(folder)
        if later < earlier:  # the counter has begun again
            later += int((folder / "max_energy_range_uj").read_text())
        spent += later - earlier
    return spent / 1e3 / calls


def _microjoules(folder: Path) -> int:
    return int((folder / "energy_uj").read_text())
