"""The checkpoint file of a trial: whole or missing, due after some seconds, and where an interrupted trial goes on."""

import errno
import io
import pickle
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_worker import PausesOnce, run
from tiny_task import Reports, tiny_search, tiny_study

from search import worker
from search.pruning.none import NoPruner
from search.study.attributes import OpenTrial
from search.study.records import Stop
from search.study.requeue import requeue
from search.study.store import TrialStore
from search.training import checkpoint as module
from search.training.checkpoint import EVERY_S, MAX_SHARE, Checkpoint

STATE = {"epoch": 3, "network": {"weight": torch.ones(2)}}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new" / "7.pt"


@pytest.fixture
def now(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    return clock


@contextmanager
def limited_file_size():
    """Files of this process have at most 100 bytes, as on a full disk; pytest's own output too, if it is a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_has_the_epochs_of_its_own_architecture(file):
    checkpoint = Checkpoint(file, {"model": {"depth": 1}})
    assert checkpoint.epochs() == 0
    checkpoint.write(STATE)
    assert checkpoint.epochs() == 3
    assert Checkpoint(file, {"model": {"depth": 2}}).epochs() == 0, "that of a deleted study with the same name"
    checkpoint.discard()
    checkpoint.discard()
    assert (checkpoint.epochs(), list(file.parent.iterdir())) == (0, [])


class Harmful:
    """What it unpickles to is the result of a call."""

    def __reduce__(self):
        return (pytest.fail, ("a checkpoint was executed",))


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


HARMFUL = [pytest.param(write(Harmful()), id=f"code, by {write.__module__}") for write in (pickle.dumps, saved)]


@pytest.mark.parametrize("content", [b"", b"PK\3\4 half of it", b"\x80\x02.", *HARMFUL])
def test_a_damaged_file_counts_as_missing(file, caplog, content):
    file.parent.mkdir()
    file.write_bytes(content)
    assert Checkpoint(file, {}).epochs() == 0
    assert [record.message.split(",")[0] for record in caplog.records] == [
        f"The checkpoint {file} is damaged or out of reach"
    ]


def test_on_a_full_disk_the_previous_checkpoint_stays_and_no_other_file(file, caplog):
    checkpoint = Checkpoint(file, {})
    checkpoint.write(STATE)
    with limited_file_size():
        checkpoint.write({**STATE, "epoch": 4})
    assert (checkpoint.epochs(), [path.name for path in file.parent.iterdir()]) == (3, ["7.pt"])
    (line,) = (record.message for record in caplog.records)
    assert line.startswith("A checkpoint cannot be written, the trial goes on without it: [Errno")


def test_what_a_worker_that_was_killed_while_writing_left_is_deleted_with_the_checkpoint(file):
    file.parent.mkdir()
    (file.parent / ".7.pt.host-1").write_bytes(b"half")
    (file.parent / ".77.pt.host-1").write_bytes(b"half")
    Checkpoint(file, {}).discard()
    assert [path.name for path in file.parent.iterdir()] == [".77.pt.host-1"]


@pytest.mark.parametrize(("seconds", "next_after"), [(0.0, EVERY_S), (1.0, 1.0 / MAX_SHARE)])
def test_writing_takes_a_small_share_of_the_time(file, now, monkeypatch, seconds, next_after):
    checkpoint = Checkpoint(file, {})

    def write(path, data):
        now[0] += seconds

    monkeypatch.setattr(module, "write_atomically", write)
    assert not checkpoint.is_due()
    now[0] = EVERY_S
    assert checkpoint.is_due()
    checkpoint.write(STATE)
    now[0] += next_after - 0.1
    assert not checkpoint.is_due()
    now[0] += 0.1
    assert checkpoint.is_due()


@pytest.fixture
def study(tmp_path):
    return tiny_study(f"sqlite:///{tmp_path / 'studies.db'}")


class Dies(Reports):
    """Ends the worker after an epoch, once, as if it were killed: the trial is neither told nor marked."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def progress(self, trial):
        super().progress(trial)
        if trial.epochs == self.epoch:
            self.epoch = None
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("every_s", "trained"), [(0.0, [2, 3]), (1e9, [0, 1, 2, 3])])
def test_an_interrupted_trial_goes_on_from_its_last_checkpoint(study, tmp_path, monkeypatch, every_s, trained):
    whole = run(tiny_study(f"sqlite:///{tmp_path / 'whole.db'}"), tiny_search(checkpoints=tmp_path / "whole"), 1)
    monkeypatch.setattr(module, "EVERY_S", every_s)
    monkeypatch.setattr(module, "MAX_SHARE", 1e9)
    search, reporter = tiny_search(checkpoints=tmp_path / "waiting"), Dies(2)
    with pytest.raises(KeyboardInterrupt):
        run(study, search, 1, reporter=reporter)
    assert reporter.calls[-1] == ("progress", 0, 2)
    reporter.calls = []
    (trial,) = run(study, search, 1, reporter=reporter)
    assert [epoch for _, number, epoch in reporter.calls] == [0, *trained]
    assert (trial.curve, trial.metric, len(trial.cpu_seconds)) == (whole[0].curve, whole[0].metric, 3)
    assert trial.costs == whole[0].costs
    assert not list((tmp_path / "waiting").rglob("*.pt"))


