"""Properties of every mechanism with cross-attention; the others must raise the reason."""

from __future__ import annotations

import pytest
import references
import references_kernels
import references_sparse
import test_attention
import torch
from test_attention import (
    LENGTH,
    WIDTH,
    Row,
    close,
    no_padding,
    padding_content,
    parametrize,
    same_weights,
    some_padding,
    tokens,
)

from spaces.attention import Mechanism, SourceCache
from spaces.attention.adaptive_span import AdaptiveSpanAttention
from spaces.attention.bigbird import BigBirdAttention
from spaces.attention.delta import DeltaAttention
from spaces.attention.entmax import EntmaxAttention
from spaces.attention.fnet import FNetAttention
from spaces.attention.gated import GatedAttention
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.local import LocalAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.nystromformer import NystromformerAttention
from spaces.attention.performer import PerformerAttention
from spaces.attention.reformer import ReformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.attention.synthesizer import SynthesizerAttention
from spaces.attention.topk import TopkAttention

ROWS = [
    Row(SoftmaxAttention, references.softmax),
    Row(SoftmaxAttention, references.softmax, {"heads": 6, "kv_heads": 2}),
    *(
        Row(LinformerAttention, references.linformer, {"rank": 5, "sharing": sharing})
        for sharing in ("none", "headwise", "key-value")
    ),
    *(
        Row(LinearAttention, references_kernels.linear, {"feature_map": f})
        for f in ("elu", "relu", "softmax", "hedgehog")
    ),
    Row(PerformerAttention, references_kernels.performer, {"features": 11}),
    Row(NystromformerAttention, references_kernels.nystromformer, {"landmarks": 5}),
    Row(EntmaxAttention, references_sparse.entmax, {"alpha": 1.7}),
    Row(TopkAttention, references_sparse.topk, {"k": 5}),
]
every_row = parametrize(ROWS)


