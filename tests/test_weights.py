"""Weights of complete trials: what is written, that it is read back, which files are kept."""

import os
import stat
from pathlib import Path

import pytest
import torch
from tiny_task import OBJECTIVES, SOFTMAX, TREE, FirstToken, run_trials, tiny_search, tiny_study

from search.study.records import Record, State, Timing, front
from search.study.store import TrialStore
from search.training.evaluation import evaluate_split
from search.training.weights import WeightsFolder, read_weights, write_weights
from spaces.build import build
from spaces.dimensions import ConfigError

ARCHITECTURE = {"model": {"width": 4}}
RECIPES = [{}, {"ema": 0.9}, {"keep_best": True, "lr": 0.5, "epochs": 6}]


def complete(number, metric, latency_ms, state=State.COMPLETE):
    costs = {"latency_ms": latency_ms}
    return Record(number, state, costs, metric=metric, timings=[Timing(latency_ms, 0.0, "here", 0.0)])


@pytest.fixture
def study(tmp_path_factory):
    return tiny_study(f"sqlite:///{tmp_path_factory.mktemp('study') / 'studies.db'}")


@pytest.fixture
def weights(tmp_path):
    return WeightsFolder(tmp_path / "weights")


def fill(weights, records, size=1000):
    for record in records:
        weights.write(record.number, {"w": torch.zeros(size // 4)}, ARCHITECTURE)


def kept(weights):
    return {int(path.stem) for path in weights.folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_weights_of_a_trial_give_its_metrics(study, tmp_path, recipe):
    tree = {**TREE, "train": {**TREE["train"], **recipe}}
    for trial in run_trials(study, tiny_search(tree, checkpoints=tmp_path), 2):
        network = build(dict(trial.architecture), FirstToken())
        network.load_state_dict(read_weights(tmp_path / "weights" / f"{trial.number}.safetensors", trial.architecture))
        assert evaluate_split(network, FirstToken(), "validation")["accuracy"] == pytest.approx(trial.metric)
        assert evaluate_split(network, FirstToken(), "test") == pytest.approx(trial.test_metrics)
        assert trial.weights == str(tmp_path / "weights" / f"{trial.number}.safetensors")


class CountingTask(FirstToken):
    """Counts the training steps."""

    steps_done = 0

    def loss(self, logits, batch):
        self.steps_done += 1
        return super().loss(logits, batch)


def quantizations(*choice, **recipe):
    """A space of an architecture in several quantizations."""
    model = {**SOFTMAX["model"], "quantization": {"choice": list(choice)}}
    train = {"epochs": 2, "batch_size": 16, "lr": 0.01, **recipe}
    return {"model": model, "attention": SOFTMAX["attention"], "train": train}


def quantized_trials(folder, choice, **recipe):
    """Trials in the order of the quantizations, and the training steps of all."""
    study, task = tiny_study(f"sqlite:///{folder / 'studies.db'}"), CountingTask()
    TrialStore(study).enqueue_first({"model.quantization": each} for each in choice)
    search = tiny_search(quantizations(*choice, **recipe), task=task, checkpoints=folder)
    return run_trials(study, search, len(choice)), task.steps_done


@pytest.mark.slow
@pytest.mark.parametrize("order", [["int8", "none"], ["none", "bf16"]])
def test_a_trial_that_differs_in_the_quantization_alone_is_not_trained(tmp_path, order):
    folders = [tmp_path / name for name in ("both", "alone", "best")]
    for folder in folders:
        folder.mkdir()
    (_, reused), steps = quantized_trials(folders[0], order)
    (alone,), steps_alone = quantized_trials(folders[1], order[1:])
    assert steps == steps_alone
    for name in ("state", "metric", "validation_metrics", "test_metrics"):
        assert getattr(reused, name) == getattr(alone, name)
    assert reused.curve == list(alone.curve)[-1:]
    assert reused.cpu_seconds[-1] > 0
    weights = [read_weights(Path(each.weights), each.architecture) for each in (reused, alone)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    _, steps = quantized_trials(folders[2], order, keep_best=True)
    assert steps == 2 * steps_alone, "which epoch is best depends on the quantization"


def test_a_search_that_keeps_no_weights_writes_none(study, tmp_path):
    search = tiny_search(checkpoints=tmp_path)
    object.__setattr__(search.learner, "keeps_weights", False)
    (trial,) = run_trials(study, search, 1)
    assert (trial.state, trial.weights, list(tmp_path.iterdir())) == (State.COMPLETE, "", [])


def test_weights_that_cannot_be_written_do_not_fail_their_trial(study, tmp_path, caplog):
    (tmp_path / "weights").write_text("a file where the folder should be")
    (trial,) = run_trials(study, tiny_search(checkpoints=tmp_path), 1)
    assert (trial.state, trial.weights) == (State.COMPLETE, "")
    assert "the weights of trial 0 cannot be written" in caplog.text


def test_a_file_has_the_permissions_of_any_new_file_and_leaves_no_other(weights):
    before = os.umask(0o027)
    try:
        path = weights.write(3, {"w": torch.ones(2)}, ARCHITECTURE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o640
    assert kept(weights) == {3}


def test_tied_transposed_and_scalar_tensors_are_read_back(tmp_path):
    table = torch.arange(6.0).view(2, 3)
    given = {"a": table, "b": table, "c": table.T, "d": torch.tensor(3.0), "e": torch.ones(1).expand(4)}
    write_weights(tmp_path / "w.safetensors", given, ARCHITECTURE)
    read = read_weights(tmp_path / "w.safetensors", ARCHITECTURE)
    assert all(torch.equal(read[name], given[name]) for name in given)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"", "no readable weights"), (b"PK\x03\x04pickle", "readable")]
)
def test_what_is_no_weights_file_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_weights(tmp_path / "w.safetensors", ARCHITECTURE)


def test_weights_of_another_architecture_are_refused(weights):
    weights.write(0, {"w": torch.ones(2)}, ARCHITECTURE)
    with pytest.raises(ConfigError, match="of another architecture"):
        read_weights(weights.path(0), {"model": {"width": 8}})


def test_files_off_the_front_are_removed_but_not_those_near_it_or_of_running_trials(weights):
    records = [
        complete(0, 0.6, 0.2),
        complete(1, 0.9, 0.5),
        complete(2, 0.9, 0.6),  # near: on the front if it were 1.5 times faster
        complete(3, 0.6, 0.6),
        complete(4, None, 0.1, State.RUNNING),
    ]
    fill(weights, [*records, complete(99, 0.1, 0.1)])
    assert weights.trim(records, OBJECTIVES, megabytes=None) == []
    assert {member.number for member in front(records, OBJECTIVES)} == {0, 1}
    assert kept(weights) == {0, 1, 2, 4, 99}  # 99 may have begun after the records were read


@pytest.mark.parametrize(
    ("files", "expected", "dropped"), [(0, set(), [2, 1, 0]), (1, {2}, [1, 0]), (3, {0, 1, 2}, [])]
)
def test_of_a_front_that_is_too_large_the_best_are_kept_before_those_near_it(weights, files, expected, dropped):
    records = [complete(0, 0.6, 0.2), complete(1, 0.7, 0.4), complete(2, 0.9, 0.5), complete(3, 0.9, 0.55)]
    fill(weights, records)
    size = weights.path(0).stat().st_size
    assert weights.trim(records, OBJECTIVES, megabytes=(files + 0.5) * size / 1e6) == dropped
    assert kept(weights) == expected