@pytest.mark.slow
def test_a_trial_that_cannot_be_saved_is_paused_without_a_checkpoint(study, tmp_path, monkeypatch, caplog):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        pruner = PausesOnce()
        pruner.resumes = lambda history, last: None
        (paused,) = run(study, tiny_search(pruner=pruner, checkpoints=tmp_path), 1)
    assert (paused.state, paused.epochs) == ("paused", 1)
    TrialStore(study).resume(0)
    (trial,) = run(study, tiny_search(checkpoints=tmp_path), 1)
    assert (trial.state, [epoch for epoch, _ in trial.curve]) == ("complete", [1, 2, 3])
    assert "No space left on device" in caplog.text


@pytest.mark.slow
def test_the_checkpoint_that_a_killed_worker_left_of_a_complete_trial_is_deleted(study, tmp_path):
    folder = tmp_path / "waiting"
    run(study, tiny_search(checkpoints=folder), 1)
    for number in (0, 7):
        (folder / f"{number}.pt").touch()
    run(study, tiny_search(checkpoints=folder), 1)
    assert [path.name for path in folder.glob("*.pt")] == ["7.pt"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")  # it asks for a trial
def test_of_a_trial_that_was_queued_twice_the_checkpoint_stays_for_the_worker_that_runs_it(
    study, tmp_path, monkeypatch
):
    pruner = PausesOnce()
    pruner.resumes = lambda history, last: None
    run(study, tiny_search(pruner=pruner, checkpoints=tmp_path), 1)
    for _ in range(2):
        requeue(study, 0)
    theirs, ended = study.ask(), []
    monkeypatch.setattr(
        worker.time, "sleep", lambda _: ended.append((tmp_path / "0.pt").exists()) or study.tell(theirs, [0.5, 1.0])
    )
    run(study, tiny_search(pruner=pruner, checkpoints=tmp_path), 2)
    assert [trial.user_attrs.get("outcome") for trial in study.trials] == ["paused", None, "over_quota", "paused"]
    assert ended == [True]


class StopsAfter(NoPruner):
    """Pauses every trial after two epochs."""

    pauses = True

    def decide(self, row, epoch, history):
        return Stop("enough", epoch) if epoch == 2 else None


@pytest.mark.slow
def test_the_decision_that_a_worker_did_not_write_is_made_by_the_next_one(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    write = OpenTrial.write

    def dies(self, **changes):
        if changes.get("state") == "paused":
            raise KeyboardInterrupt
        return write(self, **changes)

    search = tiny_search(pruner=StopsAfter(), checkpoints=tmp_path / "waiting")
    with monkeypatch.context() as patch:
        patch.setattr(OpenTrial, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            run(study, search, 1)
    (trial,) = run(study, search, 1)
    assert (trial.state, trial.epochs, trial.reason) == ("paused", 2, "enough")
    assert Path(tmp_path / "waiting" / "0.pt").exists()