def queries(m: int, *, batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Query tokens; those of :func:`tokens` are the source."""
    return tokens(m, batch=batch, seed=4, dtype=dtype)


def attend(
    mechanism: Mechanism, x: torch.Tensor, source: torch.Tensor, padding: torch.Tensor | None = None
) -> torch.Tensor:
    return mechanism.cross_attend(x, mechanism.encode_source(source, padding))


@every_row
@pytest.mark.parametrize(
    ("m", "n", "pad"),
    [
        (1, LENGTH, no_padding),
        (7, 1, no_padding),
        pytest.param(7, 2, no_padding, marks=pytest.mark.slow),
        (LENGTH + 9, 7, no_padding),
        pytest.param(1, 7, some_padding, marks=pytest.mark.slow),
        (33, 32, some_padding),
    ],
)
def test_output_and_gradients_agree_with_the_dense_reference(row, m, n, pad):
    mechanism = row.build().double()
    x, source = queries(m, dtype=torch.float64).requires_grad_(), tokens(n, dtype=torch.float64).requires_grad_()
    padding = pad(source)
    leaves = [x, source, *mechanism.parameters()]
    towards = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    expected = row.reference(mechanism, x, ~padding, source)
    expected_grads = torch.autograd.grad((expected * towards).sum(), leaves, materialize_grads=True)
    for given in [padding] if padding.any() else [padding, None]:
        actual = attend(mechanism, x, source, given)
        grads = torch.autograd.grad((actual * towards).sum(), leaves, materialize_grads=True)
        close(actual, expected, 1e-9)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            close(grad, expected_grad, 1e-9)


@every_row
def test_outputs_are_independent_of_content_and_amount_of_padding(row):
    mechanism, x, source = row.build(), queries(5), tokens(17)
    alone = attend(mechanism, x, source)
    for amount in (1, 8, LENGTH - 17):
        longer = torch.cat([source, padding_content(amount)], dim=1)
        close(attend(mechanism, x, longer, torch.arange(17 + amount).expand(2, -1) >= 17), alone)


@every_row
def test_padded_content_receives_no_gradient(row):
    mechanism, x, source = row.build(), queries(5), tokens(17).requires_grad_()
    padding = some_padding(source)
    attend(mechanism, x, source, padding).square().sum().backward()
    assert (source.grad[padding] == 0).all()
    assert source.grad[~padding].abs().sum() > 0


@every_row
def test_samples_of_a_batch_are_independent(row):
    mechanism, x, source = row.build(), queries(5, batch=3), tokens(23, batch=3)
    padding = no_padding(source)
    padding[0, 9:] = True
    padding[1, :] = True
    together = attend(mechanism, x, source, padding)
    for sample in range(3):
        one = slice(sample, sample + 1)
        close(together[one], attend(mechanism, x[one], source[one], padding[one]))
    x[0] = source[0] = float("nan")
    close(attend(mechanism, x, source, padding)[1:], together[1:])


@every_row
def test_a_token_does_not_attend_to_its_own_sequence(row):
    mechanism, x, source = row.build(), queries(5), tokens(17)
    padding = some_padding(source)
    together = attend(mechanism, x, source, padding)
    for t in range(5):
        close(attend(mechanism, x[:, t : t + 1], source, padding), together[:, t : t + 1])
    x[:, 3:] = float("nan")
    close(attend(mechanism, x, source, padding)[:, :3], together[:, :3])


@every_row
@pytest.mark.parametrize("pad", [no_padding, some_padding])
def test_a_source_cache_can_be_reused_and_indexed_by_sample(row, pad):
    mechanism, x, source = row.build(), queries(5, batch=3), tokens(17, batch=3)
    padding = pad(source)
    expected = attend(mechanism, x, source, padding)
    cache = mechanism.encode_source(source, padding)
    for t in range(5):
        close(mechanism.cross_attend(x[:, t : t + 1], cache), expected[:, t : t + 1])
    order = torch.tensor([2, 0, 0])
    selected = SourceCache(tuple(tensor[order] for tensor in cache.tensors), padding[order])
    close(mechanism.cross_attend(x[order], selected), expected[order])


@every_row
@pytest.mark.parametrize("pad", [no_padding, some_padding])
def test_cross_attention_of_a_sequence_to_itself_equals_forward(row, pad):
    mechanism, x = row.build(), tokens(19)
    padding = pad(x)
    mixed = attend(mechanism, x, x, padding)
    close(mixed.masked_fill(padding[..., None], 0.0), mechanism(x, padding))


@every_row
def test_an_all_padding_source_gives_zeros_and_finite_gradients(row):
    mechanism, x, source = row.build(), queries(5).requires_grad_(), tokens(9).requires_grad_()
    torch.nn.init.ones_(mechanism.output.bias)
    padding = no_padding(source)
    padding[0] = True
    out = attend(mechanism, x, source, padding)
    assert (out[0] == 0).all()
    assert (out[1] != 0).any()
    out.square().sum().backward()
    assert (x.grad[0] == 0).all()
    assert (source.grad[0] == 0).all()
    for leaf in (x, source, *mechanism.parameters()):
        assert leaf.grad is None or leaf.grad.isfinite().all()


@every_row
def test_a_loaded_state_dict_reproduces_the_outputs(row):
    saved, loaded, x, source = row.build(seed=0), row.build(seed=5), queries(5), tokens(19)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(attend(loaded, x, source), attend(saved, x, source))


@every_row
def test_single_precision_agrees_with_the_dense_reference(row):
    mechanism, x, source = row.build(), queries(9), tokens(LENGTH)
    padding = some_padding(source)
    actual = attend(mechanism, x, source, padding)
    close(actual.double(), row.reference(mechanism.double(), x.double(), ~padding, source.double()), 1e-5)


@every_row
def test_outputs_and_gradients_are_finite_under_autocast(row):
    mechanism, x, source = row.build(), queries(5).requires_grad_(), tokens(19).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(mechanism, x, source, some_padding(source))
    out.sum().backward()
    assert all(each.isfinite().all() for each in (out, x.grad, source.grad))


@every_row
def test_runs_on_the_meta_device_and_with_an_empty_batch(row):
    assert attend(row.build(), queries(5, batch=0), tokens(9, batch=0)).shape == (0, 5, WIDTH)
    with torch.device("meta"):
        x, source, padding = torch.empty(2, 5, WIDTH), torch.empty(2, 19, WIDTH), torch.empty(2, 19, dtype=torch.bool)
        assert attend(row.build(), x, source, padding).shape == x.shape


@every_row
def test_length_limits_the_source_but_not_the_queries(row):
    attend(row.build(), queries(LENGTH + 1), tokens(LENGTH))
    with pytest.raises(ValueError, match=f"a sequence of {LENGTH + 1} tokens.*length={LENGTH}"):
        attend(row.build(), queries(3), tokens(LENGTH + 1))


@pytest.mark.parametrize("n", [1, 6, 9])
def test_nystromformer_with_every_source_token_a_landmark_equals_full_attention(n):
    mechanism = row_of(NystromformerAttention).build(landmarks=n, pinv_iterations=40).double()
    full = same_weights(row_of(SoftmaxAttention).build().double(), mechanism)
    # Tokens that are far apart make well-conditioned matrices, for which the pseudo-inverse converges.
    x, source = queries(4, dtype=torch.float64), 3 * tokens(n, dtype=torch.float64)
    close(attend(mechanism, x, source), attend(full, x, source), 1e-6)


def row_of(mechanism: type) -> Row:
    return next(row for row in ROWS if row.mechanism is mechanism)


# --- refusals -----------------------------------------------

REFUSED = [
    (LocalAttention, {"block_size": 4}, "its blocks pair tokens by position"),
    (BigBirdAttention, {"block_size": 4}, "its plan pairs blocks by position"),
    (LongformerAttention, {"window": 3}, "tokens of two sequences have no distance"),
    (AdaptiveSpanAttention, {"max_span": 3}, "tokens of two sequences have no distance"),
    (ReformerAttention, {"bucket_size": 4}, "its keys are its queries"),
    (SynthesizerAttention, {"mode": "random"}, "its weights do not depend on the keys"),
    (GatedAttention, {}, "its weights decay from token to token"),
    (DeltaAttention, {}, "its memory is read while it is written"),
    (FNetAttention, {}, "its transform runs along one"),
    (
        NystromformerAttention,
        {"landmarks": 4, "conv_kernel_size": 3},
        "construct the mechanism with conv_kernel_size=0",
    ),
    (SoftmaxAttention, {"causal": True}, "construct the mechanism with causal=False"),
    *(
        (mechanism, {"rope": True} | knobs, "construct the mechanism with rope=False")
        for mechanism, knobs in ((SoftmaxAttention, {}), (EntmaxAttention, {}), (TopkAttention, {"k": 4}))
    ),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("mechanism", "knobs", "reason"), REFUSED, ids=[refused[0].__name__ for refused in REFUSED])
def test_a_mechanism_without_cross_attention_raises_the_reason(mechanism, knobs, reason, device):
    with torch.device(device):
        built, x = Row(mechanism, references.softmax, knobs).build(), torch.zeros(0, 1, WIDTH)
        with pytest.raises(ValueError, match=reason):
            built.encode_source(x)


WITH_CROSS_ATTENTION = {row.mechanism for row in ROWS}


@parametrize([row for row in test_attention.ROWS if row.mechanism not in WITH_CROSS_ATTENTION])
def test_a_mechanism_without_a_row_here_refuses_cross_attention(row):
    with pytest.raises(ValueError, match="another sequence"):
        row.build().encode_source(tokens(5))
