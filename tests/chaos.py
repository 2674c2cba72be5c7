"""A command that kills, stops and interrupts the workers of a study at random, and then checks that nothing is lost.

``python tests/chaos.py FOLDER --kills 30`` works on SQLite, ``--storage URL`` on a server, whose connections are then
terminated at random as well; ``--restart COMMAND`` restarts it instead. Now and then all workers are killed at once, as
when the machine fails. A checkpoint is written after each epoch, so a signal may cost one epoch at most, a worker that
continues after its trial was taken over another one. With ``--same`` there is one worker, and the results must be those
of a run without signals. It prints the numbers and ends with exit code 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import mlflow
import optuna
import sqlalchemy
from tiny_task import TREE, FirstToken, tiny_config

from search.study import attributes
from search.study.records import Objectives, State, front
from search.study.storage import load_study, open_read_only
from search.study.store import TrialStore
from search.tracking.summaries import trial_data
from search.training import checkpoint
from search.workers.run import run
from spaces.architecture import key
from spaces.dimensions import ConfigError
from spaces.space import Space

HEARTBEAT_S, GRACE_S = 1, 3
EPOCHS = 12
IMPORTED = (  # by every worker
    "mlflow.store.tracking.sqlalchemy_store",
    "search.assemble",
    "search.pruning.gain_rate",
    "search.report.figure",
    "search.report.progress",
    "search.samplers.surrogate",
    "search.tracking.runs",
    "search.worker",
    "sklearn.metrics",
)
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM)


class Slow(FirstToken):
    """An epoch takes ``epoch_s`` seconds and leaves a byte in the file ``epochs``."""

    def __init__(self, *, epoch_s: float = 0.2) -> None:
        super().__init__()
        self.epoch_s = epoch_s

    def batches(self, split, batch_size, *, shuffle=None):
        if split == "train" and shuffle is not None:
            time.sleep(self.epoch_s)
            with Path("epochs").open("ab") as file:
                file.write(b".")
        return super().batches(split, batch_size, shuffle=shuffle)


def configuration(folder: Path, url: str, n_trials: int, epoch_s: float) -> dict:
    config = tiny_config(folder)
    space = {**TREE, "train": {**TREE["train"], "epochs": EPOCHS}}
    storage = {"url": url, "heartbeat_s": HEARTBEAT_S, "grace_s": GRACE_S, "wait_s": 120}
    return {
        **config,
        "study": "chaos",
        "space": space,
        "task": {"_target_": "chaos.Slow", "epoch_s": epoch_s},
        "pruner": {"_target_": "search.pruning.gain_rate.GainRate", "patience": 0.1, "first": 3, "target": 2.0},
        "storage": storage,
        "tracking": {
            "_target_": "search.tracking.mlflow.MlflowTracking",
            "uri": f"sqlite:///{folder}/mlflow.db",
            "experiment": "paretoformer",
        },
        "checkpoints": str(folder / "checkpoints"),
        "n_trials": n_trials,
        "budget": None,
        "patience": None,
        "min_gain": None,
        "scale": "auto",
    }


def worker(config: dict, folder: Path, number: int, max_tries: int) -> None:
    """Run the study to its end, in a process of its own."""
    attributes.MAX_TRIES = max_tries
    checkpoint.EVERY_S, checkpoint.MAX_SHARE = 0.0, float("inf")
    os.chdir(folder)
    log = os.open(f"worker-{number}.log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        sys.exit(run(config))
    except KeyboardInterrupt:  # before the first trial, as in search.run
        sys.exit(130)
    except ConfigError as error:  # a server that refuses connections when a run starts may be a wrong address
        print(error)  # noqa: T201
        sys.exit(130 if "refused" in str(error) else 2)


def resume(process) -> None:
    """Let a stopped process go on, unless it has been killed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)


