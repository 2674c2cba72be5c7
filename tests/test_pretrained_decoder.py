"""Language models from checkpoints: equal to transformers, decoding, bits per byte, and what is refused."""

import json
import math

import pytest
import torch
from checkpoints import HEADS, LAYERS, POSITIONS, WIDTH, write_byte_tokenizer, write_checkpoint, write_gpt2
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from search.programs.encoders import token_bytes
from search.training.evaluation import evaluate_split
from spaces.attention import Shape
from spaces.attention.gated import GatedAttention
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.build import build
from spaces.dimensions import ConfigError
from spaces.models.block import NoAttention
from spaces.models.pretrained_decoder import PretrainedDecoder
from spaces.models.rope import rotary_rates
from spaces.tasks import Batch, TaskSpec
from spaces.tasks.sources.tokens import TokenSettings
from spaces.tasks.text import Text

LENGTH, VOCABULARY = 12, 258
SPEC = TaskSpec(length=LENGTH, vocabulary=VOCABULARY, classes=VOCABULARY, per_token=True, causal=True)
WORDS = ["the", "other", "book", "reads", "then", "e", "ö", "\n"]


def decoder(folder, *, mechanism=SoftmaxAttention, width=WIDTH, heads=HEADS, spec=SPEC, options=None, **settings):
    shape = Shape(width, heads, spec.length, spec.causal)
    mechanisms = [mechanism(shape, **(options or {})) for _ in range(LAYERS)]
    return PretrainedDecoder(mechanisms, spec=spec, checkpoint=str(folder), width=width, **settings).eval()


def logits(network, ids):
    with torch.inference_mode():
        return network(Batch(ids, None, ids))


