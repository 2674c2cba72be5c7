"""Checkpoints in a bucket or on another host, by fsspec URLs."""

import logging
from dataclasses import replace

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer
from test_worker import PausesOnce
from tiny_task import run_trials, tiny_search, tiny_study

from search.training.checkpoint import Checkpoint
from search.training.remote import LOCAL, RemoteFile, folders
from spaces.dimensions import ConfigError

# Tests use ask and tell, without the heartbeats of Study.optimize.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")


@pytest.fixture(scope="module")
def s3():
    """The URL of a bucket of a local server."""
    settings = {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {**settings, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket/folder"
        server.stop()


@pytest.fixture(params=[pytest.param("s3", marks=pytest.mark.slow), "memory"])
def url(request):
    if request.param == "s3":
        pytest.importorskip("s3fs")
        return request.getfixturevalue("s3")
    return "memory://folder"


def checkpoint(url, depth=1):
    return Checkpoint(RemoteFile(f"{url}/7.pt"), {"model": {"depth": depth}})


def test_a_remote_checkpoint_is_written_read_and_deleted(url):
    assert checkpoint(url).epochs() == 0
    for epoch in (2, 3):
        checkpoint(url).write({"epoch": epoch, "network": {"weight": torch.ones(2)}})
        assert checkpoint(url).epochs() == epoch
    assert checkpoint(url, depth=2).epochs() == 0, "that of another architecture"
    assert torch.load(checkpoint(url).content(), weights_only=True)["network"]["weight"].tolist() == [1, 1]
    checkpoint(url).discard()
    checkpoint(url).discard()
    assert checkpoint(url).epochs() == 0


@pytest.mark.slow
def test_a_trial_is_resumed_by_a_worker_with_another_folder(url, tmp_path):
    """The same curve as without the pause, and nothing is left in the bucket."""
    expected, study = (tiny_study(f"sqlite:///{tmp_path / name}.db") for name in ("whole", "paused"))
    run_trials(expected, tiny_search(), 2)
    for folder, pruner in (("here", PausesOnce()), ("there", None)):
        search = tiny_search(pruner=pruner, checkpoints=tmp_path / folder)
        search = replace(search, learner=replace(search.learner, checkpoints=f"{url}/study"))
        if pruner is None:
            search = replace(search, pruner=PausesOnce(), proposer=tiny_search(pruner=PausesOnce()).proposer)
        else:
            pruner.resumes = lambda history, last: None
        trials = run_trials(study, search, 2)
    curves = [[trial.curve for trial in run_trials(each, search, 2)] for each in (expected, study)]
    assert curves[0] == curves[1]
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert not fsspec.core.url_to_fs(url)[0].glob(f"{url}/**/*.pt")


def test_a_bucket_that_cannot_be_reached_is_a_missing_checkpoint(url, monkeypatch, caplog):
    def lost(*_, **__):
        raise ConnectionError("no route to host")

    system = fsspec.core.url_to_fs(url)[0]
    for name in ("pipe_file", "cat_file", "exists"):
        monkeypatch.setattr(system, name, lost)
    checkpoint(url).write({"epoch": 2})
    assert checkpoint(url).epochs() == 0
    checkpoint(url).discard()
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 3
    assert all(message.endswith("no route to host") for message in messages)


def test_the_folder_of_a_setting():
    assert folders("a/b") == (folders("a/b")[0], None)
    assert tuple(map(str, folders("memory://a/"))) == (LOCAL, "memory://a")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nope://a", "checkpoints=nope://a: unknown protocol 'nope'; write the path of a folder"),
        ("gs://bucket", "checkpoints=gs://bucket: .*gcsfs"),
        ("sftp://me:hunter2@127.0.0.1:1/a", r"checkpoints=sftp://me:\*\*\*@127.0.0.1:1/a: "),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(place, message):
    with pytest.raises(ConfigError, match=message) as error:
        folders(place)
    assert "hunter2" not in str(error.value)


@pytest.mark.slow
def test_a_trial_without_its_checkpoint_says_that_it_begins_again(tmp_path, caplog):
    study, pruner = tiny_study(f"sqlite:///{tmp_path / 'a.db'}"), PausesOnce()
    pruner.resumes = lambda history, last: None
    run_trials(study, tiny_search(pruner=pruner, checkpoints=tmp_path / "here"), 1)
    run_trials(study, tiny_search(pruner=PausesOnce(), checkpoints=tmp_path / "there"), 1)
    assert "Trial 0 is trained from the beginning: it has no checkpoint here." in caplog.messages
