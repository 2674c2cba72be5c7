"""Latency on another device over ssh: a real server on this machine where there is one, and a stand-in for ssh."""

import shutil
import socket
import subprocess
import sys

import pytest
import torch
from tiny_task import SOFTMAX as ARCHITECTURE
from tiny_task import FirstToken

from search.costs.measured import MeasuredCosts
from search.costs.remote import RemoteLatency
from search.costs.runtimes import in_runtimes
from spaces.build import build
from spaces.dimensions import ConfigError

TASK = FirstToken()
QUICK = {"rounds": 2, "seconds": 0.01, "python": sys.executable}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A stand-in for ssh that runs the command on this machine, as ssh does: by a shell."""
    path = tmp_path_factory.mktemp("ssh") / "ssh"
    path.write_text('#!/bin/sh\nshift 2\nexec sh -c "$*"\n')  # without host and --
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command that connects to an ssh server on this machine."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("needs an ssh server")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [f"HostKey={folder / 'host'}", f"AuthorizedKeysFile={folder / 'user.pub'}", "ListenAddress=127.0.0.1"]
    options += ["StrictModes=no", "UsePAM=no", f"PidFile={folder / 'pid'}"]
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", "/dev/null", "-p", str(port), *(word for each in options for word in ("-o", each))],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "Server listening" in line:
            break
    else:
        pytest.skip("the ssh server does not start")
    known = f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={folder / 'known'} -o LogLevel=ERROR"
    yield f"ssh -o BatchMode=yes -p {port} -i {folder / 'user'} {known}"
    process.terminate()
    process.communicate()


@pytest.mark.slow
def test_programs_are_timed_by_a_server(server):
    meter = RemoteLatency(host="127.0.0.1", ssh=server, **QUICK)
    assert ", onnxruntime " in meter.hardware
    wide = {**ARCHITECTURE, "model": {**ARCHITECTURE["model"], "width": 256}}
    narrow_ms, wide_ms = MeasuredCosts(TASK, meter).timings([ARCHITECTURE, wide])
    assert 0 < narrow_ms.ms < wide_ms.ms
    assert (narrow_ms.host, narrow_ms.runtime) == ("127.0.0.1", "onnxruntime")
    assert narrow_ms.reference_ms > 0


@pytest.mark.slow
def test_the_other_device_gets_the_program_and_the_inputs_of_the_network(here, monkeypatch):
    torch.manual_seed(0)
    network = build(ARCHITECTURE, TASK).eval()
    (program,) = in_runtimes(network, ARCHITECTURE, TASK, ["onnxruntime"]).values()
    meter, sent = RemoteLatency(host="board", ssh=here, batch=3, **QUICK), []
    monkeypatch.setattr(
        meter, "_time", lambda arrays: sent.append(arrays) or {"seconds": [[0.25, 0.5]], "reference": 1}
    )
    (latency,) = meter.measure_all([program], [TASK])
    assert (latency.ms, latency.spread, latency.batch, latency.length) == (250.0, 1.0, 3, 8)
    import onnxruntime

    session = onnxruntime.InferenceSession(sent[0]["program0"].tobytes())
    feed = {each.name: sent[0][f"{each.name}0"] for each in session.get_inputs()}
    with torch.inference_mode():
        expected = network(TASK.sample(3))
    torch.testing.assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-5, rtol=1e-4)
    assert RemoteLatency(host="board", ssh=here, **QUICK).measure_all([], []) == []


@pytest.mark.parametrize(
    ("ssh", "python", "problem"),
    [
        ("HERE", "no-such-python", "latency: board: .*no-such-python.*not found"),
        ("HERE", "false", "latency: board: exit code 1"),
        ("no-such-ssh", "python3", "latency: .*no-such-ssh"),
    ],
)
def test_a_device_that_cannot_time_programs_is_refused_with_the_reason(here, ssh, python, problem):
    meter = RemoteLatency(host="board", ssh=here if ssh == "HERE" else ssh, python=python)
    with pytest.raises(ConfigError, match=problem):
        _ = meter.hardware


@pytest.mark.parametrize("host", ["-oProxyCommand=reboot", "", "a b", "x;reboot"])
def test_a_host_cannot_be_an_option_or_a_command(host):
    with pytest.raises(ValueError, match="it must be a host as ssh takes it"):
        RemoteLatency(host=host)
