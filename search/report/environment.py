"""What results depend on besides the study: the versions of packages, and the machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from search.costs.exclusive import cores
from search.costs.hardware import processor

PACKAGES = ("paretoformer", "torch", "lightning", "optuna", "mlflow")


def environment() -> dict[str, Any]:
    """``machine`` and ``versions``."""
    return {"machine": machine(), "versions": versions()}


def versions() -> dict[str, str]:
    """The version of Python and of each of ``PACKAGES`` that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as this one, run from its folder
            continue
    return found


def machine() -> str:
    """The processor and the cores that this process may use: ``AMD EPYC 7763, 2 cores``."""
    return f"{processor()}, {cores()} core{'s' * (cores() != 1)}"
