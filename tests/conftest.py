import os
import sys

import pytest

# Two workers of a test must not fight over the cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def close_storages():
    """Close the storages that a test opened."""
    yield
    if "tiny_task" in sys.modules:
        sys.modules["tiny_task"].close_opened()
