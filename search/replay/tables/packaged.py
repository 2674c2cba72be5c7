"""Data files of installed packages, which are located without importing the packages, and read by a safe unpickler."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import scalar

from spaces.dimensions import ConfigError

ALLOWED = {  # all that the pickles of public tables construct besides numbers, strings, lists and dictionaries
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy._core.multiarray", "scalar"): scalar,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Refuses every class and function but numpy's numbers, because a pickle can run any function."""

    def find_class(self, module: str, name: str) -> Any:
        """One of ``ALLOWED``."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a table of numbers")
        return ALLOWED[module, name]


def data_file(table: str, *, package: str, module: str, path: str) -> Path:
    """The file ``path`` inside the importable ``module`` that ``package`` installs.

    Raises:
        ConfigError: the package is not installed, or has no such file; the message names ``table``.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{table}: the package {package} is not installed; pip install 'paretoformer[tables]' installs it"
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise ConfigError(f"{table}: the installed {package} has no {path}; use a version in the extra 'tables'")
    return file


def load(table: str, *, package: str, module: str, path: str) -> dict[Any, Any]:
    """The dictionary in a pickle, whose place is given as for :func:`data_file`.

    Raises:
        ConfigError: there is none, or the file is no pickle of a dictionary of numbers.
    """
    file = data_file(table, package=package, module=module, path=path)
    try:
        with file.open("rb") as opened:
            content = RestrictedUnpickler(opened).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{table}: {file}: no table: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{table}: {file}: no table: {type(content).__name__} instead of a dictionary with entries")
    return content
