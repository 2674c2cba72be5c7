"""The versions of the packages that results depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("paretoformer", "torch", "lightning", "optuna", "mlflow")


def versions() -> dict[str, str]:
    """The version of Python and of each of ``PACKAGES`` that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # such as this one, run from its folder
            continue
    return found
