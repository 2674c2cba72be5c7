"""Post-training search: options, blockwise distillation, damages, and the predicted front against brute force."""

import itertools
import json
import random
import shutil
from functools import partial

import optuna
import pytest
import torch
from checkpoints import HEADS, LAYERS, WIDTH, WORDS, write_checkpoint
from safetensors.torch import load_file, save_file
from text_tables import write_table
from torch import nn

from search.budget.deadline import Deadline
from search.compress.accuracy import random_mix
from search.compress.blockwise import active_neurons, distill, divergence, relative_error
from search.compress.library import Library
from search.compress.options import Options, Replacement
from search.compress.parent import trained_parent
from search.compress.prediction import (
    Choice,
    Predicted,
    Setting,
    Sum,
    best_sums,
    measure_settings,
    non_dominated,
    predict,
    predict_front,
    spread,
)
from search.compress.prepare import prepared_parent, validate_compression
from search.compress.prior import library_prior
from search.confirm.training import Setting as Confirmation
from search.confirm.training import train
from search.study.confirmations import Repetition
from search.study.records import Record, State
from search.training.device import Device
from search.training.evaluation import evaluate_split
from search.training.learner import LightningLearner, LightningTraining
from search.training.loss import distillation_loss
from spaces.architecture import describe
from spaces.attention import Shape
from spaces.attention.linear import LinearAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.build import build, task_of
from spaces.dimensions import ConfigError
from spaces.models.block import Block, FeedForward, NoAttention
from spaces.models.inheritance import inherit, inherit_attention
from spaces.space import Space
from spaces.tasks import Batch
from spaces.tasks.table import Table

LENGTH = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "bert")


@pytest.fixture(scope="module")
def task(checkpoint, tmp_path_factory):
    words = ["a", "good", "bad", "book", "books"]
    draw = random.Random(0)
    rows = [(" ".join(draw.choices(words, k=draw.randint(1, 8))) + f" {at}", at % 2) for at in range(120)]
    path = write_table(tmp_path_factory.mktemp("table") / "a.csv", rows)
    settings = {"tokens": str(checkpoint / "tokenizer.json"), "special_tokens": True, "length": LENGTH}
    return Table(file=str(path), text="review", label="stars").variant(settings)


def tree(checkpoint, **changes):
    return {
        "attention": {
            "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
            "half": {"_target_": "spaces.attention.softmax.SoftmaxAttention", "kept_heads": 0.5},
            "linear": {
                "_target_": "spaces.attention.linear.LinearAttention",
                "feature_map": {"choice": ["relu"]},
            },
            "none": {"_target_": "spaces.models.block.NoAttention"},
        },
        "pattern": {"each": {"choice": ["softmax", "half", "linear", "none"]}},
        "model": {
            "_target_": "spaces.models.pretrained.PretrainedEncoder",
            "checkpoint": str(checkpoint),
            "depth": LAYERS,
            "width": WIDTH,
            "heads": HEADS,
            "feed_forward": {"each": {"choice": [0, 0.5, 1.0]}},
            "quantization": {"choice": ["none", "int8"]},
        },
        "train": {"epochs": 1, "lr": 1e-3, "distillation": 0.5},
        "compression": {"parent": {"epochs": 1}, "steps": 8, "predicted": 5},
        **changes,
    }


@pytest.fixture(scope="module")
def space(checkpoint):
    return Space(tree(checkpoint))


def library_in(folder, space, task, *, steps=8):
    options = Options(space)
    parent = build(options.parent, task, seed=3)
    return Library(folder, options, task, parent, tokens=400, steps=steps, lr=1e-2, seed=0)


@pytest.fixture(scope="module")
def library(space, task, tmp_path_factory):
    made = library_in(tmp_path_factory.mktemp("library"), space, task)
    made.make()
    return made


def test_the_options_are_those_of_the_space_and_the_parent_has_none_of_the_replacements(space):
    options = Options(space)
    assert options.parent["pattern"] == ["softmax"] * LAYERS
    assert list(options.parent["model"]["feed_forward"].values()) == [1.0] * LAYERS
    assert "quantization" not in options.parent["model"]
    assert options.of_block("attention", 1) == ["softmax", "half", "linear", "none"]
    assert options.of_block("feed_forward", 1) == [1.0, 0, 0.5]
    assert len(list(options.replacements())) == LAYERS * (3 + 2)
    assert options.chosen(options.parent) == []


