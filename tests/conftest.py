import os
import sys

import pytest

# Two workers of a test must not fight over the cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config):
    """Run in this process when files or tests are named on the command line: a second process starts slower."""
    return 0 if any("::" in name or name.endswith(".py") for name in config.args) else None


@pytest.fixture(autouse=True)
def close_storages():
    """A connection left open is a warning, and warnings are errors."""
    yield
    opened = sys.modules["tiny_task"].opened if "tiny_task" in sys.modules else []
    while opened:
        storage = opened.pop()
        storage.remove_session()
        storage.engine.dispose()
