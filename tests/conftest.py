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
    """Close the storages that a test opened."""
    yield
    if "tiny_task" in sys.modules:
        sys.modules["tiny_task"].close_opened()
