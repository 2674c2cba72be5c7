"""python -m search.ui: a server of MLflow on this machine alone, and the address of a study in it."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from test_tracking import OBJECTIVES, record

from search.tracking.mlflow import MlflowTracking
from search.ui.__main__ import main


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database with the studies one and two, of which two is there twice."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    for identity, study in enumerate(("one", "two", "two")):
        tracking = MlflowTracking(uri=uri)
        tracking.start(study, identity=str(identity), objectives=OBJECTIVES, config="")
        tracking.finish([record(0)])
    return uri


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.server
@pytest.mark.slow
def test_the_server_shows_the_study_and_ends_with_the_command(uri):
    port = free_port()
    command = [sys.executable, "-m", "search.ui", "two", "--uri", uri, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        address, run = re.fullmatch(
            r"(http://127\.0\.0\.1:\d+)/#/experiments/\d+/runs/(\w+)\?workflowType=\w+\n", lines[1]
        ).groups()
        request = f"{address}/ajax-api/2.0/mlflow/runs/get?run_id={run}"
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert '"two"' in answer.read().decode()
        assert uri not in subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True).stdout.replace(
            " ".join(command), ""
        )
    finally:
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server has ended"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["three"], "MLflow has no study 'three'; python -m search.sync three logs it"),
        (["--experiment", "other"], "--experiment other: MLflow has none of that name"),
    ],
)
def test_what_is_not_there_is_refused(uri, arguments, message, capsys):
    assert main(["--uri", uri, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_port_that_is_taken_is_refused(uri, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["one", "--uri", uri, "--port", str(port)]) == 2
    assert f"--port {port}: another program uses this port" in capsys.readouterr().err
