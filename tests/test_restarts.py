"""A PostgreSQL server of its own that is restarted under load, fast and immediately, and stays away for a while."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import chaos
import psycopg
import pytest

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
USER = "postgres"  # PostgreSQL refuses root
STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
WORKERS, TRIALS, EVERY = 3, 6, 12  # epochs, between two restarts
AWAY_S = 60.0  # workers wait for up to 120
SET_DEATH_SIGNAL = 1  # of prctl
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(BIN is None or os.geteuid() != 0, reason="no PostgreSQL, or not root"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # within MLflow
]


class Server:
    """A cluster in ``folder``; it ends with this process, however that ends."""

    def __init__(self, folder):
        self.folder, self.libc = folder, ctypes.CDLL(None)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"
        shutil.chown(folder, USER, USER)
        command = ["initdb", "--pgdata", folder, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        self.popen(*command).wait(60)
        self.start()

    def popen(self, program, *arguments):
        return subprocess.Popen(
            [BIN / program, *map(str, arguments)],
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: self.libc.prctl(SET_DEATH_SIGNAL, STOP["immediate"]),
        )

    def start(self):
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self.process = self.popen("postgres", "-D", self.folder, "-p", self.port, *options)
        ends = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url.replace("+psycopg", "")).close()
                return
            assert self.process.poll() is None, "it has ended"
            assert time.monotonic() < ends
            time.sleep(0.05)

    def stop(self, mode):
        self.process.send_signal(STOP[mode])
        self.process.wait(60)


@pytest.fixture
def server():
    with tempfile.TemporaryDirectory(prefix="paretoformer-tests-") as folder:
        server = Server(folder)
        yield server
        server.stop("immediate")


@pytest.mark.parametrize(("mode", "away_s", "restarts"), [("fast", 0.0, 3), ("immediate", 0.0, 3), ("fast", AWAY_S, 1)])
def test_no_worker_ends_and_nothing_is_trained_twice(mode, away_s, restarts, server, tmp_path):
    config = chaos.configuration(tmp_path, server.url, TRIALS, epoch_s=0.1)
    if not away_s:  # then no heartbeat is late, however busy the machine is
        config["storage"]["grace_s"] = 10 * chaos.GRACE_S
    workers = chaos.Chaos(config, tmp_path, WORKERS, seed=0, max_tries=3)
    done, epochs = 0, tmp_path / "epochs"
    try:
        while workers.fill():
            if done < restarts and epochs.exists() and epochs.stat().st_size >= (done + 1) * EVERY:
                server.stop(mode)
                time.sleep(away_s)
                server.start()
                done += 1
            time.sleep(0.02)
        workers.end()
    finally:
        for process in workers.workers:
            process.kill()
    assert done == restarts, "the study ended before"
    assert workers.started == WORKERS + 1, "a worker has ended"
    chaos.check(config, tmp_path, may_cost=0)


def test_if_the_server_stays_away_every_worker_ends_with_one_line_and_the_study_can_be_continued(server, tmp_path):
    config = chaos.configuration(tmp_path, server.url, TRIALS, epoch_s=0.1)
    patient = dict(config["storage"])
    config["storage"] = {**patient, "wait_s": 5}
    workers, epochs = chaos.Chaos(config, tmp_path, WORKERS, seed=0, max_tries=3), tmp_path / "epochs"
    try:
        workers.fill()
        while not epochs.exists() or epochs.stat().st_size < 2 * EVERY or len(workers.training()) < WORKERS:
            assert workers.fill(), "the study ended before"
            time.sleep(0.02)
        server.stop("fast")
        for process in workers.workers:
            process.join(120)
        assert [process.exitcode for process in workers.workers] == [1] * WORKERS
    finally:
        for process in workers.workers:
            process.kill()
        server.start()
    for number in range(1, WORKERS + 1):
        log = (tmp_path / f"worker-{number}.log").read_text()
        assert "Traceback" not in log
        (line,) = (line for line in log.splitlines() if line.startswith("The run ends: "))
        assert line.startswith("The run ends: the database has been unavailable for 5 s (storage.wait_s=5): ")
        assert line.endswith("The same command continues the study.")
        assert line == log.splitlines()[-1]
    config["storage"] = patient
    workers.end()
    chaos.check(config, tmp_path, may_cost=2 * WORKERS)