def test_parameters_give_the_architecture_with_these_replacements(space):
    options = Options(space)
    chosen = [
        Replacement(0, "attention", "linear"),
        Replacement(0, "feed_forward", 0),
        Replacement(2, "attention", "none"),
    ]
    assert options.global_parameters() == [{"model.quantization": "none"}, {"model.quantization": "int8"}]
    for given in options.global_parameters():
        architecture = options.architecture(options.parameters(chosen, given))
        assert options.chosen(architecture) == chosen
        assert architecture["model"]["quantization"] == given["model.quantization"]
        study = optuna.create_study()
        study.enqueue_trial(options.parameters(chosen, given))
        assert space.suggest(study.ask()) == architecture


def test_with_nothing_replaced_a_network_is_the_parent_to_the_last_bit(library, space, task):
    parent = build(Options(space).parent, task, seed=3).eval()
    network = build(Options(space).parent, task, seed=99).eval()
    library.load_into(network, Options(space).parent)
    batch = task.sample(4)
    assert torch.equal(network(batch), parent(batch))
    assert library.damage_of(Options(space).parent) == 0


def test_without_any_sub_block_only_embedding_and_head_are_left(space, task):
    options = Options(space)
    nothing = [Replacement(at, "attention", "none") for at in range(LAYERS)]
    nothing += [Replacement(at, "feed_forward", 0) for at in range(LAYERS)]
    parent = build(options.parent, task).eval()
    network = build(options.replaced(nothing), task).eval()
    inherit(network, parent)
    batch = task.sample(4)
    assert not list(network.blocks.parameters())
    torch.testing.assert_close(network(batch), parent.classify(*parent.embed(batch)))


def test_damages_are_those_of_the_whole_network_with_one_replacement(library, space):
    for replacement in Options(space).replacements():
        expected = library.damage_of(Options(space).replaced([replacement]))
        assert library.entry(replacement).damage == pytest.approx(expected, abs=1e-5), replacement.name
        assert library.entry(replacement).damage <= library.entry(replacement).untrained_damage


def test_blockwise_distillation_reduces_the_damage_of_some_replacements(library, space):
    entries = [library.entry(each) for each in Options(space).replacements() if each.option in ("linear", 0.5)]
    assert sum(entry.damage < 0.9 * entry.untrained_damage for entry in entries) >= 2


def test_blockwise_distillation_trains_the_feature_maps_to_imitate_softmax_attention():
    blocks = []
    for mechanism in (SoftmaxAttention, partial(LinearAttention, feature_map="hedgehog")):
        torch.manual_seed(0)
        blocks.append(Block(mechanism(Shape(8, 2, LENGTH)), None, norm=lambda: nn.LayerNorm(8)))
    source, block = blocks
    with torch.no_grad():  # attention to some tokens more than to others
        source.mechanism.query.weight.mul_(4.0)
    inherit_attention(block, source)
    assert torch.equal(block.mechanism.query.weight, source.mechanism.query.weight)
    identity, inputs = block.mechanism.maps.detach().clone(), [(torch.randn(16, LENGTH, 8), None)]

    def error():
        given = source.mechanism_input(inputs[0][0])
        return float(relative_error(block.mechanism(given), source.mechanism(given), None).detach())

    for parameter in block.parameters():
        parameter.requires_grad_(parameter is block.mechanism.maps)
    before = error()
    distill(block, source, "attention", inputs, steps=60, lr=3e-2)
    assert error() < 0.7 * before
    assert not torch.equal(block.mechanism.maps, identity)


def test_a_library_is_resumed_from_its_files(space, task, tmp_path, monkeypatch):
    first = library_in(tmp_path, space, task, steps=2)
    first.make()
    missing = Replacement(1, "attention", "linear")
    (tmp_path / missing.file).write_bytes(b"damaged")
    second, made = library_in(tmp_path, space, task, steps=2), []
    second.make(made.append)
    assert made == [f"training replacement 1 of 1 ({missing.name})"]
    for replacement in Options(space).replacements():
        one, other = first.entry(replacement), second.entry(replacement)
        assert one.damage == other.damage
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_replacements_for_which_no_time_is_left_are_not_stored(space, task, tmp_path):
    library = library_in(tmp_path, space, task)
    library.make(trains=lambda: False)
    assert not list(tmp_path.iterdir())
    entries = [library.entry(each) for each in Options(space).replacements()]
    assert all(entry.damage == entry.untrained_damage for entry in entries)


