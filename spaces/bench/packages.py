"""Modules of public packages, ``(batch, n, width)`` to the same, in settings equal to ours.

Where a package lacks projections, it gets ours: queries, keys and values without bias, an output with. ``written-out``
is what is written without a fused kernel: logits, softmax, product.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.attention.synthesizer import SynthesizerAttention
from spaces.bench.implementations import Size


class Projected(nn.Module):
    """Projections around a function of ``q, k, v`` ``(batch, heads, n, head_width)``."""

    def __init__(self, size: Size, core: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.core = size.heads, core
        self.query, self.key, self.value = (nn.Linear(size.width, size.width, bias=False) for _ in range(3))
        self.output = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        """Project, mix, project."""
        q, k, v = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        return self.output(self.core(q, k, v).transpose(1, 2).flatten(2))


class Called(nn.Module):
    """A package's module, called in its own way, and an output projection unless it has one."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor], Tensor], output: nn.Module) -> None:
        super().__init__()
        self.inner, self.call, self.output = inner, call, output

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens."""
        return self.output(self.call(self.inner, x))


def multihead(size: Size, *, causal: bool) -> nn.Module:
    """PyTorch's own module."""
    inner = nn.MultiheadAttention(size.width, size.heads, batch_first=True)
    return Called(inner, lambda inner, x: inner(x, x, x, need_weights=False)[0], nn.Identity())


def naive(size: Size, *, causal: bool) -> nn.Module:
    """Softmax attention, written out."""
    return Projected(size, lambda q, k, v: _logits(q, k).softmax(-1) @ v)


def _logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT * q.shape[-1] ** -0.5


def local_attention(size: Size, *, causal: bool) -> nn.Module:
    """The local-attention package, with a window as sharp as ours."""
    core = importlib.import_module("local_attention").LocalAttention(
        min(64, size.length),
        causal=causal,
        look_forward=0 if causal else 1,
        exact_windowsize=True,
        use_rotary_pos_emb=False,
    )
    return Projected(size, core)


