"""Models: their parts against formulas, decoding against whole passes, padding, roles and invalid settings."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from tiny_task import FirstToken
from torch import nn

from search.costs.counted import flops
from spaces.attention import Shape
from spaces.attention.entmax import EntmaxAttention
from spaces.attention.fnet import FNetAttention
from spaces.attention.gated import GatedAttention
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.nystromformer import NystromformerAttention
from spaces.attention.performer import PerformerAttention
from spaces.attention.reformer import ReformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.attention.topk import TopkAttention
from spaces.build import build, invalid_corners
from spaces.instantiate import instantiate
from spaces.models.block import FeedForward
from spaces.models.config import ACTIVATIONS, ModelConfig
from spaces.models.decoder import Decoder
from spaces.models.embedding import Embedding
from spaces.models.encoder import POOLINGS, Encoder
from spaces.models.positions import POSITIONS, SinusoidalPositions
from spaces.models.seq2seq import Seq2Seq, Seq2SeqConfig
from spaces.models.stem import ConvolutionStem
from spaces.space import Space
from spaces.tasks import BOS, EOS, Batch, Split, Task, TaskSpec
from spaces.tasks.sources.image_patches import extract_patches

WIDTH, LENGTH, ANSWER, CLASSES = 8, 12, 7, 6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def mechanisms(kind=SoftmaxAttention, *, depth=2, length=LENGTH, causal=False, **knobs):
    return [kind(Shape(WIDTH, 2, length, causal), **knobs) for _ in range(depth)]


def model(kind, mechanisms, spec, **settings):
    """A model constructed as from YAML, with the fields of its ``ModelConfig`` as keys."""
    node = {"_target_": f"{kind.__module__}.{kind.__name__}", "width": WIDTH, **settings}
    return instantiate(nn.Module, node, "model", mechanisms=mechanisms, spec=spec).eval()


def batch_of(inputs, padding=None, decoder_input_ids=None):
    return Batch(inputs, padding, torch.empty(0), decoder_input_ids)


# Parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_equals_its_formula(activation):
    hidden_features = ModelConfig(WIDTH, feed_forward=3, activation=activation).hidden(0)
    network, x = FeedForward(WIDTH, hidden_features, activation), torch.randn(3, 5, WIDTH)
    up = x @ network.up_proj.weight.T + network.up_proj.bias
    if activation == "swiglu":
        gate = x @ network.gate_proj.weight.T + network.gate_proj.bias
        hidden = gate * gate.sigmoid() * up
        assert hidden.shape[-1] == 16, "two thirds of the hidden features, for the third projection"
    else:
        tanh = 0.5 * up * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (up + 0.044715 * up**3)))
        hidden = {"gelu": F.gelu(up), "gelu_tanh": tanh, "relu": F.relu(up)}[activation]
    torch.testing.assert_close(network(x), hidden @ network.down_proj.weight.T + network.down_proj.bias)


def test_sinusoidal_positions_equal_the_papers_formula():
    added = SinusoidalPositions(50, 6)
    added.scale.data.fill_(1.0)
    table = added(torch.zeros(1, 50, 6))[0]
    for position, pair in product((0, 1, 7, 49), range(3)):
        angle = torch.tensor(position / 10_000 ** (2 * pair / 6))
        torch.testing.assert_close(table[position, 2 * pair], angle.sin())
        torch.testing.assert_close(table[position, 2 * pair + 1], angle.cos())


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions_can_start_at_an_offset(kind):
    added, x = POSITIONS[kind](9, 4), torch.randn(2, 9, 4)
    torch.testing.assert_close(added(x[:, 3:5], 3), added(x)[:, 3:5])
    assert torch.equal(added(x), x) == (kind == "none")


SETTINGS = [
    *({"activation": activation} for activation in ACTIVATIONS),
    *({"positions": kind} for kind in ("sinusoidal", "none")),
    *({"pooling": pooling} for pooling in POOLINGS),
    {"front_end": "convolution"},
    {"front_end": "convolution", "stride": 2},
    {"stride": 4},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_encoder_outputs_are_independent_of_padding(settings):
    spec = TaskSpec(length=LENGTH, features=3, classes=CLASSES, per_token=False)
    network = model(Encoder, mechanisms(), spec, **settings)
    frames = torch.randn(2, 9, 3)
    padded = torch.cat([frames, torch.full((2, 3, 3), torch.nan)], dim=1)
    padding = torch.arange(LENGTH).expand(2, -1) >= 9
    torch.testing.assert_close(network(batch_of(padded, padding)), network(batch_of(frames)))
    assert network(batch_of(frames)).shape == (2, CLASSES)


@pytest.mark.parametrize(("patch", "strides"), [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [5]), (6, [2, 3])])
def test_a_convolution_stem_equals_convolutions_of_the_image(patch, strides):
    images = torch.randn(2, 3, 2 * patch, 4 * patch)
    stem = ConvolutionStem(images.shape[1:], 3 * patch**2, WIDTH).eval()
    tokens = stem(extract_patches(images, patch))
    assert tokens.shape == (2, 8, WIDTH)
    convolutions = [layer for layer in stem.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.stride[0] for layer in convolutions] == [*strides, 1]
    expected = stem.layers(images)
    for row, column in product(range(2), range(4)):
        torch.testing.assert_close(tokens[:, 4 * row + column], expected[:, :, row, column])


def test_a_token_of_a_stem_depends_on_its_own_patch_in_the_first_place():
    images = torch.randn(1, 1, 16, 16, requires_grad=True)
    stem = ConvolutionStem((1, 16, 16), 16, WIDTH).eval()
    stem(extract_patches(images, 4))[0, 6].sum().backward()  # the patch in row 1 and column 2
    seen = images.grad[0, 0] != 0
    assert seen[4:8, 8:12].all()
    assert not seen[:, :4].any()
    assert not seen[9:].any()


@pytest.mark.parametrize("settings", [{"ngrams": 3}, {"stride": 4}, {"ngrams": 2, "stride": 5}], ids=str)
def test_embeddings_of_ids_are_independent_of_padding(settings):
    embedding = trained_embedding(**settings)
    ids, lengths = torch.randint(5, (3, LENGTH)), (LENGTH, 9, 1)
    padding = torch.arange(LENGTH) >= torch.tensor(lengths)[:, None]
    x, padded = embedding(ids, padding)
    for row, length in enumerate(lengths):
        alone, _ = embedding(ids[row : row + 1, :length], None)
        torch.testing.assert_close(x[row, : alone.shape[1]], alone[0])
        assert (~padded[row]).sum() == alone.shape[1]
    assert not x[padded].any()


@pytest.mark.parametrize(("ngrams", "stride"), [(1, 3), (2, 1), (3, 4)])
def test_embeddings_of_ids_equal_a_sum_over_ngrams_and_a_mean_over_the_stride(ngrams, stride):
    embedding = trained_embedding(ngrams=ngrams, stride=stride)
    ids, table = torch.randint(5, (2, LENGTH)), embedding.first
    sums = torch.zeros(2, LENGTH, WIDTH)
    for token in range(LENGTH):
        for n in range(ngrams):
            # The row of an n-gram depends on its own ids only, so that of a short sequence is the same.
            start = max(0, token - max(n, 1))
            sums[:, token] += table.weight[table.rows(ids[:, start : token + 1])[:, -1, n]]
    expected = torch.stack([part.mean(1) for part in sums.split(stride, dim=1)], dim=1)
    torch.testing.assert_close(embedding(ids, None)[0], expected)


def test_distinct_ngrams_have_distinct_rows_but_for_collisions():
    table = trained_embedding(ngrams=3, buckets=4096).first
    ids = torch.cartesian_prod(*[torch.arange(5)] * 3)
    rows = table.rows(ids)[:, -1]
    assert torch.equal(rows >= torch.tensor([0, 5, 5 + 4096]), rows >= 0)
    assert torch.equal(rows < torch.tensor([5, 5 + 4096, 5 + 2 * 4096]), rows >= 0)
    assert rows[:, 1].unique().numel() >= 24
    assert rows[:, 2].unique().numel() >= 120, "125 trigrams collide about twice in 4096 buckets"
    pairs = torch.cartesian_prod(torch.arange(256), torch.arange(256))
    counts = trained_embedding(ngrams=2, buckets=64, vocabulary=256).first.rows(pairs)[:, -1, 1].bincount()[256:]
    assert len(counts) == 64
    assert 850 < counts.min() <= counts.max() < 1200, "buckets are used evenly"


@pytest.mark.parametrize("settings", [{}, {"ngrams": 2}, {"stride": 2}])
def test_embeddings_begin_with_a_given_standard_deviation_and_those_of_ngrams_at_0(settings):
    spec = TaskSpec(length=LENGTH, vocabulary=500, classes=2, per_token=False)
    weight = Embedding(spec, ModelConfig(WIDTH, embedding_std=0.1, **settings)).first.weight
    assert weight[:500].std().item() == pytest.approx(0.1, rel=0.05)
    assert not weight[500:].any()


def trained_embedding(vocabulary=5, **settings):
    spec = TaskSpec(length=LENGTH, vocabulary=vocabulary, classes=2, per_token=False)
    embedding = Embedding(spec, ModelConfig(WIDTH, **settings)).eval()
    with torch.no_grad():
        embedding.first.weight.normal_()  # those of n-grams begin at 0
    return embedding


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        ({"ngrams": 0}, {}, "ngrams=0: it must be a whole number from 1"),
        ({"ngrams": 2}, {"vocabulary": None, "features": 2}, "ngrams=2: they are of token ids"),
        ({"stride": 2}, {"per_token": True}, "stride=2: this task has an output per token"),
        ({"embedding_std": 0.0}, {}, "embedding_std=0.0: it must be above 0"),
        ({"embedding_dropout": 1.0}, {}, "embedding_dropout=1.0: it must be at least 0 and below 1"),
        ({"activation": "tanh"}, {}, "activation='tanh': it must be gelu, gelu_tanh, relu, swiglu"),
        ({"positions": "rotary"}, {}, "positions='rotary': it must be learned, sinusoidal, none"),
        ({"pooling": "last"}, {}, "pooling='last': it must be mean, max, first"),
        ({"pooling": "max"}, {"per_token": True}, "pooling='max': this task has an output per token"),
        ({"front_end": "wavelet"}, {}, "front_end='wavelet': it must be linear, convolution, stem"),
        ({"front_end": "stem"}, {"vocabulary": None, "features": 2}, "it is for patches of images"),
        (
            {"front_end": "stem", "stride": 2},
            {"vocabulary": None, "features": 1, "length": 4, "image_shape": (1, 2, 2)},
            "choose the patch instead",
        ),
        ({"front_end": "convolution"}, {}, "it is for frames, and this task has token ids"),
        ({"front_end": "convolution"}, {"vocabulary": None, "features": 2, "causal": True}, "it sees later frames"),
        ({}, {"answer_length": 5}, "it needs spaces.models.seq2seq.Seq2Seq"),
    ],
)
def test_invalid_encoder_settings_are_refused(settings, spec, message):
    taken = TaskSpec(**{"length": LENGTH, "vocabulary": 5, "classes": 2, "per_token": False} | spec)
    with pytest.raises(ValueError, match=message):
        model(Encoder, mechanisms(), taken, **settings)


# Decoder ----------------------------------------------------------------------------------------------------------

CAUSAL = TaskSpec(length=LENGTH, vocabulary=CLASSES, classes=CLASSES, per_token=True, causal=True)
decoding = pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        (SoftmaxAttention, {}),
        (SoftmaxAttention, {"rope": True}),
        (LinearAttention, {}),
        (GatedAttention, {}),
        (LongformerAttention, {"window": 2}),
    ],
)


@decoding
@pytest.mark.parametrize("settings", [{}, {"positions": "sinusoidal", "activation": "swiglu"}, {"ngrams": 3}])
def test_decode_step_gives_the_logits_of_forward(kind, knobs, settings):
    network = model(Decoder, mechanisms(kind, causal=True, **knobs), CAUSAL, **settings)
    ids = torch.randint(CLASSES, (3, LENGTH))
    cache, steps = network.init_cache(3), []
    for token in ids.unbind(1):
        logits, cache = network.decode_step(token, cache)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, dim=1), network(batch_of(ids)), atol=1e-5, rtol=1e-5)


@decoding
@pytest.mark.parametrize("settings", [{}, {"positions": "sinusoidal"}, {"positions": "none"}, {"ngrams": 3}])
@pytest.mark.parametrize("n", [1, 2, LENGTH])
def test_prefill_equals_decoding_token_by_token(kind, knobs, settings, n):
    network = model(Decoder, mechanisms(kind, causal=True, **knobs), CAUSAL, **settings)
    ids = torch.randint(CLASSES, (3, n))
    cache = network.init_cache(3)
    for token in ids.unbind(1):
        logits, cache = network.decode_step(token, cache)
    torch.testing.assert_close(network.prefill(ids), (logits, cache), atol=1e-5, rtol=1e-5)


@decoding
def test_greedy_generation_takes_the_argmax_of_forward(kind, knobs):
    network = model(Decoder, mechanisms(kind, causal=True, **knobs), CAUSAL)
    ids = prompt = torch.randint(CLASSES, (3, 4))
    while ids.shape[1] < LENGTH:
        ids = torch.cat([ids, network(batch_of(ids))[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(network.generate(prompt, LENGTH - 4), ids[:, 4:])


def test_sampling_depends_on_the_given_generator_only():
    network = model(Decoder, mechanisms(causal=True), CAUSAL)
    before, prompt = torch.get_rng_state(), torch.zeros(40, 1, dtype=torch.int64)

    def draw(seed, temperature):
        generator = torch.Generator().manual_seed(seed)
        return network.generate(prompt, 6, temperature=temperature, generator=generator)

    assert torch.equal(draw(0, 1.0), draw(0, 1.0))
    assert not torch.equal(draw(0, 1.0), draw(1, 1.0))
    assert torch.equal(draw(0, 1e-4), network.generate(prompt, 6)), "at a low temperature, sampling is greedy"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mechanism", "spec", "message"),
    [
        (mechanisms(ReformerAttention, causal=True, bucket_size=4), {}, "reformer cannot decode token by token"),
        (mechanisms(causal=True), {"classes": 5}, "asks for the next token"),
        (mechanisms(causal=True), {"causal": False}, "asks for the next token"),
    ],
)
def test_invalid_decoders_are_refused(mechanism, spec, message):
    taken = TaskSpec(**{"length": LENGTH, "vocabulary": 6, "classes": 6, "per_token": True, "causal": True} | spec)
    with pytest.raises(ValueError, match=message):
        model(Decoder, mechanism, taken)


# Encoder and decoder ----------------------------------------------------------------------------------------------

ANSWERS = TaskSpec(length=LENGTH, vocabulary=9, classes=CLASSES, per_token=True, answer_length=ANSWER)


SHARED = {"tied": True, "copies": True}  # which needs as many ids of the source as of the target


def seq2seq(cross=SoftmaxAttention, decoder=SoftmaxAttention, *, settings=None, spec=ANSWERS, **knobs):
    return Seq2Seq(
        mechanisms(),
        Seq2SeqConfig(WIDTH, **(settings or {})),
        decoder_mechanisms=mechanisms(decoder, length=ANSWER, causal=True),
        cross_mechanisms=mechanisms(cross, **knobs),
        spec=replace(spec, vocabulary=CLASSES) if settings else spec,
    ).eval()


crossing = pytest.mark.parametrize(
    ("cross", "knobs"),
    [
        (SoftmaxAttention, {}),
        (LinearAttention, {}),
        (LinformerAttention, {"rank": 4}),
        (SoftmaxAttention, {"settings": SHARED}),
    ],
)


@crossing
def test_seq2seq_logits_depend_on_the_source_and_on_previous_tokens(cross, knobs):
    network = seq2seq(cross, **knobs)
    source, decoder_input_ids = torch.randint(CLASSES, (2, LENGTH)), torch.randint(CLASSES, (2, ANSWER))
    logits = network(batch_of(source, decoder_input_ids=decoder_input_ids))
    assert logits.shape == (2, ANSWER, CLASSES)
    other = decoder_input_ids.clone()
    other[:, 4:] = (other[:, 4:] + 1) % CLASSES
    later = network(batch_of(source, decoder_input_ids=other))
    torch.testing.assert_close(later[:, :4], logits[:, :4])
    assert not torch.allclose(later[:, 4:], logits[:, 4:])
    assert not torch.allclose(network(batch_of(source.flip(1), decoder_input_ids=decoder_input_ids)), logits)


@crossing
def test_seq2seq_logits_are_independent_of_source_padding(cross, knobs):
    network, decoder_input_ids = seq2seq(cross, **knobs), torch.randint(CLASSES, (2, ANSWER))
    source = torch.randint(CLASSES, (2, LENGTH))
    padding = torch.arange(LENGTH).expand(2, -1) >= 8
    torch.testing.assert_close(
        network(batch_of(source, padding, decoder_input_ids)),
        network(batch_of(source[:, :8], decoder_input_ids=decoder_input_ids)),
        atol=1e-5,
        rtol=1e-5,
    )


@crossing
@pytest.mark.parametrize("decoder", [SoftmaxAttention, GatedAttention])
def test_seq2seq_greedy_generation_takes_the_argmax_of_forward(cross, knobs, decoder):
    network = seq2seq(cross, decoder, **knobs)
    source = torch.randint(CLASSES, (5, LENGTH))
    ids = torch.full((5, 1), BOS)
    while ids.shape[1] <= ANSWER:
        ids = torch.cat([ids, network(batch_of(source, decoder_input_ids=ids))[:, -1:].argmax(-1)], dim=1)
    ended = (ids[:, 1:] == EOS).cumsum(1) > 0
    expected = ids[:, 1:].masked_fill(ended, EOS)
    assert torch.equal(network.generate(batch_of(source), ANSWER, ignore_eos=True), expected)
    last = int((~ended).sum(1).max()) + 1
    assert torch.equal(network.generate(batch_of(source), ANSWER), expected[:, :last])


def test_a_tied_network_has_one_table_of_ids():
    tied, apart = seq2seq(settings={"tied": True}), seq2seq(settings={"copies": True})
    tables = [name for name, weights in tied.named_parameters() if weights.shape == (CLASSES, WIDTH)]
    assert tables == ["embedding.first.weight"]
    assert len([weights for weights in apart.parameters() if weights.shape == (CLASSES, WIDTH)]) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tied": True}, "tied=true: source and target of this task do not share their ids"),
        ({"copies": True}, "copies=true: source and target of this task do not share their ids"),
        ({"copies": True, "stride": 2}, "copies=true, stride=2: the stride must be 1"),
        ({"tied": True, "ngrams": 2}, "tied=true, ngrams=2: ngrams must be 1"),
    ],
)
def test_networks_that_cannot_share_ids_are_refused(settings, message):
    spec = ANSWERS if len(settings) == 1 else replace(ANSWERS, vocabulary=CLASSES)
    with pytest.raises(ValueError, match=message):
        Seq2Seq(
            mechanisms(),
            Seq2SeqConfig(WIDTH, **settings),
            decoder_mechanisms=mechanisms(length=ANSWER, causal=True),
            cross_mechanisms=mechanisms(),
            spec=spec,
        )


@pytest.mark.parametrize(
    ("cross", "knobs", "flops_per_source_token"),  # FLOPs per generated token for each further token of the source
    [
        (SoftmaxAttention, {}, 4 * WIDTH),
        pytest.param(EntmaxAttention, {}, 4 * WIDTH, marks=pytest.mark.slow),
        pytest.param(TopkAttention, {"k": 2}, 4 * WIDTH, marks=pytest.mark.slow),
        (LinearAttention, {}, 0),
        pytest.param(PerformerAttention, {"features": 5}, 0, marks=pytest.mark.slow),
        pytest.param(LinformerAttention, {"rank": 4}, 0, marks=pytest.mark.slow),
        pytest.param(NystromformerAttention, {"landmarks": 1}, 0, marks=pytest.mark.slow),
    ],
)
def test_a_source_is_encoded_once_per_generated_sequence(cross, knobs, flops_per_source_token):
    network = seq2seq(cross, GatedAttention, **knobs)  # whose FLOPs are the same for every token

    def operations(n, tokens):
        source = batch_of(torch.zeros(1, n, dtype=torch.int64))
        return flops(network, source, use=lambda *given: network.generate(*given[1:], tokens, ignore_eos=True))

    growth = {n: operations(n, 2) - operations(n, 1) for n in (1, LENGTH)}
    depth = len(network.decoder.blocks)
    assert growth[LENGTH] - growth[1] == depth * flops_per_source_token * (LENGTH - 1)


class Reverse(Task):
    """Reverse a sequence."""

    def __init__(self):
        self.spec, self.chance = ANSWERS, 1 / CLASSES

    def examples(self, split: Split) -> Batch:
        inputs = torch.randint(2, CLASSES, (8, ANSWER - 1))
        labels = torch.cat([inputs.flip(1), torch.full((8, 1), EOS)], dim=1)
        return Batch(F.pad(inputs, (0, LENGTH - ANSWER + 1)), None, labels, F.pad(labels[:, :-1], (1, 0), value=BOS))


def tree(roles=None, **extra):
    attention = {
        "softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"},
        "linformer": {"_target_": "spaces.attention.linformer.LinformerAttention", "rank": 4},
        "fnet": {"_target_": "spaces.attention.fnet.FNetAttention"},
        "reformer": {"_target_": "spaces.attention.reformer.ReformerAttention", "bucket_size": 4},
    }
    model = {"_target_": "spaces.models.seq2seq.Seq2Seq", "depth": 2, "width": 8, "heads": 2}
    return {"attention": attention, "model": model, "train": {"epochs": 1}, "roles": roles or {}, **extra}


def test_roles_select_the_decoder_and_cross_attention_mechanisms():
    space = Space(tree({"decoder": "softmax", "cross": {"choice": ["softmax", "linformer"]}}, pattern=["fnet"]))
    assert invalid_corners(space, Reverse()) == []
    architectures = list(space.corners())
    assert [corner["roles"]["cross"] for corner in architectures] == ["softmax", "linformer"]
    assert [list(corner["attention"]) for corner in architectures] == [
        ["softmax", "fnet"],
        ["softmax", "linformer", "fnet"],
    ]
    network = build(architectures[1], Reverse())
    assert {type(block.mechanism) for block in network.encoder.blocks} == {FNetAttention}
    for block in network.decoder.blocks:
        assert (type(block.mechanism), type(block.cross_mechanism)) == (SoftmaxAttention, LinformerAttention)
        assert (block.mechanism.causal, block.mechanism.length) == (True, ANSWER)
        assert (block.cross_mechanism.causal, block.cross_mechanism.length) == (False, LENGTH)


def test_roles_are_refused_without_a_decoder():
    space = Space(tree({"decoder": "softmax"}, model={**tree()["model"], "_target_": "spaces.models.encoder.Encoder"}))
    assert invalid_corners(space, FirstToken()) == [
        "roles: they are for tasks whose answer is a sequence of its own, such as translation"
    ]


@pytest.mark.parametrize(
    ("roles", "pattern", "message"),
    [
        ({"cross": "softmax"}, ["fnet"], "attention.fnet as decoder: causal=True"),
        ({"decoder": "reformer", "cross": "softmax"}, ["softmax"], "reformer cannot decode token by token"),
        ({"decoder": "softmax"}, ["fnet"], "attention.fnet as cross:"),
        ({"decoder": "softmax", "cross": "reformer"}, ["softmax"], "attention.reformer as cross:"),
    ],
)
def test_a_mechanism_unfit_for_a_role_is_refused_with_the_reason(roles, pattern, message):
    (problem,) = invalid_corners(Space(tree(roles, pattern=pattern)), Reverse())
    assert message in problem
