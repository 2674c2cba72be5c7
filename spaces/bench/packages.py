"""Modules of public packages, ``(batch, n, width)`` to the same shape, in the settings of our mechanisms.

A package without projections gets ours: query, key and value without bias, output with bias. ``written-out`` is plain
PyTorch without a fused kernel: logits, softmax, matrix product.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention import Shape
from spaces.attention.synthesizer import SynthesizerAttention


class Projected(nn.Module):
    """Query, key, value and output projections around a function of ``q, k, v`` ``(batch, heads, n, head_dim)``."""

    def __init__(self, shape: Shape, core: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.core = shape.heads, core
        self.query, self.key, self.value = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(3))
        self.output = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Project, attend, project."""
        q, k, v = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        return self.output(self.core(q, k, v).transpose(1, 2).flatten(2))


class Called(nn.Module):
    """Adapts the call of a package's module, and adds an output projection unless it has one."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor], Tensor], output: nn.Module) -> None:
        super().__init__()
        self.inner, self.call, self.output = inner, call, output

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, n, width)`` to the same shape."""
        return self.output(self.call(self.inner, x))


def multihead(shape: Shape) -> nn.Module:
    """``torch.nn.MultiheadAttention``."""
    inner = nn.MultiheadAttention(shape.width, shape.heads, batch_first=True)
    return Called(inner, lambda inner, x: inner(x, x, x, need_weights=False)[0], nn.Identity())


def naive(shape: Shape) -> nn.Module:
    """Softmax attention without a fused kernel."""
    return Projected(shape, lambda q, k, v: _logits(q, k).softmax(-1) @ v)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT * q.shape[-1] ** -0.5


def local_attention(shape: Shape) -> nn.Module:
    """The local-attention package with an exact window."""
    core = importlib.import_module("local_attention").LocalAttention(
        min(64, shape.length),
        causal=shape.causal,
        look_forward=0 if shape.causal else 1,
        exact_windowsize=True,
        use_rotary_pos_emb=False,
    )
    return Projected(shape, core)


def longformer(shape: Shape) -> nn.Module:
    """Hugging Face's; its ``attention_window`` is the sum of both sides."""
    module = importlib.import_module("transformers.models.longformer.modeling_longformer")
    config = module.LongformerConfig(
        **_hugging_face(shape), attention_window=[min(128, shape.length)], attention_probs_dropout_prob=0.0
    )

    def call(inner: Any, x: Tensor) -> Tensor:
        nowhere = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        mixed: Tensor = inner(
            x,
            attention_mask=nowhere.to(x.dtype),
            is_index_masked=nowhere,
            is_index_global_attn=nowhere,
            is_global_attn=False,
        )[0]
        return mixed

    return Called(module.LongformerSelfAttention(config, 0), call, nn.Linear(shape.width, shape.width))


def _hugging_face(shape: Shape) -> dict[str, int]:
    return {"hidden_size": shape.width, "num_attention_heads": shape.heads}


def linformer(shape: Shape) -> nn.Module:
    """The linformer package."""
    package = importlib.import_module("linformer")
    inner: nn.Module = package.LinformerSelfAttention(
        shape.width, shape.length, k=min(128, shape.length), heads=shape.heads
    )
    return inner


def reformer_1(shape: Shape) -> nn.Module:
    """The reformer-pytorch package with one round."""
    return _reformer_pytorch(shape, rounds=1)


def reformer_4(shape: Shape) -> nn.Module:
    """The reformer-pytorch package with four rounds."""
    return _reformer_pytorch(shape, rounds=4)


