"""A short run of the command that kills workers at random; see chaos.py for a long one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK = ["--kills", "4", "--epoch-s", "0.1", "--interval-s", "1", "--trials", "6"]


@pytest.mark.slow
def test_nothing_is_lost_when_workers_are_killed_at_random(tmp_path, url):
    check(tmp_path, ["--workers", "2", "--storage", url])


@pytest.mark.slow
def test_a_worker_that_is_killed_at_random_gives_the_results_of_one_that_is_not(tmp_path):
    check(tmp_path, ["--same"])


def check(tmp_path, options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(
        [sys.executable, HERE / "chaos.py", tmp_path / "run", *QUICK, *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # On a fast machine the study may end before all signals were sent; those that were must have done no harm.
    assert done.returncode == 0 or "the study ended before all signals" in done.stderr, done.stderr[-3000:]
    assert "'trials': 6" in done.stdout
    assert "'signals': {}" not in done.stdout
