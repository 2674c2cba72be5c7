"""Properties of single mechanisms and of their kernels, beyond those of all mechanisms."""

from __future__ import annotations

import math

import pytest
import references_kernels
import torch

from spaces.attention import Shape
from spaces.attention.delta import DeltaAttention, delta_scan, delta_step
from spaces.attention.fnet import FNetAttention, fourier
from spaces.attention.gated import GatedAttention
from spaces.attention.kernels.blocks import overlapping
from spaces.attention.kernels.scan import scan, scan_step
from spaces.attention.linear import LinearAttention
from spaces.attention.nystromformer import NystromformerAttention, convolved, pseudo_inverse
from spaces.attention.performer import PerformerAttention, orthogonal_directions
from spaces.attention.softmax import SoftmaxAttention
from spaces.attention.synthesizer import SynthesizerAttention

N, D, E = 17, 4, 3
CHUNKS = (1, 2, 5, N - 1, N, N + 1)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def built(mechanism, *, seed=0, width=8, heads=2, causal=False, **settings):
    torch.manual_seed(seed)
    return mechanism(Shape(width, heads, 40, causal), **settings).double()


# --- the scan ----------------------------------------------------

DECAYS = {
    "none": None,
    "mild": -torch.rand(2, 2, N, generator=torch.Generator().manual_seed(9), dtype=torch.float64),
    "zero": torch.zeros(2, 2, N, dtype=torch.float64),
    "abrupt": -1e6 * (torch.arange(N) % 5 == 3).double().expand(2, 2, N),
    "everything": torch.full((2, 2, N), -1e9, dtype=torch.float64),
}
QUERIES, KEYS, VALUES = normal(2, 2, N, D), normal(2, 2, N, D, seed=1), normal(2, 2, N, E, seed=2)


def quadratic(q, k, v, log_decay):
    """The sum over all pairs of tokens with the product of the decays between them."""
    rows = []
    for i in range(q.shape[2]):
        row, left = 0.0, torch.ones(q.shape[:2], dtype=q.dtype)
        for j in range(i, -1, -1):
            row = row + ((q[:, :, i] * k[:, :, j]).sum(-1) * left)[..., None] * v[:, :, j]
            left = left if log_decay is None else left * log_decay[:, :, j].exp()
        rows.append(row)
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("decay", DECAYS)
def test_scan_in_chunks_and_step_by_step_equals_the_quadratic_form_with_gradients(decay):
    leaves = [y.clone().requires_grad_() for y in (QUERIES, KEYS, VALUES)]
    log_decay = None if decay == "none" else DECAYS[decay].clone().requires_grad_()
    leaves += [] if log_decay is None else [log_decay]
    towards = normal(2, 2, N, E, seed=3)
    expected = quadratic(*leaves[:3], log_decay)
    expected_grads = torch.autograd.grad((expected * towards).sum(), leaves)
    for chunk in CHUNKS:
        out = scan(*leaves[:3], log_decay, chunk=chunk)
        close(out, expected)
        for grad, expected_grad in zip(torch.autograd.grad((out * towards).sum(), leaves), expected_grads, strict=True):
            close(grad, expected_grad)

    state, outs = torch.zeros(2, 2, D, E, dtype=torch.float64), []
    for i in range(N):
        token = [y[:, :, i : i + 1] for y in leaves[:3]]
        out, state = scan_step(*token, state, None if log_decay is None else log_decay[:, :, i : i + 1])
        outs.append(out)
    close(torch.cat(outs, dim=2), expected)


def test_scan_without_decay_equals_scan_with_zero_log_decay():
    close(scan(QUERIES, KEYS, VALUES, DECAYS["zero"], chunk=5), scan(QUERIES, KEYS, VALUES, chunk=5))


def test_scan_with_complete_decay_keeps_only_the_token_itself():
    itself = (QUERIES * KEYS).sum(-1, keepdim=True) * VALUES
    close(scan(QUERIES, KEYS, VALUES, DECAYS["everything"], chunk=5), itself)


def test_a_large_later_key_does_not_affect_the_precision_of_earlier_outputs():
    q, k, v = (y.float() for y in (QUERIES, KEYS, VALUES))
    before = scan(q, k, v, chunk=5)
    k[:, :, 13:] *= 1e12
    assert torch.equal(scan(q, k, v, chunk=5)[:, :, :13], before[:, :, :13])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("knobs", [{"feature_map": "elu"}, {"feature_map": "relu"}], ids=str)
