"""Small random checkpoints of BERT, GPT-2 and Llama, as ``transformers`` writes them."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "book", "##s")
WIDTH, HEADS, HIDDEN, LAYERS, POSITIONS = 12, 2, 20, 3, 24


@cache
def with_checkpoint(*overrides):
    """Overrides of a command, with a small checkpoint in place of the one that they name or that is installed."""
    kind = next((each for each in overrides if each.startswith("+space=pretrained")), None)
    if kind is None:
        return overrides
    folder = Path(tempfile.mkdtemp()) / "checkpoint"
    if kind == "+space=pretrained":
        write_checkpoint(folder, positions=512)
    else:
        write_gpt2(folder, positions=512)
    atexit.register(shutil.rmtree, folder.parent)
    kept = (each for each in overrides if not each.startswith("space.model.checkpoint="))
    return (*kept, f"space.model.checkpoint={folder}")


def write_tokenizer(path):
    """A WordPiece tokenizer that adds [CLS] and [SEP], pads and truncates, like those of real checkpoints."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(path))


def write_checkpoint(folder, *, positions=POSITIONS, config=None, drop=(), change=None):
    """A checkpoint of the shape of BERT; returns the folder.

    Args:
        folder: is created.
        positions: the longest sequence.
        config: changes of config.json; None removes a key.
        drop: names of tensors that are left out.
        change: tensors by name that replace others.
    """
    folder.mkdir(parents=True)
    settings = {
        "model_type": "bert",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "vocab_size": len(WORDS),
        "type_vocab_size": 2,
    } | (config or {})
    kept = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (positions, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for part, outputs, inputs in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("attention.output.LayerNorm", WIDTH, None),
            ("intermediate.dense", HIDDEN, WIDTH),
            ("output.dense", WIDTH, HIDDEN),
            ("output.LayerNorm", WIDTH, None),
        ):
            name = f"encoder.layer.{layer}.{part}"
            shapes[f"{name}.weight"] = (outputs,) if inputs is None else (outputs, inputs)
            shapes[f"{name}.bias"] = (outputs,)
    tensors = {name: torch.randn(*shape, generator=generator) / 3 for name, shape in shapes.items()}
    tensors = {name: tensor for name, tensor in (tensors | (change or {})).items() if name not in drop}
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_byte_tokenizer(path, *, merged=("th", "e ")):
    """A byte-level tokenizer, as those of GPT-2, of bytes and a few pairs of them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [pair.replace(" ", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}") for pair in merged]
    vocabulary = {token: number for number, token in enumerate([*alphabet, *pairs])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(pair[0], pair[1]) for pair in pairs]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def write_gpt2(folder, *, positions=POSITIONS, config=None, drop=(), change=None):
    """A checkpoint of the shape of GPT-2, with more rows than tokens; see :func:`write_checkpoint`."""
    folder.mkdir(parents=True)
    settings = {
        "model_type": "gpt2",
        "n_layer": LAYERS,
        "n_embd": WIDTH,
        "n_head": HEADS,
        "n_inner": HIDDEN,
        "activation_function": "gelu_new",
        "n_positions": positions,
        "vocab_size": 260,
    } | (config or {})
    (folder / "config.json").write_text(json.dumps({n: value for n, value in settings.items() if value is not None}))
    shapes = {"wte.weight": (260, WIDTH), "wpe.weight": (positions, WIDTH)}
    for layer in range(LAYERS):
        parts = [("ln_1", WIDTH, None), ("ln_2", WIDTH, None), ("attn.c_attn", 3 * WIDTH, WIDTH)]
        parts += [("attn.c_proj", WIDTH, WIDTH), ("mlp.c_fc", HIDDEN, WIDTH), ("mlp.c_proj", WIDTH, HIDDEN)]
        for part, outputs, inputs in parts:
            shapes[f"h.{layer}.{part}.weight"] = (outputs,) if inputs is None else (inputs, outputs)
            shapes[f"h.{layer}.{part}.bias"] = (outputs,)
    shapes |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*shape, generator=generator) / 3 for name, shape in shapes.items()}
    kept = {f"transformer.{name}": each for name, each in (tensors | (change or {})).items() if name not in drop}
    save_file(kept, folder / "model.safetensors")
    write_byte_tokenizer(folder / "tokenizer.json")
    return folder


def write_llama(folder, *, positions=POSITIONS, config=None):
    """A checkpoint of the shape of Llama 3, with more rows than tokens; see :func:`write_checkpoint`."""
    folder.mkdir(parents=True)
    settings = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rope_theta": 5e5,
        "vocab_size": 260,
    } | (config or {})
    (folder / "config.json").write_text(json.dumps(settings))
    shapes = {"model.embed_tokens": (260, WIDTH), "model.norm": (WIDTH,), "lm_head": (260, WIDTH)}
    for layer in range(LAYERS):
        parts = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in "qkvo"}
        parts |= {"mlp.up_proj": (HIDDEN, WIDTH), "mlp.gate_proj": (HIDDEN, WIDTH), "mlp.down_proj": (WIDTH, HIDDEN)}
        parts |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{name}.weight": torch.randn(*shape, generator=generator) / 3 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    write_byte_tokenizer(folder / "tokenizer.json")
    return folder
