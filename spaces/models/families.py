"""Families of checkpoints of the library ``transformers``: what their networks are, and where their files keep it.

BERT (Devlin et al., 2019; MiniLM, Wang et al., 2020, is one of its shape), RoBERTa (Liu et al., 2019) and DistilBERT
(Sanh et al., 2019) are encoders with norms after the sub-blocks. GPT-2 (Radford et al., 2019) and Llama (Touvron et
al., 2023) are causal, with norms first. ViT (Dosovitskiy et al., 2021) and DeiT (Touvron et al., 2021) read images, as
patches after a class token and in DeiT a distillation token, with norms first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of one kind.

    Args:
        prefix: of the names of tensors, where the checkpoint has a head as well.
        settings: the names in ``config.json`` of ``depth``, ``width``, ``heads``, ``hidden``, ``activation``, and where
            it has them of ``kv_heads``, ``eps`` and ``positions``.
        layer: prefix of the tensors of layer ``{}``.
        parts: the names within a layer; ``name#1`` is the second third of the outputs of a fused projection.
        tokens, positions, types: of the tables of token, position and token type embeddings; empty if there is none.
        patches: of the convolution that embeds the patches of images; empty where inputs are texts.
        class_tokens: learned tokens before the patches, the first of which classifies.
        embedding_norm, final_norm: after the embedding, and after the last layer; empty if there is none.
        activations: accepted ones, and what they are called here.
        refused: settings that are supported at these values only.
        norm_first: whether norms come before the sub-blocks.
        rms_norm: whether norms are root mean square norms.
        biases: whether projections have biases; of attention also where config.json says ``attention_bias``.
        transposed: whether the weights of projections are ``(inputs, outputs)``.
        causal: whether tokens attend to earlier ones only.
        rotary: whether positions rotate queries and keys, in pairs of features that are half a head apart.
        ties_head: whether a language model's head shares the table of token embeddings where config.json does not say.
        first_position: whether positions count from the padding id + 1; the rows before are not used.
    """

    prefix: str
    settings: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]
    tokens: str = ""
    positions: str = ""
    types: str = ""
    patches: str = ""
    class_tokens: Sequence[str] = ()
    embedding_norm: str = ""
    final_norm: str = ""
    activations: Mapping[str, str] = field(default_factory=lambda: {"gelu": "gelu", "relu": "relu"})
    refused: Mapping[str, object] = field(default_factory=dict)
    norm_first: bool = False
    rms_norm: bool = False
    biases: bool = True
    transposed: bool = False
    causal: bool = False
    rotary: bool = False
    ties_head: bool = True
    first_position: bool = False


_BERT_SETTINGS = {
    "depth": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
    "positions": "max_position_embeddings",
}
_BERT = {
    "settings": _BERT_SETTINGS,
    "layer": "encoder.layer.{}.",
    "parts": {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "mechanism_norm": "attention.output.LayerNorm",
        "up_proj": "intermediate.dense",
        "down_proj": "output.dense",
        "feed_forward_norm": "output.LayerNorm",
    },
    "tokens": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "refused": {"position_embedding_type": "absolute"},
}
_VIT = {
    "settings": {name: key for name, key in _BERT_SETTINGS.items() if name != "positions"},
    "layer": "encoder.layer.{}.",
    "parts": {
        "query": "attention.attention.query",
        "key": "attention.attention.key",
        "value": "attention.attention.value",
        "output": "attention.output.dense",
        "mechanism_norm": "layernorm_before",
        "up_proj": "intermediate.dense",
        "down_proj": "output.dense",
        "feed_forward_norm": "layernorm_after",
    },
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "final_norm": "layernorm",
    "refused": {"qkv_bias": True},
    "norm_first": True,
}
FAMILIES: Mapping[str, Family] = {
    "bert": Family(prefix="bert.", **_BERT),  # type: ignore[arg-type]
    "roberta": Family(prefix="roberta.", first_position=True, **_BERT),  # type: ignore[arg-type]
    "distilbert": Family(
        prefix="distilbert.",
        settings={
            "depth": "n_layers",
            "width": "dim",
            "heads": "n_heads",
            "hidden": "hidden_dim",
            "activation": "activation",
            "positions": "max_position_embeddings",
        },
        layer="transformer.layer.{}.",
        parts={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "output": "attention.out_lin",
            "mechanism_norm": "sa_layer_norm",
            "up_proj": "ffn.lin1",
            "down_proj": "ffn.lin2",
            "feed_forward_norm": "output_layer_norm",
        },
        tokens="embeddings.word_embeddings",
        positions="embeddings.position_embeddings",
        embedding_norm="embeddings.LayerNorm",
    ),
    "gpt2": Family(
        prefix="transformer.",
        settings={
            "depth": "n_layer",
            "width": "n_embd",
            "heads": "n_head",
            "hidden": "n_inner",
            "activation": "activation_function",
            "eps": "layer_norm_epsilon",
            "positions": "n_positions",
        },
        layer="h.{}.",
        parts={
            "query": "attn.c_attn#0",
            "key": "attn.c_attn#1",
            "value": "attn.c_attn#2",
            "output": "attn.c_proj",
            "mechanism_norm": "ln_1",
            "up_proj": "mlp.c_fc",
            "down_proj": "mlp.c_proj",
            "feed_forward_norm": "ln_2",
        },
        tokens="wte",
        positions="wpe",
        final_norm="ln_f",
        activations={"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "relu": "relu"},
        refused={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        norm_first=True,
        transposed=True,
        causal=True,
    ),
    "llama": Family(
        prefix="model.",
        settings={**_BERT_SETTINGS, "kv_heads": "num_key_value_heads", "eps": "rms_norm_eps"},
        layer="layers.{}.",
        parts={
            "query": "self_attn.q_proj",
            "key": "self_attn.k_proj",
            "value": "self_attn.v_proj",
            "output": "self_attn.o_proj",
            "mechanism_norm": "input_layernorm",
            "up_proj": "mlp.up_proj",
            "gate_proj": "mlp.gate_proj",
            "down_proj": "mlp.down_proj",
            "feed_forward_norm": "post_attention_layernorm",
        },
        tokens="embed_tokens",
        final_norm="norm",
        activations={"silu": "swiglu"},
        refused={
            "mlp_bias": False,
            "sliding_window": None,
            "partial_rotary_factor": 1.0,
        },
        norm_first=True,
        rms_norm=True,
        biases=False,
        causal=True,
        rotary=True,
        ties_head=False,
    ),
    "vit": Family(prefix="vit.", class_tokens=["embeddings.cls_token"], **_VIT),  # type: ignore[arg-type]
    "deit": Family(
        prefix="deit.",
        class_tokens=["embeddings.cls_token", "embeddings.distillation_token"],
        **_VIT,  # type: ignore[arg-type]
    ),
}