def test_linear_attention_outputs_lie_between_the_values(knobs, causal):
    mechanism, x = built(LinearAttention, causal=causal, **knobs), normal(2, N, 8)
    torch.nn.init.eye_(mechanism.output.weight)
    torch.nn.init.zeros_(mechanism.output.bias)
    v, out = mechanism.value(x), mechanism(x)
    for t in (0, 5, N - 1):
        seen = v[:, : t + 1] if causal else v
        assert (out[:, t] >= seen.amin(1) - 1e-9).all()
        assert (out[:, t] <= seen.amax(1) + 1e-9).all()


# --- slabs, tiles and slices -------------------------------------


@pytest.mark.parametrize(
    ("piece", "mechanism", "knobs"),
    [
        ("synthesizer.SLAB", SynthesizerAttention, {"mode": "factorised", "rank": 3}),
        ("synthesizer.SLAB", SynthesizerAttention, {"mode": "factorised", "rank": 3, "causal": True}),
        ("performer.TILE", PerformerAttention, {"features": 5}),
    ],
)
@pytest.mark.parametrize("size", [1, 200])
def test_slab_and_tile_sizes_do_not_change_results(piece, mechanism, knobs, size, monkeypatch):
    whole, x = built(mechanism, **knobs), normal(3, N, 8).requires_grad_()
    results = []
    for _ in range(2):
        y = whole(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *whole.parameters()])))
        monkeypatch.setattr(f"spaces.attention.{piece}", size)
    for actual, expected in zip(*results, strict=True):
        close(actual, expected)


@pytest.mark.parametrize(("size", "step"), [(4, 4), (6, 4), (9, 4), (12, 4), (5, 1), (3, 5), (17, 2)])
def test_overlapping_slices_and_their_gradients_equal_unfold(size, step):
    x = normal(2, N, D).requires_grad_()
    slices, expected = overlapping(x, size, step), x.unfold(-2, size, step).mT
    assert torch.equal(slices, expected)
    towards = normal(*slices.shape, seed=1)
    close(*(torch.autograd.grad(each, x, towards)[0] for each in (slices, expected)))


# --- performer ---------------------------------------------------


def test_performer_directions_are_blockwise_orthogonal_with_the_norms_of_normal_vectors():
    torch.manual_seed(0)
    directions = orthogonal_directions(6, 6000)
    for block in directions.T.split(6)[:20]:
        close(torch.nn.functional.normalize(block) @ torch.nn.functional.normalize(block).T, torch.eye(6), 1e-5)
    assert directions.square().sum(0).mean() == pytest.approx(6, rel=0.03)
    assert orthogonal_directions(6, 4).shape == (6, 4)


def test_performer_features_are_unbiased_estimates_of_the_exponential():
    torch.manual_seed(0)
    directions = orthogonal_directions(4, 100_000).double()
    for q, k in zip(normal(8, 4) * 0.3, normal(8, 4, seed=1) * 0.3, strict=True):
        features = [(y @ directions - y.square().sum() / 2).exp() for y in (q, k)]
        assert (features[0] * features[1]).mean() == pytest.approx((q @ k).exp().item(), rel=0.02)
    # The directions have mean 0, which QR without a positive diagonal would not give.
    assert directions[:, ::4].mean(1).abs().max() < 0.03


@pytest.mark.parametrize("causal", [False, True])
def test_performer_converges_to_full_attention_with_more_features(causal):
    x = normal(2, N, 8) * 0.7
    full = built(SoftmaxAttention, causal=causal)
    error = {}
    for features in (16, 4096):
        runs = []
        for seed in range(4):
            mechanism = built(PerformerAttention, causal=causal, features=features, seed=seed)
            mechanism.load_state_dict(full.state_dict(), strict=False)
            runs.append((mechanism(x) - full(x)).square().mean())
        error[features] = torch.stack(runs).mean().sqrt()
    assert error[4096] < error[16] / 8  # expected: 16, the square root of the ratio of features
    assert error[4096] < 0.01