def longformer(size: Size, *, causal: bool) -> nn.Module:
    """Hugging Face's, whose window counts both sides."""
    module = importlib.import_module("transformers.models.longformer.modeling_longformer")
    config = module.LongformerConfig(
        **_hugging_face(size), attention_window=[min(128, size.length)], attention_probs_dropout_prob=0.0
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

    return Called(module.LongformerSelfAttention(config, 0), call, nn.Linear(size.width, size.width))


def _hugging_face(size: Size) -> dict[str, int]:
    return {"hidden_size": size.width, "num_attention_heads": size.heads}


def linformer(size: Size, *, causal: bool) -> nn.Module:
    """The linformer package."""
    package = importlib.import_module("linformer")
    inner: nn.Module = package.LinformerSelfAttention(
        size.width, size.length, k=min(128, size.length), heads=size.heads
    )
    return inner


def reformer_1(size: Size, *, causal: bool) -> nn.Module:
    """The reformer-pytorch package with one round."""
    return _reformer_pytorch(size, causal=causal, rounds=1)


def reformer_4(size: Size, *, causal: bool) -> nn.Module:
    """The reformer-pytorch package with four rounds."""
    return _reformer_pytorch(size, causal=causal, rounds=4)


def _reformer_pytorch(size: Size, *, causal: bool, rounds: int) -> nn.Module:
    package = importlib.import_module("reformer_pytorch")
    bucket = min(64, size.length // 2)
    inner: nn.Module = package.LSHSelfAttention(
        size.width, size.heads, bucket_size=bucket, n_hashes=rounds, causal=causal
    )
    return inner


def reformer_of_transformers(size: Size, *, causal: bool) -> nn.Module:
    """Hugging Face's with four rounds and as many buckets as it chooses itself."""
    importlib.import_module("transformers").logging.set_verbosity_error()  # it would tell its choice
    module = importlib.import_module("transformers.models.reformer.modeling_reformer")
    chunk = min(64, size.length // 2)
    config = module.ReformerConfig(
        **_hugging_face(size),
        attention_head_size=size.width // size.heads,
        num_hashes=4,
        lsh_attn_chunk_length=chunk,
        lsh_attention_probs_dropout_prob=0.0,
        is_decoder=causal,
    )
    inner = module.LSHSelfAttention(config)
    return Called(inner, lambda inner, x: inner(x).hidden_states, nn.Linear(size.width, size.width))


def performer(size: Size, *, causal: bool) -> nn.Module:
    """The performer-pytorch package, causal without its CUDA extension."""
    package = importlib.import_module("performer_pytorch")
    inner: nn.Module = package.SelfAttention(
        size.width, causal=causal, heads=size.heads, dim_head=size.width // size.heads, nb_features=128
    )
    return inner


def linear(size: Size, *, causal: bool) -> nn.Module:
    """The linear-attention-transformer package: softmax for features, and no denominator unless causal."""
    package = importlib.import_module("linear_attention_transformer.linear_attention_transformer")
    inner: nn.Module = package.SelfAttention(size.width, size.heads, causal=causal)
    return inner


def nystrom(size: Size, *, causal: bool) -> nn.Module:
    """The nystrom-attention package with its convolution over 33 tokens."""
    package = importlib.import_module("nystrom_attention")
    inner: nn.Module = package.NystromAttention(
        size.width, dim_head=size.width // size.heads, heads=size.heads, num_landmarks=min(64, size.length)
    )
    return inner


def nystrom_of_transformers(size: Size, *, causal: bool) -> nn.Module:
    """Hugging Face's, with the same convolution."""
    module = importlib.import_module("transformers.models.nystromformer.modeling_nystromformer")
    config = module.NystromformerConfig(
        **_hugging_face(size),
        num_landmarks=min(64, size.length),
        segment_means_seq_len=size.length,
        conv_kernel_size=33,
        attention_probs_dropout_prob=0.0,
    )
    inner = module.NystromformerSelfAttention(config)
    return Called(inner, lambda inner, x: inner(x)[0], nn.Linear(size.width, size.width))


def bigbird(size: Size, *, causal: bool) -> nn.Module:
    """Hugging Face's, three random blocks, the first and the last global."""
    module = importlib.import_module("transformers.models.big_bird.modeling_big_bird")
    config = module.BigBirdConfig(
        **_hugging_face(size), block_size=64, num_random_blocks=3, attention_probs_dropout_prob=0.0
    )

    def call(inner: Any, x: Tensor) -> Tensor:
        blocked, band, rows, columns = module.BigBirdModel.create_masks_for_block_sparse_attn(
            torch.ones(x.shape[:2], dtype=x.dtype, device=x.device), 64
        )
        mixed: Tensor = inner(x, band, rows, columns, blocked, blocked)[0]
        return mixed

    return Called(module.BigBirdBlockSparseAttention(config, seed=0), call, nn.Linear(size.width, size.width))


class WrittenOutSynthesizer(SynthesizerAttention):
    """A mode of ours that holds its weights."""

    def mix(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """Logits, softmax, product; logits that are equal in all samples once."""
        n = x.shape[1]
        if self.parts == ["dense"]:
            logits = self.split(F.relu(self.hidden(x))) @ self.positions[:, :n].mT
        elif self.parts == ["random"]:
            logits = self.table[:, :n, :n]
        else:
            logits = self.factors[0, :, :n] @ self.factors[1, :, :n].mT
        return self.output(self.merge(logits.softmax(-1) @ self.split(self.value(x))))


def synthesizer_dense(size: Size, *, causal: bool) -> nn.Module:
    """Written out."""
    return WrittenOutSynthesizer(width=size.width, heads=size.heads, length=size.length, mode="dense")


def synthesizer_random(size: Size, *, causal: bool) -> nn.Module:
    """Written out."""
    return WrittenOutSynthesizer(width=size.width, heads=size.heads, length=size.length, mode="random")


def synthesizer_factorised(size: Size, *, causal: bool) -> nn.Module:
    """Written out, of rank 32."""
    return WrittenOutSynthesizer(
        width=size.width, heads=size.heads, length=size.length, mode="factorised", rank=min(32, size.length)
    )


def entmax_15(size: Size, *, causal: bool) -> nn.Module:
    """The entmax package's exact algorithm, for alpha = 1.5 alone."""
    package = importlib.import_module("entmax")
    return Projected(size, lambda q, k, v: package.entmax15(_logits(q, k)) @ v)


def entmax_bisect(size: Size, *, causal: bool) -> nn.Module:
    """The entmax package's for any alpha, learned by each head as ours is."""
    package = importlib.import_module("entmax")
    module = Projected(size, lambda q, k, v: package.entmax_bisect(_logits(q, k), module.alpha) @ v)
    module.alpha = nn.Parameter(torch.full((size.heads, 1, 1), 1.5))
    return module
