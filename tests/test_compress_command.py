"""``python -m search.compress``: the space of a member of a front, its parent, and fronts beside each other."""

from types import SimpleNamespace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from tiny_task import TREE, FirstToken, run_trials, tiny_search, tiny_study
from torch import nn

from search.budget.deadline import Deadline
from search.compress.__main__ import main
from search.compress.member import REPLACEMENTS, space_of
from search.compress.options import Options
from search.compress.parent import taught_parent
from search.compress.prepare import prepared_parent
from search.report.beside import Member, on_front, summary
from search.training.device import Device
from search.training.loss import TrainingLoss
from search.training.settings import TrainSettings
from spaces.attention import Shape
from spaces.attention.longformer import LongformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.build import build, invalid_corners
from spaces.dimensions import ConfigError
from spaces.fingerprint import fingerprint
from spaces.models.block import Block, FeedForward, NoAttention
from spaces.models.inheritance import inherit_attention
from spaces.space import Space
from spaces.tasks import IGNORE_INDEX, Batch
from spaces.tasks.recall import Recall

SOFTMAX = {"_target_": "spaces.attention.softmax.SoftmaxAttention"}
LINFORMER = {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": 2}
TRAIN = {"epochs": 9, "lr": 0.01, "mixup": 0.1, "batch_size": 16}


def member(pattern=("softmax", "linformer"), **model):
    """The architecture of a trained network."""
    known = {"softmax": SOFTMAX, "grouped": {**SOFTMAX, "kv_heads": 1}, "linformer": LINFORMER}
    known["none"] = REPLACEMENTS["none"]
    sizes = {"_target_": "spaces.models.encoder.Encoder", "depth": len(pattern), "width": 8, "heads": 2}
    attention = {name: known[name] for name in dict.fromkeys(pattern)}
    return {"model": {**sizes, **model}, "pattern": list(pattern), "attention": attention, "train": TRAIN}


CASES = {
    "encoder": (member(), FirstToken()),
    "gated": (member(activation="swiglu", positions="sinusoidal"), FirstToken()),
    "grouped": (member(("grouped",)), FirstToken()),
    "by block": (member(feed_forward={"0": 1.0, "1": 3}), FirstToken()),
    "compressed": (member(("none", "softmax"), feed_forward={"0": 1.0, "1": 0}, quantization="int8"), FirstToken()),
    "per token": (member(), Recall(length=16, pairs=1, repeats=2, keys=2, train=8, validation=4, test=4)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_largest_network_of_the_space_is_the_member_to_the_last_bit(case):
    architecture, task = CASES[case]
    space = Space(space_of(architecture, task))
    assert invalid_corners(space, task) == []
    trained = build({**architecture, "model": {**architecture["model"], "quantization": "none"}}, task, seed=7).eval()
    parent = taught_parent(trained, Options(space).parent, task, seed=0)
    batch = task.sample(4)
    assert torch.equal(parent(batch), trained(batch))
    assert space.train["epochs"] < 9
    assert "mixup" not in space.train


def test_a_block_has_the_options_that_it_has_something_to_imitate_for():
    options = Options(Space(space_of(CASES["compressed"][0], FirstToken())))
    assert options.of_block("attention", 0) == ["none"]
    assert options.of_block("attention", 1) == ["softmax", "none", "half_softmax", "linear", "longformer"]
    assert options.of_block("feed_forward", 0) == [1.0, 0.0, 0.25, 0.5]
    assert options.of_block("feed_forward", 1) == [0]


@pytest.mark.parametrize("case", CASES)
def test_every_replacement_of_a_member_starts_from_its_weights(case, tmp_path):
    architecture, task = CASES[case]
    tree = space_of(architecture, task)
    space = Space({**tree, "compression": {**tree["compression"], "steps": 1, "tokens": 64}})
    library = prepared_parent(
        space,
        task,
        seed=0,
        fingerprint="data",
        folder=tmp_path,
        device=Device(),
        deadline=Deadline(),
        teacher=build(architecture, task, seed=7),
    )
    options = Options(space)
    assert library.is_complete
    assert library.damage_of(options.parent) == 0
    assert library.logits.shape == (task.data("train").size, *task.spec.answer_shape)
    for replacement in options.replacements():
        entry, whole = library.entry(replacement), options.replaced([replacement])
        assert entry.damage == pytest.approx(library.damage_of(whole), abs=1e-5), replacement.name


def test_another_network_is_no_parent():
    space = Space(space_of(member(), FirstToken()))
    with pytest.raises(ConfigError, match="the largest network of the space is not the teacher: Missing key"):
        taught_parent(build(member(("softmax",)), FirstToken()), Options(space).parent, FirstToken(), seed=0)


def test_a_grouped_head_is_repeated_for_the_heads_that_share_it():
    grouped = SoftmaxAttention(Shape(12, 4, 6), kv_heads=2)
    windowed, whole = LongformerAttention(Shape(12, 4, 6), window=5), SoftmaxAttention(Shape(12, 4, 6), kv_heads=2)
    for other in (windowed, whole):
        blocks = [Block(each, None, norm=nn.Identity) for each in (other, grouped)]
        inherit_attention(*blocks)
        x = torch.randn(2, 6, 12)
        torch.testing.assert_close(other(x), grouped(x))


def test_a_mechanism_of_the_same_kind_is_copied_as_a_whole():
    ours, theirs = (LongformerAttention(Shape(8, 2, 6), window=1, global_tokens=1) for _ in range(2))
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)  # those of global tokens begin as copies of the others
    inherit_attention(*(Block(each, None, norm=nn.Identity) for each in (ours, theirs)))
    x = torch.randn(2, 6, 8)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_without_both_sub_blocks_does_nothing_and_has_no_weights(norm_first):
    block = Block(NoAttention(Shape(4, 2, 5, causal=True)), None, norm=lambda: nn.LayerNorm(4), norm_first=norm_first)
    x = torch.randn(2, 5, 4)
    assert torch.equal(block(x, None), x)
    assert not list(block.parameters())
    step, cache = block.decode_step(x[:, 0], block.mechanism.init_cache(2))
    assert torch.equal(step, x[:, 0])
    assert cache.position == 1


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_equals_its_formula(norm_first):
    mechanism, feed_forward = SoftmaxAttention(Shape(4, 2, 5)), FeedForward(4, 6, "gelu")
    block = Block(mechanism, feed_forward, norm=lambda: nn.LayerNorm(4), norm_first=norm_first)
    first, second = block.mechanism_norm, block.feed_forward_norm
    for norm in (first, second):
        nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 4)
    if norm_first:
        y = x + mechanism(first(x))
        expected = y + feed_forward(second(y))
    else:
        y = first(x + mechanism(x))
        expected = second(y + feed_forward(y))
    torch.testing.assert_close(block(x, None), expected)


def test_where_tokens_have_labels_those_without_do_not_count_in_distillation():
    task = Recall(length=16, pairs=1, repeats=2, keys=2, train=8, validation=4, test=4)
    teacher = torch.randn(8, *task.spec.answer_shape)
    loss = TrainingLoss(task, TrainSettings(epochs=1, lr=0.1, distillation=1.0), teacher)
    batch = next(task.batches("train", 4, shuffle=1))
    logits = teacher[batch.indices]
    wrong = torch.where((batch.labels == IGNORE_INDEX)[..., None], torch.randn_like(logits), logits)
    assert loss(wrong, batch) == pytest.approx(0, abs=1e-6)
    assert loss(wrong + torch.eye(*logits.shape[-2:]), batch) > 1e-3
    shorter = Batch(batch.inputs[:, :9], None, batch.labels[:, :9], indices=batch.indices)
    assert loss(logits[:, :9], shorter) == pytest.approx(0, abs=1e-6)


def test_the_front_of_all_has_the_members_that_no_other_one_dominates():
    objectives = SimpleNamespace(loss=lambda metric: -metric)
    members = [
        Member(study, SimpleNamespace(metric=metric), "", (ms,))
        for study, metric, ms in [("a", 0.9, 2.0), ("a", 0.8, 1.0), ("b", 0.9, 1.5), ("b", 0.7, 1.2), ("b", 0.8, 1.0)]
    ]
    assert on_front(members, objectives) == [False, True, True, False, True]
    assert summary(members, ["a", "b"], objectives) == ["The front of all (•) has 3 points: 1 of a, 2 of b."]


@pytest.mark.slow
def test_a_finished_front_is_compressed_and_shown_beside_the_old_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    url, latency = f"sqlite:///{tmp_path / 'studies.db'}", {"_target_": "search.costs.latency.FlopsLatency"}
    task = {"_target_": "tiny_task.FirstToken"}
    identity = {"space": TREE, "task": task, "costs": ["latency_ms"], "seed": 0, "latency": latency}
    study = tiny_study(url, identity=identity)
    study.set_user_attr("ceilings", [1.0])
    store = run_trials(study, tiny_search(checkpoints=tmp_path), 3)
    assert len(store) == 3
    study.set_user_attr("data", {"fingerprint": fingerprint(FirstToken()), "examples": {}})
    GlobalHydra.instance().clear()
    quick = ["n_trials=3", "tracking=none", "sampler=random", "baselines=false"]
    assert main(["tiny", "--storage", url, *quick]) == 0
    printed = capsys.readouterr().out
    assert "Compressing trial" in printed
    assert "The fronts, with latencies measured side by side" in printed
    assert "The front of all (•) has" in printed
    name = next(word for word in printed.split() if word.endswith("-compressed."))[:-1]
    assert main([name, "--library", "--storage", url]) == 0
    assert "Damage of single replacements" in capsys.readouterr().out
    assert main(["tiny", "--pick", "99", "--storage", url]) == 2
    assert main([name, "--library", "n_trials=3", "--storage", url]) == 2
