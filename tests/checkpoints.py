"""Small random checkpoints of the BERT family, as ``transformers`` writes them."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "book", "##s")
WIDTH, HEADS, HIDDEN, LAYERS, POSITIONS = 12, 2, 20, 3, 24


@cache
def with_checkpoint(*overrides):
    """Overrides of a command, with a small checkpoint in place of the one that they name or that is installed."""
    if "+space=pretrained" not in overrides:
        return overrides
    folder = write_checkpoint(Path(tempfile.mkdtemp()) / "bert", positions=512)
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
