import os
import sys

import pytest

# Two workers of a test must not fight over the cores of a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def close_storages():
    """A connection left open is a warning, and warnings are errors."""
    yield
    opened = sys.modules["tiny_task"].opened if "tiny_task" in sys.modules else []
    while opened:
        storage = opened.pop()
        storage.remove_session()
        storage.engine.dispose()