@pytest.mark.parametrize("causal", [False, True])
def test_performer_is_finite_where_features_underflow_and_overflow(causal):
    mechanism, x = built(PerformerAttention, causal=causal, features=7).float(), normal(2, N, 8, dtype=torch.float32)
    x[:, 5::4] *= 1e4
    x.requires_grad_()
    out = mechanism(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


def test_performer_keys_are_not_scaled_by_later_keys():
    mechanism, x = built(PerformerAttention, causal=True, features=7), normal(2, N, 8)
    x[:, :9] *= 100  # features of large keys are tiny; divided by those of later keys they would underflow
    alone = mechanism(x[:, :9])
    assert (alone - mechanism.output.bias).abs().amax() > 1
    close(mechanism(x)[:, :9], alone)


# --- gated attention ---------------------------------------------


def test_gated_constant_decays_equal_the_papers():
    mechanism = built(GatedAttention, decay="constant")
    close(mechanism.log_decay.exp()[:, 0].tolist(), [1 - 1 / 32, 1 - 1 / 64], 1e-7)


def test_gated_is_initialised_with_the_papers_steps_and_rates():
    mechanism = built(GatedAttention, width=512, heads=512)
    gates = mechanism.token_decay
    steps, rates = torch.nn.functional.softplus(gates.step_size.bias).detach(), gates.log_rates.detach().exp()
    assert 0.001 <= steps.min() < 0.0012
    assert 0.08 < steps.max() <= 0.1
    assert steps.log().mean() == pytest.approx(math.log(0.01), abs=0.2)
    assert 1 <= rates.min() < 1.2
    assert 15.5 < rates.max() <= 16
    assert rates.mean() == pytest.approx(8.5, rel=0.05)


@pytest.mark.parametrize("decay", ["token", "constant"])
def test_bidirectional_gated_attention_is_equivariant_to_reversal(decay):
    mechanism, x = built(GatedAttention, decay=decay), normal(2, N, 8)
    close(mechanism(x.flip(1)).flip(1), mechanism(x))


def test_gated_with_constant_decay_is_shift_equivariant():
    mechanism, x = built(GatedAttention, decay="constant", causal=True), normal(2, N, 8)
    x[:, :7] = 0
    close(mechanism(x)[:, 7:], mechanism(x[:, 7:]))


# --- the delta rule ----------------------------------------------

STRENGTHS = torch.rand(2, 2, N, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


@pytest.mark.parametrize("decay", [decay for decay in DECAYS if decay != "none"])
def test_delta_scan_in_chunks_and_step_by_step_equals_the_recurrence_with_gradients(decay):
    keys = torch.nn.functional.normalize(KEYS, dim=-1)
    leaves = [y.clone().requires_grad_() for y in (QUERIES, keys, VALUES, STRENGTHS, DECAYS[decay])]
    towards = normal(2, 2, N, E, seed=3)
    heads = [
        references_kernels.delta_rule(*(y[b, h] for y in leaves[:4]), leaves[4][b, h].exp(), range(N))
        for b in range(2)
        for h in range(2)
    ]
    expected = torch.stack(heads).unflatten(0, (2, 2))
    expected_grads = torch.autograd.grad((expected * towards).sum(), leaves)
    states = []
    for chunk in CHUNKS:
        out, state = delta_scan(*leaves, chunk=chunk)
        states.append(state)
        close(out, expected)
        for grad, expected_grad in zip(torch.autograd.grad((out * towards).sum(), leaves), expected_grads, strict=True):
            close(grad, expected_grad)

    memory, outs = torch.zeros(2, 2, D, E, dtype=torch.float64), []
    for i in range(N):
        out, memory = delta_step(*(y[:, :, i : i + 1] for y in leaves), memory)
        outs.append(out)
    close(torch.cat(outs, dim=2), expected)
    for state in states:
        close(state, memory)


def test_the_delta_rule_overwrites_the_value_of_one_key_only():
    written, asked = (torch.eye(4, dtype=torch.float64)[keys] for keys in ([0, 1, 0, 2, 0, 1], [0, 0, 1, 0, 2, 0]))
    q, k, values = asked[None, None], written[None, None], normal(6, E)
    ones, zeros = torch.ones(1, 1, 6, dtype=torch.float64), torch.zeros(1, 1, 6, dtype=torch.float64)
    close(delta_scan(q, k, values[None, None], ones, zeros, chunk=4)[0][0, 0], values[[0, 0, 1, 2, 3, 4]])
    halves = delta_scan(q, k, values[None, None], ones / 2, zeros, chunk=4)[0][0, 0]
    close(halves[3], values[0] / 4 + values[2] / 2)


def test_the_delta_rule_with_orthogonal_keys_equals_the_scan():
    keys = torch.eye(N, dtype=torch.float64).expand(2, 2, N, N)
    queries, decay = normal(2, 2, N, N), DECAYS["mild"]
    close(
        delta_scan(queries, keys, VALUES, STRENGTHS, decay, chunk=5)[0],
        scan(queries, keys, STRENGTHS[..., None] * VALUES, decay),
    )


def test_the_delta_rule_is_stable_with_identical_keys():
    keys = torch.nn.functional.normalize(torch.ones(1, 1, 500, D), dim=-1)
    values, ones = normal(1, 1, 500, E, dtype=torch.float32), torch.ones(1, 1, 500)
    close(delta_scan(keys, keys, values, ones, torch.zeros(1, 1, 500))[0], values, 1e-4)


@pytest.mark.parametrize("decay", ["token", "none"])
def test_bidirectional_delta_attention_is_equivariant_to_reversal(decay):
    mechanism, x = built(DeltaAttention, decay=decay), normal(2, N, 8)
    close(mechanism(x.flip(1)).flip(1), mechanism(x))


# --- nystromformer -----------------------------------------------


@pytest.mark.parametrize("n", [1, 7, N])
def test_nystromformer_with_one_landmark_per_token_equals_full_attention(n):
    mechanism, x = built(NystromformerAttention, landmarks=N, pinv_iterations=60), normal(2, n, 8)
    full = built(SoftmaxAttention, seed=3)
    full.load_state_dict(mechanism.state_dict())
    close(mechanism(x), full(x), 1e-7)


def test_pseudo_inverse_converges_to_pinv():
    torch.manual_seed(0)
    matrices = (torch.randn(2, 3, 9, 9, dtype=torch.float64) * 2).softmax(-1)
    matrices[0, 0, :, 4] = 0
    matrices[0, 0, 4] = 0
    matrices[1, 1] = 0
    close(pseudo_inverse(matrices, 60), torch.linalg.pinv(matrices), 1e-7)


def test_nystromformer_of_equal_tokens_gives_their_value():
    mechanism = built(NystromformerAttention, landmarks=4, pinv_iterations=30)
    x = normal(1, 1, 8).expand(1, N, 8)
    close(mechanism(x), mechanism.output(mechanism.value(x)), 1e-9)


@pytest.mark.parametrize("size", [1, 3, 33, 65])
@pytest.mark.parametrize("n", [1, 31, 32, 40, 97])
def test_convolution_by_blocks_equals_conv2d(n, size):
    v, taps = normal(2, 3, n, 5), normal(3, size, seed=1)
    expected = torch.nn.functional.conv2d(v, taps[:, None, :, None], padding=(size // 2, 0), groups=3)
    close(convolved(v, taps), expected)


def test_fnet_equals_the_product_with_fourier_matrices_and_is_linear():
    mechanism, x, y = FNetAttention(Shape(8, 2, 40)), normal(2, N, 8), normal(2, N, 8, seed=1)
    close(mechanism(x), (references_kernels.dft(N) @ x.to(torch.complex128) @ references_kernels.dft(8)).real)
    close(mechanism(3 * x - 2 * y), 3 * mechanism(x) - 2 * mechanism(y))
    impulse = torch.zeros(1, N, 8, dtype=torch.float64)
    impulse[0, 3, 0] = 1
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(N, dtype=torch.float64) / N) / (8 * N) ** 0.5
    close(mechanism(impulse)[0], wave[:, None].expand(N, 8))


def test_fourier_transforms_each_sample_over_its_own_length():
    lengths = torch.arange(1, N + 1)
    x = (normal(N, N, 2) * (torch.arange(N) < lengths[:, None])[..., None]).to(torch.complex128)
    out = fourier(x, lengths)
    for sample, row, length in zip(x, out, lengths, strict=True):
        close(row[:length], torch.fft.fft(sample[:length], dim=0, norm="ortho"))
