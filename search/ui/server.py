"""An MLflow server on this machine alone, and the addresses of studies in its UI."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.error import URLError
from urllib.request import urlopen

from search.tracking.client import STUDY, connect, study_runs
from search.tracking.saved_view import run_path
from spaces.dimensions import ConfigError

HOST = "127.0.0.1"  # not reachable from other machines
START_S = 120.0
STOP_S = 10.0


@contextmanager
def serving(uri: str, port: int) -> Iterator[str]:
    """The address of a server of the database ``uri``, which ends with the context.

    Raises:
        ConfigError: the port is taken, or the server does not start; the message has its last line.
    """
    with closing(socket.socket()) as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ConfigError(f"--port {port}: another program uses this port; name another one")
    # By the environment, as command lines are visible to all users and the URI may have a password.
    settings = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches this process, which then ends the server
    )
    try:
        address = f"http://{HOST}:{port}"
        _wait(process, address)
        yield address
    finally:
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to the process and those that it has started: MLflow's server has children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait(process: subprocess.Popen[str], address: str) -> None:
    """Return once the server answers."""
    start = time.monotonic()
    while time.monotonic() - start < START_S:
        if process.poll() is not None:
            assert process.stderr is not None
            last = (process.stderr.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise ConfigError(f"MLflow's server has ended: {last}")
        try:
            with urlopen(f"{address}/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise ConfigError(f"MLflow's server has not answered for {START_S:.0f} s")


def path_of(uri: str, experiment: str, study: str | None) -> str:
    """The path in the UI of the parent run of a study, or of the experiment.

    Raises:
        ConfigError: there is no such experiment or study.
    """
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise ConfigError(f"--experiment {experiment}: MLflow has none of that name")
    number = found.experiment_id
    if study is None:
        return f"#/experiments/{number}/runs?workflowType=machine_learning"
    parents = study_runs(client, number)  # the latest first
    run = next((run.info.run_id for run in parents if run.data.tags[STUDY] == study), None)
    if run is None:
        raise ConfigError(f"MLflow has no study {study!r}; python -m search.sync {shlex.quote(study)} logs it")
    return run_path(number, run)