def test_a_library_that_runs_out_of_time_is_incomplete_and_its_networks_start_from_the_parent(space, task, tmp_path):
    library, times = library_in(tmp_path, space, task), iter([False, False, True])
    library.make(is_over=lambda: next(times))
    assert len(list(tmp_path.iterdir())) == 2
    assert not library.is_complete
    options = Options(space)
    parent, mixed = build(options.parent, task, seed=3), options.replaced([Replacement(2, "attention", "linear")])
    network = build(mixed, task)
    library.load_into(network, mixed)
    assert torch.equal(network.blocks[2].mechanism.query.weight, parent.blocks[2].mechanism.query.weight)


@pytest.mark.parametrize("after", [0, 30])
def test_a_parent_whose_time_is_over_is_used_as_far_as_it_was_trained_and_not_stored(space, task, tmp_path, after):
    calls = iter([*[False] * after, *[True] * 1000])
    architecture = {**Options(space).parent, "train": {"epochs": 20, "lr": 1e-3}}
    found = trained_parent(
        tmp_path / "parent.safetensors",
        architecture,
        task,
        seed=0,
        device=Device(),
        seconds=float("inf"),
        is_over=lambda: next(calls),
        report=lambda text: None,
    )
    untrained = build(architecture, task, seed=0)
    assert torch.equal(found.head.weight, untrained.head.weight) == (after == 0)
    assert not list(tmp_path.iterdir())


def random_choices(draw, sub_blocks):
    """With ties, and with options that are slower and worse."""
    return [
        [Choice(None, 0.0, 0.0)]
        + [
            Choice(Replacement(at, "attention", n), draw.choice((0.0, 0.1, draw.random())), -draw.random() + 0.1)
            for n in range(3)
        ]
        for at in range(sub_blocks)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_sums_are_those_of_brute_force(seed):
    choices = random_choices(random.Random(seed), 4)
    start = Sum(0.2, 5.0, ())
    every = [
        (start.damage + sum(each.damage for each in picked), start.latency_ms + sum(each.latency_ms for each in picked))
        for picked in itertools.product(*choices)
    ]
    front = {one for one in every if not any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in every)}
    found = {(each.damage, each.latency_ms) for each in best_sums(choices, start)}
    rounded = ({(round(d, 9), round(ms, 9)) for d, ms in values} for values in (found, front))
    assert next(rounded) == next(rounded)
    for each in best_sums(choices, start):
        picked = [next(c for c in choices[r.block] if c.replacement == r) for r in each.replacements]
        assert each.damage == pytest.approx(start.damage + sum(c.damage for c in picked))


def settings_of(options, whole_ms=(8.0, 3.0)):
    added = {
        ("attention", "half"): -0.2,
        ("attention", "linear"): -0.1,
        ("attention", "none"): -0.5,
        ("feed_forward", 0): -1.0,
        ("feed_forward", 0.5): -0.6,
    }
    return [
        Setting(given, at * 0.01, ms, added)
        for at, (given, ms) in enumerate(zip(options.global_parameters(), whole_ms, strict=True))
    ]


def test_the_predicted_front_contains_the_best_of_all_mixes(library, space):
    options = Options(space)
    settings = settings_of(options)
    front = predict_front(options, library, settings)
    assert [each.latency_ms for each in front] == sorted(each.latency_ms for each in front)
    draw, every = random.Random(0), list(options.replacements())
    for _ in range(200):
        setting = draw.choice(settings)
        mixed = {(each.block, each.part): each for each in draw.sample(every, draw.randint(0, len(every)))}
        other = predict(options, library, setting, list(mixed.values()))
        assert any(each.damage <= other.damage + 1e-9 and each.latency_ms <= other.latency_ms + 1e-9 for each in front)
    for each in front:
        architecture = options.architecture(each.parameters)
        setting = settings[architecture["model"]["quantization"] == "int8"]
        again = predict(options, library, setting, options.chosen(architecture))
        assert (again.damage, again.latency_ms) == pytest.approx((each.damage, each.latency_ms))