def random_ids(count=3):
    return torch.randint(VOCABULARY, (count, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_gpt2(tmp_path_factory.mktemp("checkpoint") / "gpt2")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for at in range(40):
        words = [WORDS[(at + 3 * n) % len(WORDS)] for n in range(30)]
        (folder / f"{at}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


def architecture(folder, **changes):
    sizes = {"depth": LAYERS, "width": WIDTH, "heads": HEADS}
    return {
        "input": {"tokens": f"{folder}/tokenizer.json"},
        "model": {
            "_target_": "spaces.models.pretrained_decoder.PretrainedDecoder",
            "checkpoint": str(folder),
            **sizes,
        },
        "pattern": ["softmax"] * LAYERS,
        "attention": {"softmax": {"_target_": "spaces.attention.softmax.SoftmaxAttention"}},
        "train": {},
        **changes,
    }


SMALL = {
    "gpt2": {"n_embd": 24, "n_layer": LAYERS, "n_head": 4, "n_inner": 30, "n_positions": 32},
    "llama": {
        "hidden_size": 24,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 30,
        "max_position_embeddings": 32,
    },
}
OPTIONS = {"gpt2": {}, "llama": {"kv_heads": 2, "rope": True}}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
SETTINGS = [
    ("gpt2", {}),
    ("llama", {}),
    ("llama", {"attention_bias": True}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 100.0, **LLAMA3}}),  # some of each kind
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("family", "settings"), SETTINGS)
def test_logits_and_continuations_are_those_of_transformers(family, settings, ties, tmp_path):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    changes = {"vocab_size": VOCABULARY, "tie_word_embeddings": ties, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SMALL[family], **changes, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    network, ids = decoder(tmp_path, width=24, heads=4, options=OPTIONS[family]), random_ids()
    with torch.inference_mode():
        torch.testing.assert_close(logits(network, ids), model(ids).logits, rtol=1e-5, atol=1e-5)
        expected = model.generate(
            ids[:, :5], attention_mask=torch.ones(3, 5), max_new_tokens=7, do_sample=False, pad_token_id=0
        )
    assert torch.equal(network.generate(ids[:, :5], 7), expected[:, 5:])


MECHANISMS = {
    "softmax": (SoftmaxAttention, {}),
    "half of the heads": (SoftmaxAttention, {"kept_heads": 0.5}),
    "window": (LongformerAttention, {"window": 2, "global_tokens": 1}),
    "linear": (LinearAttention, {"feature_map": "elu"}),
    "hedgehog": (LinearAttention, {"feature_map": "hedgehog"}),
    "gated": (GatedAttention, {"decay": "token"}),
    "none": (NoAttention, {}),
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_decoding_token_by_token_gives_the_logits_of_a_forward_pass(name, checkpoint):
    mechanism, options = MECHANISMS[name]
    network, ids = decoder(checkpoint, mechanism=mechanism, options=options), random_ids()
    expected = logits(network, ids)
    with torch.inference_mode():
        found, cache = network.prefill(ids[:, :4])
        torch.testing.assert_close(found, expected[:, 3], rtol=1e-4, atol=1e-4)
        for at in range(4, LENGTH):
            found, cache = network.decode_step(ids[:, at], cache)
            torch.testing.assert_close(found, expected[:, at], rtol=1e-4, atol=1e-4)
        first, _ = network.decode_step(ids[:, 0], network.init_cache(3))
        torch.testing.assert_close(first, expected[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trained", [False, True])
def test_a_table_that_embedding_and_head_share_exists_once(trained, checkpoint):
    network = decoder(checkpoint, train_embeddings=trained)
    assert [name for name, each in network.named_parameters() if VOCABULARY in each.shape] == ["head.weight"]
    network(Batch(random_ids(), None, random_ids())).sum().backward()
    assert (network.head.weight.grad is not None) == trained


def test_bits_per_byte_are_those_of_the_probabilities_of_all_tokens_but_the_first(checkpoint, texts):
    base = Text(folder=str(texts), predict="next_byte", length=LENGTH + 1, train=9, validation=5, test=5)
    task = base.variant({"tokens": f"{checkpoint}/tokenizer.json"})
    network = build(architecture(checkpoint), base).eval()
    tokenizer, bits, size = Tokenizer.from_file(f"{checkpoint}/tokenizer.json"), 0.0, 0
    for _, content in base.rows("validation"):
        ids = tokenizer.encode(content.decode(errors="ignore")).ids
        scores = logits(network, torch.tensor([ids[:-1]]))[0].log_softmax(-1)
        bits -= sum(float(row[at]) for row, at in zip(scores, ids[1:], strict=True)) / math.log(2)
        size += len(tokenizer.decode(ids).encode()) - len(tokenizer.decode(ids[:1]).encode(errors="replace"))
    assert task.spec.vocabulary == VOCABULARY
    assert evaluate_split(network, task, "validation")["bits_per_byte"] == pytest.approx(bits / size, rel=1e-5)


REFUSED = [
    (write_checkpoint, {}, "model_type='bert' is no language model; it must be gpt2 or llama, or the space pretrained"),
    (write_gpt2, {"spec": TaskSpec(length=9, vocabulary=5, classes=2, per_token=False)}, "must ask for the next token"),
    (write_gpt2, {"spec": TaskSpec(length=9, vocabulary=300, classes=300, per_token=True, causal=True)}, "300 tokens"),
    (write_gpt2, {"mechanism": LinformerAttention, "options": {"rank": 3}}, "causal"),
    (
        write_gpt2,
        {"spec": TaskSpec(length=POSITIONS + 1, vocabulary=9, classes=9, per_token=True, causal=True)},
        f"length={POSITIONS + 1}: the checkpoint has {POSITIONS} positions",
    ),
    (
        lambda folder: write_gpt2(folder, config={"tie_word_embeddings": False}),
        {},
        "the weights have no lm_head.weight",
    ),
]


@pytest.mark.parametrize(("write", "settings", "message"), REFUSED)
def test_what_does_not_fit_is_refused(write, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        decoder(write(tmp_path / "checkpoint"), **settings)


def changed(path, **changes):
    """A tokenizer file with other parts."""
    tokenizer = Tokenizer.from_file(str(path))
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save(str(path))


@pytest.mark.parametrize("version", [4, 5])
def test_rates_are_those_of_both_versions_of_the_configuration(version):
    given = {"rope_type": "llama3", **LLAMA3}
    earlier, later = {"rope_theta": 100.0, "rope_scaling": given}, {"rope_parameters": given | {"rope_theta": 100.0}}
    rates = rotary_rates(earlier if version == 4 else later, 6)
    plain = [100.0 ** (-at / 3) for at in range(3)]
    # Turns within 16 positions: 2.5, 0.55 and 0.12. Those below 1 are slow, those from 4 fast; half of 1.5/3 between.
    share = (16 / (2 * math.pi) - 1) / 3
    assert rates == pytest.approx([share * plain[0] + (1 - share) * plain[0] / 8, plain[1] / 8, plain[2] / 8])


def write_sentencepiece(path, *, normalizer=None):
    """A tokenizer with byte fallback, as those of Llama 2: a few words, and bytes for all else."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581theör", "th", "\u2581th"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("t", "h"), ("\u2581", "th")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    tokenizer.normalizer = normalizer or normalizers.Sequence(spaces)
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(path))


def test_tokens_with_byte_fallback_spell_texts_after_a_space(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.json")
    encoder = TokenSettings(str(tmp_path / "tokenizer.json")).encoder([])
    encoder.check_lossless()
    spelling = token_bytes({"tokens": "tokenizer.json"}, tmp_path)
    for text in ["the hör", "", " the", "a\n\u4e2d<0x0A>", "\U0001f600 e"]:
        ids = encoder.encode([text])[0]
        if text:
            assert b"".join(spelling[at] for at in ids) == b" " + text.encode()
        assert encoder.bytes_per_token[ids].tolist() == [len(spelling[at]) for at in ids]


def test_tokens_with_byte_fallback_are_refused_unless_they_keep_texts(tmp_path):
    write_sentencepiece(tmp_path / "tokenizer.json", normalizer=normalizers.NFKC())
    with pytest.raises(ValueError, match="it normalizes texts"):
        TokenSettings(str(tmp_path / "tokenizer.json")).encoder([]).check_lossless()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pre_tokenizer": pre_tokenizers.Whitespace()}, "its tokens are not of bytes"),
        ({"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)}, "it adds a space before the text"),
        ({"normalizer": normalizers.Lowercase()}, "it normalizes texts"),
    ],
)
def test_a_tokenizer_that_does_not_keep_texts_is_refused(changes, reason, checkpoint, texts, tmp_path):
    write_byte_tokenizer(tmp_path / "tokenizer.json")
    changed(tmp_path / "tokenizer.json", **changes)
    task = Text(folder=str(texts), predict="next_byte", length=LENGTH)
    given = architecture(checkpoint, input={"tokens": str(tmp_path / "tokenizer.json")})
    with pytest.raises(ConfigError, match=rf"tokens: the tokenizer of a language model must be .*{reason}"):
        build(given, task)


def test_a_tokenizer_without_some_bytes_is_refused(checkpoint, texts, tmp_path):
    write_byte_tokenizer(tmp_path / "tokenizer.json")
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    del stored["model"]["vocab"]["A"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    task = Text(folder=str(texts), predict="next_byte", length=LENGTH)
    with pytest.raises(ConfigError, match="some bytes are no tokens"):
        build(architecture(checkpoint, input={"tokens": str(tmp_path / "tokenizer.json")}), task)