class Chaos:
    """Keeps ``count`` workers running and sends them signals."""

    def __init__(self, config: dict, folder: Path, count: int, seed: int, *, max_tries: int) -> None:
        self.config, self.folder, self.count, self.max_tries = config, folder, count, max_tries
        self.random, self.started, self.sent = random.Random(seed), 0, Counter()
        self.workers, self.stopped = [], []
        self.may_cost = 0  # epochs
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["chaos", *IMPORTED])

    def start(self):
        self.started += 1
        process = self.context.Process(target=worker, args=(self.config, self.folder, self.started, self.max_tries))
        process.start()
        return process

    def signal_one(self) -> None:
        """Send a random signal to a random worker; one that was stopped continues after the grace period."""
        for process, at in list(self.stopped):
            if time.monotonic() > at:
                resume(process)
                self.stopped.remove((process, at))
        if self.random.random() < 0.1:
            for process in self.workers:
                process.kill()
            self.sent["all killed"] += 1
            self.may_cost += len(self.workers)
            return
        stopped = [process for process, _ in self.stopped]
        running = [process for process in self.workers if process.is_alive() and process not in stopped]
        # Mostly one that runs a trial, so that workers get through their start.
        ids = self.training() if self.random.random() < 0.9 else {process.pid for process in running}
        chosen = [process for process in running if process.pid in ids]
        if not chosen:
            return
        process, number = self.random.choice(chosen), self.random.choice(SIGNALS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            self.sent[number.name] += 1
            self.may_cost += 1 + (number == signal.SIGSTOP)
        if number == signal.SIGSTOP:
            self.stopped.append((process, time.monotonic() + GRACE_S + 2))

    def training(self) -> set[int]:
        """The ids of the processes that run a trial."""
        try:
            with open_read_only(self.config["storage"]["url"]) as storage:
                records = TrialStore(load_study(storage, "chaos")).records()
        except (ConfigError, optuna.exceptions.StorageInternalError):  # not created yet, or interrupted
            return set()
        workers = [record.worker for record in records if record.state == State.RUNNING]
        return {int(worker.rpartition(":")[2]) for worker in workers if worker}

    def fill(self) -> bool:
        """Start workers in place of those that have ended; false if one has ended the study."""
        self.workers, ended = [each for each in self.workers if each.exitcode is None], self.workers
        if any(each.exitcode == 0 for each in ended):
            return False
        failed = [each.exitcode for each in ended if each.exitcode not in (None, -9, 130, 143, -2, -15)]
        assert not failed, f"workers ended with exit codes {failed}"
        self.workers += [self.start() for _ in range(self.count - len(self.workers))]
        return True

    def end(self) -> None:
        """Let all go on, and run the study to its end."""
        for process, _ in self.stopped:
            resume(process)
        for process in self.workers:
            process.join()
        last = self.start()
        last.join()
        assert last.exitcode == 0, f"the last worker ended with exit code {last.exitcode}"


def outline(url: str) -> list[tuple]:
    """The results of the study in the order in which its trials were first started; their numbers depend on signals."""
    with open_read_only(url) as storage:
        records = TrialStore(load_study(storage, "chaos")).records()
    return [(each.state, each.architecture, each.curve, each.metric) for each in records]


def check_same(url: str, folder: Path, n_trials: int) -> None:
    """Run another study without signals and pauses and compare it with the one at ``url``."""
    folder.mkdir()
    config = configuration(folder, f"sqlite:///{folder}/studies.db", n_trials, epoch_s=0.0)
    Chaos(config, folder, 1, 0, max_tries=1).end()
    for interrupted, whole in zip(outline(url), outline(config["storage"]["url"]), strict=True):
        assert interrupted == whole, f"{interrupted} instead of {whole}"


def check(config: dict, folder: Path, may_cost: int) -> dict:
    """Check what is stored, and that at most ``may_cost`` epochs were trained in vain; return numbers."""
    with open_read_only(config["storage"]["url"]) as storage:
        store = TrialStore(load_study(storage, "chaos"))
        records = store.records()
        objectives = Objectives.of(Slow(), config["costs"], store.ceilings())
        identity = store.study_id()
        dimensions = Space(store.identity()["space"]).dimension_names()
        states = Counter(trial.state.name for trial in store.study.trials)
    ended = {State.COMPLETE, State.PRUNED, State.PAUSED}
    assert len(records) == config["n_trials"], f"{len(records)} trials instead of {config['n_trials']}"
    unexpected = [record for record in records if record.state not in ended]
    assert not unexpected, unexpected
    assert not {"RUNNING", "WAITING"} & set(states), states
    assert len({key(record.architecture) for record in records}) == len(records), "an architecture was tried twice"
    for record in records:
        assert [epoch for epoch, _ in record.curve] == list(range(1, record.epochs + 1)), record
        assert record.state != State.COMPLETE or record.epochs == EPOCHS

    points = {record.number: objectives.point(record) for record in records if objectives.point(record)}
    dominated = {
        one
        for one, point in points.items()
        for other in points.values()
        if other != point and all(a <= b for a, b in zip(other, point, strict=True))
    }
    members = {member.number for member in front(records, objectives)}
    assert members == set(points) - dominated, "the front is wrong"

    client = mlflow.MlflowClient(config["tracking"]["uri"])
    experiment = client.get_experiment_by_name("paretoformer")
    runs = list(client.search_runs([experiment.experiment_id], max_results=5000))
    logged = {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}
    numbers = Counter(int(run.data.tags["trial"]) for run in runs if "trial" in run.data.tags)
    assert numbers == Counter(record.number for record in records), f"not one run a trial: {sorted(numbers.elements())}"
    assert sum("trial" not in run.data.tags for run in runs) == 1, "not one parent run"
    for record in records:
        run = logged[record.number]
        assert run.data.tags["state"] == record.state, (record.number, run.data.tags["state"], record.state)
        assert run.data.metrics.get("final_accuracy") == record.metric
        assert run.data.params == trial_data(record, objectives, dimensions).params
    assert {number for number, run in logged.items() if run.data.tags.get("front") == "true"} == members

    begun, count = len((folder / "epochs").read_bytes()), sum(record.epochs for record in records)
    assert begun - count <= may_cost, f"{begun} epochs begun for {count}, the signals may have cost {may_cost}"
    paused = sum(record.state == State.PAUSED for record in records)
    files = [path.name for path in folder.rglob("*") if path.is_file()]
    assert sum(name.endswith(".pt") for name in files) <= paused, "checkpoints of ended trials are left"
    assert not [name for name in files if name.startswith(".") and ".pt" in name], "half-written files"
    assert not list(folder.glob(".mlflow-*"))
    return {
        "trials": len(records),
        "states": dict(Counter(str(record.state) for record in records)),
        "trials in Optuna": sum(states.values()),
        "epochs that count": count,
        "epochs begun": begun,
        "identity": identity[:6],
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--epoch-s", type=float, default=0.2, help="seconds of an epoch")
    parser.add_argument("--interval-s", type=float, default=4.0, help="at most between two signals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", metavar="URL")
    parser.add_argument("--restart", metavar="COMMAND", help="restarts the server of the storage")
    parser.add_argument("--same", action="store_true", help="one worker; compare with a run without signals")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = configuration(folder, asked.storage or f"sqlite:///{folder}/studies.db", asked.trials, asked.epoch_s)
    workers, max_tries = (1, sys.maxsize) if asked.same else (asked.workers, attributes.MAX_TRIES)
    chaos = Chaos(config, folder, workers, asked.seed, max_tries=max_tries)
    start, outages = time.monotonic(), 0
    while sum(chaos.sent.values()) < asked.kills and chaos.fill():
        time.sleep(chaos.random.uniform(0.05, 1) * asked.interval_s)
        chaos.signal_one()
        if config["storage"]["url"].startswith("postgresql") and chaos.random.random() < 0.2:
            outages += 1
            interrupt_server(asked.storage, asked.restart)
    chaos.end()
    numbers = check(config, folder, chaos.may_cost)
    if asked.same:
        check_same(config["storage"]["url"], folder / "whole", asked.trials)
    signals = dict(chaos.sent)
    print({"signals": signals, "outages": outages, "seconds": round(time.monotonic() - start), **numbers})  # noqa: T201
    if sum(signals.values()) < asked.kills:
        sys.exit("the study ended before all signals were sent; give more trials")


def interrupt_server(url: str, command: str | None) -> None:
    """Restart the server, or terminate the connections of its other users."""
    if command:
        subprocess.run(command, shell=True, check=True)
        return
    engine = sqlalchemy.create_engine(url)
    terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError), engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"{terminate} pg_backend_pid()"))
    engine.dispose()


if __name__ == "__main__":
    main()