def test_the_prior_of_the_sampler_is_the_sum_of_the_library(library, space):
    options, draw = Options(space), random.Random(2)
    stored = json.loads(json.dumps([each.as_plain() for each in settings_of(options)]))
    settings = [Setting.of_plain(each) for each in stored]
    assert settings == settings_of(options)
    prior = library_prior(options, library, settings)
    for setting in settings:
        for replacements in [[], *(random_mix(options, draw) for _ in range(20))]:
            parameters = {**options.parameters(replacements, setting.parameters), "train.lr": 0.1}
            slow = predict(options, library, setting, options.chosen(options.architecture(parameters)))
            assert prior(parameters).damage == pytest.approx(slow.damage)
            assert prior(parameters).latency_ms == pytest.approx(max(slow.latency_ms, 0.05 * setting.latency_ms))


def test_equal_sums_are_kept_once():
    assert non_dominated([Sum(1.0, 2.0, ()), Sum(1.0, 2.0, ()), Sum(0.5, 2.0, ()), Sum(0.5, 3.0, ())]) == [
        Sum(0.5, 2.0, ())
    ]


def test_the_members_that_open_a_study_are_spread_over_latency_and_damage():
    def members(*points):
        return [Predicted({}, damage, ms) for ms, damage in points]

    front = members((1.0, 9.0), (1.1, 8.9), (4.0, 8.0), (4.1, 7.9), (10.0, 3.0), (15.0, 0.1), (16.0, 0.0))
    assert [each.latency_ms for each in spread(front, 4)] == [16.0, 1.0, 4.1, 10.0]
    equal = members((1.0, 5.0), (2.0, 5.0), (4.0, 5.0))
    assert [each.latency_ms for each in spread(equal, 3)] == [4.0, 1.0, 2.0]
    assert len(spread(front, 99)) == len(front)
    assert spread(front, 0) == spread([], 3) == []


def test_losses_are_zero_at_equality_and_grow_with_the_difference():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for temperature in (1.0, 4.0):
        assert distillation_loss(logits, logits, temperature=temperature) == pytest.approx(0, abs=1e-6)
        assert distillation_loss(logits + torch.eye(5, 3), logits, temperature=temperature) > 1e-3
    assert divergence(logits + 7, logits) == pytest.approx(0, abs=1e-6), "only the probabilities count"
    p, q = logits.softmax(-1), logits.flip(0).softmax(-1)
    assert divergence(logits.flip(0), logits) == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-5)


def test_no_gradient_flows_to_the_teacher():
    student, teacher = (torch.randn(4, 2, requires_grad=True) for _ in range(2))
    distillation_loss(student, teacher, temperature=2.0).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_the_relative_error_ignores_padding():
    output, expected = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    padding = torch.arange(4) >= torch.tensor([4, 2])[:, None]
    wrong = output.masked_fill(padding[..., None], 1e6)
    assert relative_error(wrong, expected, padding) == relative_error(output, expected, padding)
    assert relative_error(expected, expected, padding) == 0
    assert relative_error(torch.zeros_like(expected), expected, None) == pytest.approx(1)


def test_the_most_active_neurons_are_kept():
    source = Block(NoAttention(Shape(1, 1, 2)), FeedForward(1, 3, "relu"), norm=nn.Identity)
    with torch.no_grad():
        source.feed_forward.up_proj.weight.copy_(torch.tensor([[1.0], [-1.0], [2.0]]))
        source.feed_forward.up_proj.bias.zero_()
        source.feed_forward.down_proj.weight.copy_(torch.tensor([[1.0, 9.0, 0.6]]))
    x = torch.tensor([[[1.0], [-50.0]]])
    padding = torch.tensor([[False, True]])
    assert active_neurons(source, [(x, padding)], 1).tolist() == [2]
    assert active_neurons(source, [(x, padding)], 2).tolist() == [0, 2], "neuron 1 is active at padding only"
    assert active_neurons(source, [(x, None)], 1).tolist() == [1]


