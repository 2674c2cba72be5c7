"""Teachers: trials of stored studies, whose predictions networks learn from."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_task import OBJECTIVES, TREE, FirstToken, run_trials, tiny_search, tiny_study

from search.compress.prepare import validate_compression
from search.compress.teacher import stored_teacher
from search.study.records import front
from search.study.storage import load_study, open_read_only
from search.study.store import TrialStore
from search.training.evaluation import evaluate_split
from search.training.fit import LightningFit
from search.training.settings import TrainSettings
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.fingerprint import fingerprint
from spaces.space import Space

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    url = f"sqlite:///{folder / 'studies.db'}"
    identity = {"space": TREE, "task": {"_target_": "tiny_task.FirstToken"}, "costs": ["latency_ms"], "seed": 0}
    study = tiny_study(url, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    run_trials(study, tiny_search(checkpoints=folder), 3)
    TrialStore(study).data(lambda: {"fingerprint": fingerprint(FirstToken()), "examples": {}})
    return url


def test_a_teacher_is_a_trial_of_the_front_by_default_the_best_one(url):
    task = FirstToken()
    with open_read_only(url) as storage:
        members = front(TrialStore(load_study(storage, "tiny")).records(), OBJECTIVES)
    number = max(members, key=lambda member: member.metric).number
    best, same = (stored_teacher(url, name, task) for name in ("tiny", f"tiny:{number}"))
    assert torch.equal(best.logits, same.logits)
    assert evaluate_split(best.network, task, "validation")["accuracy"] == max(member.metric for member in members)
    assert best.logits.shape == (task.data("train").size, task.spec.classes)
    batch = next(task.batches("train", 5))
    torch.testing.assert_close(best.network(batch), best.logits[:5])


def test_the_predictions_of_an_ensemble_are_the_mean_of_its_members(url):
    task = FirstToken()
    with open_read_only(url) as storage:
        members = front(TrialStore(load_study(storage, "tiny")).records(), OBJECTIVES)
    numbers = [member.number for member in members]
    assert len(numbers) > 1
    together = stored_teacher(url, "tiny:" + "+".join(map(str, numbers)), task)
    shares = [stored_teacher(url, f"tiny:{number}", task).logits.softmax(-1) for number in numbers]
    torch.testing.assert_close(together.logits.softmax(-1), torch.stack(shares).mean(0))
    torch.testing.assert_close(together.logits.exp().sum(-1), torch.ones(len(shares[0])))
    assert torch.equal(stored_teacher(url, f"tiny:{numbers[0]}+{numbers[0]}", task).logits.softmax(-1), shares[0])


def test_a_compression_has_one_parent():
    tree = {**TREE, "compression": {}, "train": {**TREE["train"], "distillation": 0.5}}
    with pytest.raises(ConfigError, match=r"teacher='mine:1\+2': with the section compression it must be one trial"):
        validate_compression(Space(tree), "mine:1+2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tiny:1+99", "teacher='tiny:1\\+99': '(1|99)' is no member of its front"),
        ("other", "teacher='other': .*no study"),
        ("tiny:99", "teacher='tiny:99': '99' is no member of its front, whose trials are "),
        ("tiny:best", "teacher='tiny:best': 'best' is no member of its front"),
    ],
)
def test_what_is_no_teacher_is_refused(url, given, message):
    with pytest.raises(ConfigError, match=message):
        stored_teacher(url, given, FirstToken())


def test_a_teacher_with_other_tokens_is_refused_where_each_token_has_a_label(url, monkeypatch):
    task = FirstToken()
    task.spec = replace(task.spec, per_token=True)
    with open_read_only(url) as storage:
        record = front(TrialStore(load_study(storage, "tiny")).records(), OBJECTIVES)[0]
    subwords = replace(record, architecture={**record.architecture, "input": {"tokens": "byte_bpe"}})
    monkeypatch.setattr("search.compress.teacher._chosen", lambda *_: subwords)
    with pytest.raises(ConfigError, match="teacher='tiny': it has tokens of its own"):
        stored_teacher(url, "tiny", task)


def test_a_teacher_of_other_data_is_refused(url):
    class Other(FirstToken):
        def examples(self, split):
            return super().examples("validation" if split == "train" else split)

    with pytest.raises(ConfigError, match="teacher='tiny': study 'tiny' has other data"):
        stored_teacher(url, "tiny", Other())


def test_with_distillation_alone_a_network_learns_the_predictions_of_its_teacher(url):
    task, architecture = FirstToken(), next(Space(TREE).largest())
    logits = -4 * torch.nn.functional.one_hot(task.data("train").labels, task.spec.classes).float()
    found = {}
    for share in (0.0, 1.0):  # the teacher is wrong everywhere
        settings = TrainSettings(**{**architecture["train"], "distillation": share, "epochs": 6})
        with LightningFit(build(architecture, task), task, settings, seed=0, teacher=logits) as training:
            *_, (_, found[share]) = training
    assert found[1.0] < 0.2 < found[0.0]


@pytest.mark.parametrize(
    ("distillation", "teacher", "message"),
    [
        (0.5, None, "train.distillation=0.5: there is no teacher; give teacher=STUDY, or 0"),
        (0.0, "mine", "teacher='mine': it has no effect without train.distillation above 0"),
    ],
)
def test_a_teacher_and_distillation_need_each_other(distillation, teacher, message):
    space = partial(Space, {**TREE, "train": {**TREE["train"], "distillation": distillation}})
    with pytest.raises(ConfigError, match=message):
        validate_compression(space(), teacher)
    validate_compression(space(), None if teacher else "mine")
