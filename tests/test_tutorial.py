"""The tutorial: each of its blocks is run, in order and in one empty folder, with a shorter search."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "search" / "TUTORIAL.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL)
SHORTER = {"budget=4min": "n_trials=2 space.train.epochs=1", "range(1500)": "range(300)"}
RUNNING = "mlflow models serve"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address, process):
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail("the server does not answer")


@pytest.mark.server
@pytest.mark.slow
def test_each_step_of_the_tutorial_runs(tmp_path):
    pytest.importorskip("onnxruntime", reason="an extra: pip install 'paretoformer[export]'")
    port = free_port()
    bin_folder = Path(sys.executable).parent
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # A user gives one command after another in a shell of one environment.
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": path}
    environment["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    assert f"export MLFLOW_TRACKING_URI={environment['MLFLOW_TRACKING_URI']}\n" in TUTORIAL
    shown, server = {}, None
    try:
        for language, code in BLOCKS:
            for text, shorter in {**SHORTER, "5001": str(port)}.items():
                code = code.replace(text, shorter)
            command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
            if RUNNING in code:
                server = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
                wait_for(f"http://127.0.0.1:{port}", server)
                continue
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, code + done.stdout + done.stderr
            shown[code] = done.stdout
    finally:
        if server is not None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
    assert all(any(text in code for _, code in BLOCKS) for text in SHORTER)
    answer = json.loads(list(shown.values())[-1])
    (predicted,) = answer["predictions"]
    assert predicted["label"] in ("keep", "return")
    (row,) = (line for code, text in shown.items() if "search.predict" in code for line in text.splitlines())
    assert json.loads(row)["label"] == predicted["label"], "served, and predicted from the folder"
    assert (tmp_path / "reviews.html").is_file()
