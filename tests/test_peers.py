"""Mechanisms against public packages that hold the same one: equal weights must give equal outputs and gradients.

A pair of modules is one function. Where the two differ by definition it says so, and what the package is given is
changed accordingly, by a power of head_dim for example; never the tolerance. Needs ``.[peers]``; what is not
installed is skipped.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spaces.attention import Shape
from spaces.attention.bigbird import BigBirdAttention
from spaces.attention.entmax import entmax
from spaces.attention.fnet import FNetAttention
from spaces.attention.kernels.blocks import ABSENT
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.local import LocalAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.nystromformer import NystromformerAttention
from spaces.attention.performer import PerformerAttention
from spaces.attention.reformer import ReformerAttention
from spaces.attention.softmax import SoftmaxAttention

WIDTH, HEADS, LENGTH = 12, 2, 48
HEAD_DIM = WIDTH // HEADS
SHAPE = Shape(WIDTH, HEADS, LENGTH)


def package(name):
    """The package; skips the test if it is not installed."""
    with warnings.catch_warnings():
        # performer-pytorch 1.1.4, of 2022 and its last: it compares versions by distutils.
        warnings.filterwarnings("ignore", "distutils Version classes are deprecated", DeprecationWarning)
        return pytest.importorskip(name)


@torch.no_grad()
def give(theirs: nn.Linear, ours: nn.Linear, scale=1.0):
    """Copy the weights of ours to theirs; its bias is set to 0 where ours has none."""
    theirs.weight.copy_(scale * ours.weight)
    if theirs.bias is not None:
        theirs.bias.zero_() if ours.bias is None else theirs.bias.copy_(ours.bias)


def give_projections(theirs, ours, decoder_input_ids="", suffix="", names=("query", "key", "value")):
    for mine, name in zip(("query", "key", "value"), names, strict=True):
        give(getattr(theirs, name + suffix), getattr(ours, decoder_input_ids + mine))


def untied(mechanism):
    """``ours`` in double precision with key projections that differ from the query projections."""
    torch.manual_seed(0)
    for name, parameter in mechanism.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=WIDTH**-0.5)
    return mechanism.double().eval()


def multihead(causal):
    ours = untied(SoftmaxAttention(replace(SHAPE, causal=causal)))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double().eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.zero_()
    give(theirs.out_proj, ours.output)
    later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if causal else None
    return ours, lambda x: theirs(x, x, x, need_weights=False, attn_mask=later)[0]


def linformer():
    theirs = package("linformer").LinformerSelfAttention(WIDTH, LENGTH, k=7, heads=HEADS).double()
    ours = untied(LinformerAttention(SHAPE, rank=7))
    give_projections(theirs, ours, names=("to_q", "to_k", "to_v"))
    give(theirs.to_out, ours.output)
    with torch.no_grad():
        theirs.proj_k.copy_(ours.projections[0].T)
        theirs.proj_v.copy_(ours.projections[1].T)
    return ours, theirs


def longformer_of_transformers(global_tokens):
    """Its window is the sum of both sides; its softmax is always in single precision."""
    longformer = package("transformers.models.longformer.modeling_longformer")
    config = longformer.LongformerConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, attention_window=[8], attention_probs_dropout_prob=0.0
    )
    theirs = longformer.LongformerSelfAttention(config, 0)
    ours = untied(LongformerAttention(SHAPE, window=4, global_tokens=global_tokens)).float()
    give_projections(theirs, ours)
    leading = (torch.arange(LENGTH) < global_tokens).expand(2, -1)
    if global_tokens:
        give_projections(theirs, ours, "global_", "_global")

    def run(x):
        (mixed,) = theirs(
            x,
            attention_mask=leading * 10000.0,
            is_index_masked=torch.zeros_like(leading),
            is_index_global_attn=leading,
            is_global_attn=global_tokens > 0,
        )
        return ours.output(mixed)

    return ours, run


def window_of_local_attention(causal):
    return _local_attention(LongformerAttention(replace(SHAPE, causal=causal), window=6), 6, exact_windowsize=True)


def blocks_of_local_attention(causal):
    return _local_attention(LocalAttention(replace(SHAPE, causal=causal), block_size=6, neighbours=1), 6)


def _local_attention(ours, size, **settings):
    theirs = package("local_attention").LocalAttention(
        size, causal=ours.causal, look_forward=0 if ours.causal else 1, use_rotary_pos_emb=False, **settings
    )
    untied(ours)

    def run(x):
        q, k, v = (ours.split_heads(each(x)) for each in (ours.query, ours.key, ours.value))
        return ours.output(ours.merge_heads(theirs(q, k, v)))

    return ours, run


def reformer_pytorch(causal):
    """It divides logits by sqrt(head_dim), and all heads share hash directions; one round, because its first chunk of
    a later round attends to the last chunk of the previous round."""
    ours = untied(ReformerAttention(replace(SHAPE, causal=causal), bucket_size=6))
    theirs = package("reformer_pytorch").LSHSelfAttention(WIDTH, HEADS, bucket_size=6, n_hashes=1, causal=causal)
    theirs = theirs.double().eval()
    give(theirs.toqk, ours.query_key, HEAD_DIM**0.5)
    give(theirs.tov, ours.value)
    give(theirs.to_out, ours.output)
    ours.directions.copy_(drawn(HEAD_DIM, LENGTH // 12))

    def run(x):
        torch.manual_seed(7)
        return theirs(x)

    return ours, run


def reformer_of_transformers(causal):
    """It adds 1e-6 to the mean square of a key before normalisation; it has no output projection."""
    reformer = package("transformers.models.reformer.modeling_reformer")
    ours = untied(ReformerAttention(replace(SHAPE, causal=causal), bucket_size=6))
    config = reformer.ReformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        attention_head_size=HEAD_DIM,
        num_hashes=1,
        num_buckets=LENGTH // 6,
        lsh_attn_chunk_length=6,
        lsh_attention_probs_dropout_prob=0.0,
        is_decoder=causal,
        hash_seed=7,
    )
    theirs = reformer.LSHSelfAttention(config).double().eval()
    theirs._len_norm = functools.partial(theirs._len_norm, epsilon=0.0)
    give(theirs.query_key, ours.query_key)
    give(theirs.value, ours.value)
    ours.directions.copy_(drawn(HEADS, HEAD_DIM, LENGTH // 12))
    return ours, lambda x: ours.output(theirs(x).hidden_states)


def drawn(*shape):
    """The first random numbers of a package after seed 7."""
    torch.manual_seed(7)
    return torch.randn(shape, dtype=torch.float64)


def performer(causal):
    """It adds 1e-4 to the features of queries and keys, ours adds 1e-6 to those of queries; both are set to 0."""
    module = package("performer_pytorch.performer_pytorch")
    ours = untied(PerformerAttention(replace(SHAPE, causal=causal), features=16))
    theirs = module.SelfAttention(WIDTH, causal=causal, heads=HEADS, dim_head=HEAD_DIM, nb_features=16)
    theirs = theirs.double().eval()
    give_projections(theirs, ours, names=("to_q", "to_k", "to_v"))
    give(theirs.to_out, ours.output)
    theirs.fast_attention.projection_matrix.copy_(ours.directions.T)
    if causal:
        theirs.fast_attention.causal_linear_fn = functools.partial(module.causal_linear_attention_noncuda, eps=0.0)

    def run(x):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "softmax_kernel", functools.partial(module.softmax_kernel, eps=0.0))
            return theirs(x)

    def run_ours(x):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("spaces.attention.performer.EPSILON", 0.0)
            return ours(x)

    return run_ours, run


def linear_attention_transformer():
    """It divides queries by sqrt(head_dim) after their softmax."""
    theirs = package("linear_attention_transformer.linear_attention_transformer").SelfAttention(WIDTH, HEADS).double()
    ours = untied(LinearAttention(SHAPE, feature_map="softmax"))
    give_projections(theirs, ours, names=("to_q", "to_k", "to_v"))
    give(theirs.to_v, ours.value, HEAD_DIM**0.5)
    give(theirs.to_out, ours.output)
    return ours, theirs


# Both packages begin the inverse with one number for all samples and heads, so that one sample changes another; with
# one of each there is no difference.
ONE_HEAD = Shape(WIDTH, 1, LENGTH)
ITERATIONS = 6  # the paper's: far from converged, so that the way there is compared


def nystrom_attention(conv_kernel_size):
    theirs = package("nystrom_attention").NystromAttention(
        WIDTH,
        dim_head=WIDTH,
        heads=1,
        num_landmarks=8,
        pinv_iterations=ITERATIONS,
        residual=conv_kernel_size > 0,
        residual_conv_kernel=conv_kernel_size,
    )
    theirs = theirs.double()
    ours = untied(
        NystromformerAttention(ONE_HEAD, landmarks=8, pinv_iterations=ITERATIONS, conv_kernel_size=conv_kernel_size)
    )
    with torch.no_grad():
        theirs.to_qkv.weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        if conv_kernel_size:
            theirs.res_conv.weight.copy_(ours.taps[:, None, :, None])
    give(theirs.to_out[0], ours.output)
    return ours, lambda x: torch.cat([theirs(sample) for sample in x.split(1)])


def nystrom_of_transformers():
    module = package("transformers.models.nystromformer.modeling_nystromformer")
    config = module.NystromformerConfig(
        hidden_size=WIDTH,
        num_attention_heads=1,
        num_landmarks=8,
        segment_means_seq_len=LENGTH,
        conv_kernel_size=5,
        attention_probs_dropout_prob=0.0,
    )
    theirs = module.NystromformerSelfAttention(config).double()
    theirs.iterative_inv = functools.partial(theirs.iterative_inv, n_iter=ITERATIONS)
    ours = untied(NystromformerAttention(ONE_HEAD, landmarks=8, pinv_iterations=ITERATIONS, conv_kernel_size=5))
    give_projections(theirs, ours)
    with torch.no_grad():
        theirs.conv.weight.copy_(ours.taps[:, None, :, None])
    return ours, lambda x: ours.output(torch.cat([theirs(sample)[0] for sample in x.split(1)]))


def bigbird():
    """It has random blocks in train mode only, drawn per head, and its first and last blocks are global; ours is given
    its plan."""
    module = package("transformers.models.big_bird.modeling_big_bird")
    block = 4
    blocks = LENGTH // block
    config = module.BigBirdConfig(
        hidden_size=WIDTH,
        num_attention_heads=1,
        block_size=block,
        num_random_blocks=2,
        attention_probs_dropout_prob=0.0,
    )
    theirs = module.BigBirdBlockSparseAttention(config, seed=3).double().train()
    ours = untied(BigBirdAttention(ONE_HEAD, block_size=block, random_blocks=2, global_blocks=1))
    give_projections(theirs, ours)
    state = np.random.get_state()
    np.random.seed(3)
    lengths, counts = theirs._get_rand_attn_plan(LENGTH, block, 2)
    (drawn_blocks,) = theirs._bigbird_block_rand_mask_with_head(LENGTH, LENGTH, block, block, 1, lengths, counts)
    rows = [[0]]
    for i, at_random in enumerate(drawn_blocks.tolist(), start=1):
        rows.append([*{0, i - 1, i, i + 1, blocks - 1}, *at_random])
    rows.append([*range(blocks)])
    ours.plan = torch.tensor([row + [ABSENT] * (blocks - len(row)) for row in rows])

    def run(x):
        ones = torch.ones(x.shape[:2], dtype=x.dtype)
        blocked, band, rows, columns = module.BigBirdModel.create_masks_for_block_sparse_attn(ones, block)
        mixed, _ = theirs(x, band, rows, columns, blocked, blocked)
        np.random.set_state(state)
        return ours.output(mixed)

    return ours, run


def fourier():
    """It uses the unnormalised transform, as the paper does."""
    module = package("transformers.models.fnet.modeling_fnet")
    theirs = module.FNetBasicFourierTransform(module.FNetConfig(hidden_size=WIDTH))
    return FNetAttention(SHAPE), lambda x: theirs(x / (WIDTH * LENGTH) ** 0.5)[0]


PAIRS = {
    "softmax": functools.partial(multihead, False),
    "softmax-causal": functools.partial(multihead, True),
    "linformer": linformer,
    "longformer-transformers": functools.partial(longformer_of_transformers, 0),
    "longformer-transformers-global": functools.partial(longformer_of_transformers, 3),
    "longformer-local-attention": functools.partial(window_of_local_attention, False),
    "longformer-local-attention-causal": functools.partial(window_of_local_attention, True),
    "local-local-attention": functools.partial(blocks_of_local_attention, False),
    "local-local-attention-causal": functools.partial(blocks_of_local_attention, True),
    "reformer-pytorch": functools.partial(reformer_pytorch, False),
    "reformer-pytorch-causal": functools.partial(reformer_pytorch, True),
    "reformer-transformers": functools.partial(reformer_of_transformers, False),
    "reformer-transformers-causal": functools.partial(reformer_of_transformers, True),
    "performer": functools.partial(performer, False),
    "performer-causal": functools.partial(performer, True),
    "linear": linear_attention_transformer,
    "nystrom-attention": functools.partial(nystrom_attention, 0),
    "nystrom-attention-conv": functools.partial(nystrom_attention, 5),
    "nystrom-transformers": nystrom_of_transformers,
    "bigbird-transformers": bigbird,
    "fnet-transformers": fourier,
}


def tokens(dtype=torch.float64):
    return torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_equal_weights_give_equal_outputs_and_gradients(pair):
    ours, theirs = pair()
    single = isinstance(ours, LongformerAttention) and ours.output.weight.dtype == torch.float32
    x = tokens(torch.float32 if single else torch.float64)
    towards = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    results = []
    for function in (ours, theirs):
        at = x.clone().requires_grad_()
        y = function(at)
        results.append((y.detach(), *torch.autograd.grad(y, at, towards)))
    tolerance = 1e-5 if single else 1e-10
    for mine, their in zip(*results, strict=True):
        torch.testing.assert_close(mine, their, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.9, 2.0])
def test_entmax_equals_the_entmax_package(alpha):
    theirs = package("entmax")
    exact = {1.5: theirs.entmax15, 2.0: theirs.sparsemax}
    logits = 3 * torch.randn(5, 2, 7, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    towards = torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def run(function):
        at, exponent = logits.clone().requires_grad_(), torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
        weights = function(at, exponent)
        return weights.detach(), *torch.autograd.grad(weights, (at, exponent), towards)

    ours = run(entmax)
    for mine, their in zip(ours, run(functools.partial(theirs.entmax_bisect, n_iter=60)), strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-8, atol=1e-8)
    if alpha in exact:
        at = logits.clone().requires_grad_()
        weights = exact[alpha](at)
        torch.testing.assert_close(ours[0], weights.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours[1], *torch.autograd.grad(weights, at, towards), rtol=1e-10, atol=1e-10)
