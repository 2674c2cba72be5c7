"""A command that logs a study of many trials to MLflow, and tells what a trial, opening it, and tracking a run take.

``python -m tests.thousand``; the browser needs ``pip install -e '.[browser]'``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="of the study that is logged (%(default)s)")
    parser.add_argument("--run", type=int, default=36, help="trials of a search of the space nlp (%(default)s)")
    asked = parser.parse_args()
    measure(asked.trials)
    measure_share(asked.run)


def measure_share(trials: int) -> None:
    """Run a search in an empty folder; print the share of tracking in its time."""
    command = [sys.executable, "-m", "search.run", "+space=nlp", f"n_trials={trials}", "output=json"]
    with tempfile.TemporaryDirectory() as folder:
        lines = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    (seconds,) = (event for event in map(json.loads, lines) if event["event"] == "seconds")
    share = seconds["tracking"] / seconds["total"]
    print(f"tracking: {share:.1%} of the {seconds['total']:.0f} s of a run of {trials} trials of the space nlp")


def measure(trials: int) -> None:
    """Log a study and open it; print what it takes."""
    sys.path.insert(0, str(Path(__file__).parent))
    from browser import chromium, visit
    from test_tracking import OBJECTIVES, record
    from test_ui import free_port

    from search.report.answers import Description
    from search.tracking.mlflow import MlflowTracking
    from search.ui.server import path_of, serving

    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        tracking = MlflowTracking(uri=uri)
        description = Description("large", [("task", "None"), ("mechanisms", "linformer")], {"model.width"})
        tracking.start("large", identity="1", objectives=OBJECTIVES, config="", description=description)
        records, seconds = [], []
        for number in range(trials):
            # Metrics and costs are in no order, so that trials join the front and leave it.
            records.append(record(number, 0.2 + 0.7 * (number * 37 % 1000) / 1000, 1.0 + number * 61 % 1000))
            start = time.monotonic()
            tracking.log(number, records)
            seconds.append(time.monotonic() - start)
        start = time.monotonic()
        tracking.finish(records, "all are logged")
        finish_s = time.monotonic() - start
        first, last = (statistics.median(part) for part in (seconds[:50], seconds[-50:]))
        print(f"logging a trial: {1000 * first:.0f} ms at first, {1000 * last:.0f} ms at last")
        print(f"the end of the run: {finish_s:.1f} s")
        with serving(uri, free_port()) as address, chromium() as browser:
            url = f"{address}/{path_of(uri, 'paretoformer', 'large')}"
            start = time.monotonic()
            with visit(browser, url, "desktop", wait_for="Searched:"):
                print(f"the note of the parent run is visible after {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main()