def _reformer_pytorch(shape: Shape, rounds: int) -> nn.Module:
    package = importlib.import_module("reformer_pytorch")
    bucket = min(64, shape.length // 2)
    inner: nn.Module = package.LSHSelfAttention(
        shape.width, shape.heads, bucket_size=bucket, n_hashes=rounds, causal=shape.causal
    )
    return inner


def reformer_of_transformers(shape: Shape) -> nn.Module:
    """Hugging Face's with four rounds and its default number of buckets."""
    importlib.import_module("transformers").logging.set_verbosity_error()  # it logs the number of buckets
    module = importlib.import_module("transformers.models.reformer.modeling_reformer")
    chunk = min(64, shape.length // 2)
    config = module.ReformerConfig(
        **_hugging_face(shape),
        attention_head_size=shape.head_dim,
        num_hashes=4,
        lsh_attn_chunk_length=chunk,
        lsh_attention_probs_dropout_prob=0.0,
        is_decoder=shape.causal,
    )
    inner = module.LSHSelfAttention(config)
    return Called(inner, lambda inner, x: inner(x).hidden_states, nn.Linear(shape.width, shape.width))


def performer(shape: Shape) -> nn.Module:
    """The performer-pytorch package, causal without its CUDA extension."""
    package = importlib.import_module("performer_pytorch")
    inner: nn.Module = package.SelfAttention(
        shape.width, causal=shape.causal, heads=shape.heads, dim_head=shape.head_dim, nb_features=128
    )
    return inner


def linear(shape: Shape) -> nn.Module:
    """The linear-attention-transformer package: softmax feature maps; it normalises by the sum only when causal."""
    package = importlib.import_module("linear_attention_transformer.linear_attention_transformer")
    inner: nn.Module = package.SelfAttention(shape.width, shape.heads, causal=shape.causal)
    return inner


def nystrom(shape: Shape) -> nn.Module:
    """The nystrom-attention package with its convolution of kernel size 33."""
    package = importlib.import_module("nystrom_attention")
    inner: nn.Module = package.NystromAttention(
        shape.width, dim_head=shape.head_dim, heads=shape.heads, num_landmarks=min(64, shape.length)
    )
    return inner


def nystrom_of_transformers(shape: Shape) -> nn.Module:
    """Hugging Face's with the same convolution."""
    module = importlib.import_module("transformers.models.nystromformer.modeling_nystromformer")
    config = module.NystromformerConfig(
        **_hugging_face(shape),
        num_landmarks=min(64, shape.length),
        segment_means_seq_len=shape.length,
        conv_kernel_size=33,
        attention_probs_dropout_prob=0.0,
    )
    inner = module.NystromformerSelfAttention(config)
    return Called(inner, lambda inner, x: inner(x)[0], nn.Linear(shape.width, shape.width))


def bigbird(shape: Shape) -> nn.Module:
    """Hugging Face's with three random blocks; the first and the last block are global."""
    module = importlib.import_module("transformers.models.big_bird.modeling_big_bird")
    config = module.BigBirdConfig(
        **_hugging_face(shape), block_size=64, num_random_blocks=3, attention_probs_dropout_prob=0.0
    )

    def call(inner: Any, x: Tensor) -> Tensor:
        blocked, band, rows, columns = module.BigBirdModel.create_masks_for_block_sparse_attn(
            torch.ones(x.shape[:2], dtype=x.dtype, device=x.device), 64
        )
        mixed: Tensor = inner(x, band, rows, columns, blocked, blocked)[0]
        return mixed

    return Called(module.BigBirdBlockSparseAttention(config, seed=0), call, nn.Linear(shape.width, shape.width))


class WrittenOutSynthesizer(SynthesizerAttention):
    """Our synthesizer, computed without a fused kernel."""

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Logits, softmax, matrix product; logits that do not depend on the tokens are computed once for the batch."""
        n = x.shape[1]
        if self.parts == ["dense"]:
            logits = self.split_heads(F.relu(self.hidden(x))) @ self.positions[:, :n].mT
        elif self.parts == ["random"]:
            logits = self.table[:, :n, :n]
        else:
            logits = self.factors[0, :, :n] @ self.factors[1, :, :n].mT
        return self.output(self.merge_heads(logits.softmax(-1) @ self.split_heads(self.value(x))))


def synthesizer_dense(shape: Shape) -> nn.Module:
    """Mode ``dense``."""
    return WrittenOutSynthesizer(shape, mode="dense")


def synthesizer_random(shape: Shape) -> nn.Module:
    """Mode ``random``."""
    return WrittenOutSynthesizer(shape, mode="random")


def synthesizer_factorised(shape: Shape) -> nn.Module:
    """Mode ``factorised`` with rank 32."""
    return WrittenOutSynthesizer(shape, mode="factorised", rank=min(32, shape.length))


def entmax_15(shape: Shape) -> nn.Module:
    """The entmax package's exact algorithm for alpha = 1.5."""
    package = importlib.import_module("entmax")
    return Projected(shape, lambda q, k, v: package.entmax15(_logits(q, k)) @ v)


def entmax_bisect(shape: Shape) -> nn.Module:
    """The entmax package's bisection for any alpha, learned per head as in ours."""
    package = importlib.import_module("entmax")
    module = Projected(shape, lambda q, k, v: package.entmax_bisect(_logits(q, k), module.alpha) @ v)
    module.alpha = nn.Parameter(torch.full((shape.heads, 1, 1), 1.5))
    return module