@pytest.mark.slow
def test_a_parent_is_trained_once_and_other_data_or_settings_have_another(space, task, checkpoint, tmp_path):
    def prepare(space):
        reports = []
        parent = prepared_parent(
            space,
            task,
            seed=0,
            fingerprint="data",
            folder=tmp_path,
            device=Device(),
            deadline=Deadline(),
            report=reports.append,
        )
        return parent, reports

    first, reports = prepare(space)
    assert any("training the whole network, 1 of 1 epoch: accuracy" in each for each in reports)
    second, reports = prepare(space)
    assert reports == []
    assert torch.equal(first.logits, second.logits)
    assert first.logits.shape == (task.data("train").size, 2)
    fewer = Space({**tree(checkpoint), "compression": {"parent": {"epochs": 1}, "steps": 8, "predicted": 0}})
    assert prepare(fewer)[1] == [], "how many networks open a study changes nothing"
    copied, weights = shutil.copytree(checkpoint, tmp_path / "changed"), load_file(checkpoint / "model.safetensors")
    for number in (0, 1):  # the second time with other weights in the same folder
        save_file({**weights, "more": torch.tensor(number)}, copied / "model.safetensors")
        assert prepare(Space({**tree(copied), "compression": space.compression}))[1]
    other = Space({**tree(checkpoint), "compression": {"parent": {"epochs": 1}, "steps": 1}})
    assert prepare(other)[1]
    assert len(list(tmp_path.glob("library-*"))) == 2 + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"compression": {"step": 3}},
            "compression: CompressionSettings does not take 'step'; it takes parent, pattern",
        ),
        ({"compression": None}, "train.distillation=0.5: there is no teacher; give teacher=STUDY, or 0"),
        (
            {"model": {"checkpoint": None}},
            "compression: there is no parent; give model.checkpoint, or teacher=STUDY:",
        ),
        ({"compression": {"lr": 0}}, "compression: lr=0: it must be above 0 and at most 1"),
        (
            {"compression": {"parent": {"epoch": 3}}},
            "compression.parent: TrainSettings does not take 'epoch'; it takes",
        ),
        ({"pattern": {"choice": [["softmax"], ["none"]]}}, "pattern: with compression it must be fixed or have a"),
        ({"model": {"feed_forward": {"float": [0.1, 1.0]}}}, "model.feed_forward: with compression it must be fixed"),
        (
            {"model": {"depth": {"int": [1, 2]}, "feed_forward": 1.0}, "pattern": ["softmax"]},
            "model.depth must be a number",
        ),
        (
            {"model": {"dropout": {"float": [0.1, 0.2]}}},
            "model.dropout: with compression it must be a choice or have a step",
        ),
        (
            {"attention": {"linear": {"_target_": "x.Y", "rank": {"choice": [1, 2]}}}},
            "attention.linear.rank: with compression the settings of mechanisms are fixed",
        ),
    ],
)
def test_what_a_compression_cannot_have_is_refused(change, message, checkpoint):
    given = tree(checkpoint)
    changed = {
        name: {**given[name], **value} if name in ("model", "attention") else value for name, value in change.items()
    }
    with pytest.raises(ConfigError, match=message):
        validate_compression(Space({**given, **changed}), None)


@pytest.fixture(scope="module")
def trimmed(checkpoint, task):
    """A space that trims the vocabulary, and a task that has not read its texts as tokens yet."""
    settings = {"tokens": str(checkpoint / "tokenizer.json"), "special_tokens": True, "length": LENGTH}
    space = Space(tree(checkpoint, input={**settings, "vocabulary": {"choice": [0.7, 1.0]}}))
    return space, task


def test_a_trimmed_network_equals_the_whole_one_on_texts_of_kept_tokens_to_the_last_bit(trimmed, tmp_path):
    space, task = trimmed
    library = library_in(tmp_path, space, task, steps=0)
    options = Options(space)
    assert library.network.kept_ids is None
    small, whole = (
        options.architecture(options.parameters([], {"input.vocabulary": share, "model.quantization": "none"}))
        for share in (0.7, 1.0)
    )
    tasks = [task_of(each, task) for each in (small, whole)]
    networks = [build(each, task, seed=9).eval() for each in (small, whole)]
    for network, architecture in zip(networks, (small, whole), strict=True):
        library.load_into(network, architecture)
    kept = networks[0].kept_ids
    assert len(kept) == tasks[0].spec.vocabulary < tasks[1].spec.vocabulary == len(WORDS)
    assert {1, 2, 3} <= set(kept), "the unknown token and special ones are always kept"
    texts = [" ".join(words) for words in itertools.product(["a", "good", "bad", "books", "?"], repeat=3)]
    equal = 0
    for ours, theirs in zip(*(each.encoder.encode(texts) for each in tasks), strict=True):
        assert [kept[each] for each in ours] == [each if each in kept else 1 for each in theirs.tolist()]
        if set(theirs.tolist()) <= set(kept):
            batches = [Batch(torch.from_numpy(ids)[None, :LENGTH].long(), None, None) for ids in (ours, theirs)]
            assert torch.equal(*(network(batch) for network, batch in zip(networks, batches, strict=True)))
            equal += 1
    assert 3 < equal < len(texts)
    assert library.damage_of(whole) == 0
    parameters = [sum(each.numel() for each in network.parameters()) for network in networks]
    assert parameters[1] - parameters[0] == WIDTH * (len(WORDS) - len(kept))


def test_latencies_are_measured_once_for_all_shares_of_the_vocabulary(trimmed, tmp_path):
    space, task = trimmed
    library = library_in(tmp_path, space, task, steps=0)
    library.make()
    measured = []

    def latencies(networks):
        measured.append(networks)
        return [float(len(networks) - at) for at in range(len(networks))]

    settings = measure_settings(Options(space), library, latencies)
    assert len(settings) == 4
    assert len(measured) == 2, "for floating point and for integers"


def test_a_trimmed_vocabulary_and_imitated_hidden_states_exclude_each_other(trimmed, checkpoint):
    given = tree(checkpoint, input=dict(trimmed[0].input))
    with pytest.raises(ConfigError, match=r"input.vocabulary=0\.7: with train\.hidden or train\.relations, for which"):
        validate_compression(Space({**given, "train": {**given["train"], "hidden": 1.0}}), None)
    validate_compression(Space(given), None)


def test_random_mixes_replace_any_number_of_sub_blocks(space):
    options, draw = Options(space), random.Random(0)
    sizes = set()
    for _ in range(100):
        mix = random_mix(options, draw)
        assert len({(each.block, each.part) for each in mix}) == len(mix)
        assert all(each.option != options.whole(each.part, each.block) for each in mix)
        sizes.add(len(mix))
    assert sizes == set(range(1, 2 * LAYERS + 1))


def test_descriptions_name_what_each_block_has_kept(space):
    options = Options(space)
    replaced = options.replaced([Replacement(1, "feed_forward", 0.5), Replacement(2, "attention", "none")])
    assert describe(replaced, space.dimension_names()) == "softmax*2+none feed_forward=1,0.5,1"


@pytest.mark.parametrize(
    ("section", "change", "expected"),
    [
        ("model", {}, True),
        ("model", {"quantization": "int8"}, True),
        ("model", {"sparsity": 0}, True),
        ("model", {"sparsity": "2:4"}, False),
        ("model", {"feed_forward": {"0": 0.5, "1": 1.0, "2": 1.0}}, False),
        ("pattern", ["half", "softmax", "softmax"], False),
        ("input", {"length": 3}, False),
        ("train", {"lr": 0.5, "epochs": 7}, True),
    ],
)
def test_the_parent_is_what_has_its_weights_whatever_its_precision_and_training(space, section, change, expected):
    whole = next(space.largest())
    given = {**whole.get(section, {}), **change} if isinstance(change, dict) else change
    assert Options(space).is_parent({**whole, section: given}) is expected


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_parent_is_not_trained_again(library, space, task, tmp_path, quantization):
    options = Options(space)
    parameters = options.parameters([], {"model.quantization": quantization})
    record = Record(0, State.RUNNING, architecture=options.architecture(parameters))
    network = build(record.architecture, task).eval()
    network.load_state_dict(library.network.state_dict())
    with LightningLearner(task, 0, tmp_path, parent=library).train(record, resume=False) as training:
        ((epoch, metric, seconds),) = list(training)
        for split in ("validation", "test"):
            assert training.evaluate(split) == evaluate_split(network, task, split)
        weights = load_file(training.save_weights())
    assert (epoch, metric) == (1, evaluate_split(network, task, "validation")["accuracy"])
    assert seconds > 0, "those of other trials are predicted from them"
    assert all(torch.equal(weights[name], value) for name, value in library.network.state_dict().items())
    expected = Repetition(*(evaluate_split(network, task, split) for split in ("validation", "test")))
    assert train(record.architecture, Confirmation(task, Device(), library), seed=5) == expected


def test_a_network_that_lacks_a_part_is_trained(library, space, task, tmp_path):
    options = Options(space)
    parameters = options.parameters([Replacement(0, "attention", "none")], {"model.quantization": "none"})
    record = Record(0, State.RUNNING, architecture=options.architecture(parameters))
    with LightningLearner(task, 0, tmp_path, parent=library).train(record, resume=False) as training:
        assert isinstance(training, LightningTraining)
