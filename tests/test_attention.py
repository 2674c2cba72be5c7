"""Properties that every attention mechanism must have; a new mechanism is one more row.

Exceptions are fields of its row, with the reason, never an ``if`` in a test.
"""

from __future__ import annotations

import cmath
import copy
import functools
import importlib
import inspect
import math
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import references
import references_kernels
import references_sparse
import torch
from torch import Tensor

import spaces.attention
from search.costs import counted as costs
from spaces.attention import Mechanism, Shape
from spaces.attention.adaptive_span import AdaptiveSpanAttention
from spaces.attention.bigbird import BigBirdAttention
from spaces.attention.delta import DeltaAttention
from spaces.attention.entmax import EntmaxAttention, entmax
from spaces.attention.fnet import FNetAttention
from spaces.attention.gated import GatedAttention
from spaces.attention.kernels.blocks import ABSENT
from spaces.attention.kernels.rotary import rotary
from spaces.attention.linear import LinearAttention
from spaces.attention.linformer import LinformerAttention
from spaces.attention.local import LocalAttention
from spaces.attention.longformer import LongformerAttention
from spaces.attention.nystromformer import NystromformerAttention
from spaces.attention.performer import PerformerAttention
from spaces.attention.projections import QKVMechanism
from spaces.attention.reformer import ReformerAttention
from spaces.attention.softmax import SoftmaxAttention
from spaces.attention.synthesizer import SynthesizerAttention
from spaces.attention.topk import TopkAttention

ROOT = Path(__file__).parents[1]
WIDTH, HEADS, LENGTH = 12, 2, 41


def make(
    mechanism: type[Mechanism],
    *,
    width: int = WIDTH,
    heads: int = HEADS,
    length: int = LENGTH,
    causal: bool = False,
    **settings: Any,
) -> Mechanism:
    return mechanism(Shape(width, heads, length, causal), **settings)


@dataclass(frozen=True)
class Row:
    """One mechanism in one setting, with its reference and its exceptions."""

    mechanism: type[Mechanism]
    reference: Callable[[Any, Tensor, Tensor], Tensor]
    knobs: dict[str, Any] = field(default_factory=dict)
    cost: Callable[[int], float] = lambda n: n  # of the forward pass without projections, up to a factor
    depends_on_later_tokens: str = ""  # why causal outputs may change with later tokens, at gradient 0
    no_decoding: str = ""  # the error message of a causal mechanism that cannot decode

    @property
    def causal(self) -> bool:
        return self.knobs.get("causal", False)

    @property
    def name(self) -> str:
        return self.mechanism.__module__.rpartition(".")[2]

    def build(self, *, length: int = LENGTH, seed: int = 0, **knobs: Any) -> Mechanism:
        torch.manual_seed(seed)
        return make(self.mechanism, length=length, **self.knobs | knobs)


CAUSAL = {"causal": True}
ROPE = {"rope": True}
ROWS = [
    Row(SoftmaxAttention, references.softmax, cost=lambda n: n**2),
    Row(SoftmaxAttention, references.softmax, CAUSAL, cost=lambda n: n**2),
    Row(SoftmaxAttention, references.softmax, {"heads": 6, "kv_heads": 2}, cost=lambda n: n**2),
    Row(SoftmaxAttention, references.softmax, {"kv_heads": 1} | CAUSAL, cost=lambda n: n**2),
    Row(SoftmaxAttention, references.softmax, {"heads": 4, "kept_heads": 0.5} | CAUSAL, cost=lambda n: n**2),
    Row(LinformerAttention, references.linformer, {"rank": 5}),
    Row(LinformerAttention, references.linformer, {"rank": 5, "sharing": "none"}),
    Row(LinformerAttention, references.linformer, {"rank": 5, "sharing": "key-value"}),
    Row(LongformerAttention, references.longformer, {"window": 3}),
    Row(LongformerAttention, references.longformer, {"window": 0}),
    Row(LongformerAttention, references.longformer, {"window": 19}),
    Row(LongformerAttention, references.longformer, {"window": 3, "dilation": 2}),
    Row(LongformerAttention, references.longformer, {"window": 2, "dilation": 5, "global_tokens": 3}),
    Row(LongformerAttention, references.longformer, {"window": 3} | CAUSAL),
    Row(LongformerAttention, references.longformer, {"window": 3, "dilation": 2, "global_tokens": 3} | CAUSAL),
    Row(ReformerAttention, references.reformer, {"bucket_size": 4}, cost=lambda n: n * (8 * 4 + n**0.5)),
    Row(
        ReformerAttention, references.reformer, {"bucket_size": 1, "hashes": 2}, cost=lambda n: n * (8 + (4 * n) ** 0.5)
    ),
    Row(
        ReformerAttention,
        references.reformer,
        {"bucket_size": 16, "hashes": 2},
        cost=lambda n: n * (8 * 16 + (n / 4) ** 0.5),
    ),
    Row(ReformerAttention, references.reformer, {"bucket_count": 6, "hashes": 3}, cost=lambda n: n * (8 * n / 6 + 6)),
    Row(
        ReformerAttention,
        references.reformer,
        {"bucket_size": 5, "hashes": 3} | CAUSAL,
        cost=lambda n: n * (8 * 5 + (n / 1.25) ** 0.5),
        depends_on_later_tokens="later tokens decide who shares a chunk",
        no_decoding="reformer cannot decode token by token: later tokens decide who shares a chunk",
    ),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "dense"}, cost=lambda n: n**2),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "dense"} | CAUSAL, cost=lambda n: n**2),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "random"}, cost=lambda n: n**2),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "random"} | CAUSAL, cost=lambda n: n**2),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "factorised", "rank": 3}, cost=lambda n: n**2),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "factorised"} | CAUSAL, cost=lambda n: n**2),
    *(Row(LinearAttention, references_kernels.linear, {"feature_map": f}) for f in ("elu", "relu", "softmax")),
    *(Row(LinearAttention, references_kernels.linear, {"feature_map": f} | CAUSAL) for f in ("elu", "relu")),
    *(Row(LinearAttention, references_kernels.linear, {"feature_map": "hedgehog"} | c) for c in ({}, CAUSAL)),
    Row(PerformerAttention, references_kernels.performer, {"features": 11}),
    Row(PerformerAttention, references_kernels.performer, {"features": 11} | CAUSAL),
    *(Row(GatedAttention, references_kernels.gated, {"decay": d}) for d in ("token", "constant")),
    *(Row(GatedAttention, references_kernels.gated, {"decay": d} | CAUSAL) for d in ("token", "constant")),
    *(Row(DeltaAttention, references_kernels.delta, {"decay": d}) for d in ("token", "none")),
    *(Row(DeltaAttention, references_kernels.delta, {"decay": d} | CAUSAL) for d in ("token", "none")),
    Row(NystromformerAttention, references_kernels.nystromformer, {"landmarks": 5, "conv_kernel_size": 3}),
    Row(
        NystromformerAttention,
        references_kernels.nystromformer,
        {"landmarks": 16},
        cost=lambda n: 5 * 16 * WIDTH * n + 48 * 16**3,
    ),
    Row(FNetAttention, references_kernels.fnet, cost=lambda n: n * math.log2(n * WIDTH)),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "factorised_dense"}, cost=lambda n: n**2),
    Row(
        SynthesizerAttention,
        references.synthesizer,
        {"mode": "dense+random+factorised+dot", "rank": 3} | CAUSAL,
        cost=lambda n: n**2,
    ),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "random+factorised"}, cost=lambda n: n**2),
    *(
        Row(SynthesizerAttention, references.synthesizer, {"mode": mode} | CAUSAL, cost=lambda n: n**2)
        for mode in ("factorised_dense", "dot+dense+factorised", "random+factorised_dense")
    ),
    Row(SynthesizerAttention, references.synthesizer, {"mode": "dense+factorised"}, cost=lambda n: n**2),
    Row(LocalAttention, references_sparse.local, {"block_size": 8}),
    Row(LocalAttention, references_sparse.local, {"block_size": 4, "neighbours": 2}),
    Row(LocalAttention, references_sparse.local, {"block_size": 4, "neighbours": 1} | CAUSAL),
    Row(LocalAttention, references_sparse.local, {"block_size": 5} | CAUSAL),
    Row(BigBirdAttention, references_sparse.bigbird, {"block_size": 4}),
    Row(BigBirdAttention, references_sparse.bigbird, {"block_size": 8, "random_blocks": 0, "global_blocks": 0}),
    Row(BigBirdAttention, references_sparse.bigbird, {"block_size": 4, "random_blocks": 2} | CAUSAL),
    Row(
        BigBirdAttention, references_sparse.bigbird, {"block_size": 3, "random_blocks": 1, "global_blocks": 5} | CAUSAL
    ),
    Row(EntmaxAttention, references_sparse.entmax, {"alpha": 1.7}, cost=lambda n: n**2),
    Row(EntmaxAttention, references_sparse.entmax, CAUSAL, cost=lambda n: n**2),
    Row(TopkAttention, references_sparse.topk, {"k": 5}, cost=lambda n: n**2),
    Row(TopkAttention, references_sparse.topk, {"k": 5} | CAUSAL, cost=lambda n: n**2),
    Row(AdaptiveSpanAttention, references_sparse.adaptive_span, {"max_span": 19, "ramp": 4}),
    Row(AdaptiveSpanAttention, references_sparse.adaptive_span, {"max_span": 7, "ramp": 8} | CAUSAL),
    Row(SoftmaxAttention, references.softmax, ROPE, cost=lambda n: n**2),
    Row(SoftmaxAttention, references.softmax, {"heads": 6, "kv_heads": 2} | ROPE | CAUSAL, cost=lambda n: n**2),
    Row(LongformerAttention, references.longformer, {"window": 2, "dilation": 5, "global_tokens": 3} | ROPE),
    Row(LongformerAttention, references.longformer, {"window": 3, "dilation": 2, "global_tokens": 3} | ROPE | CAUSAL),
    Row(ReformerAttention, references.reformer, {"bucket_size": 4} | ROPE, cost=lambda n: n * (8 * 4 + n**0.5)),
    Row(LocalAttention, references_sparse.local, {"block_size": 4, "neighbours": 1} | ROPE | CAUSAL),
    Row(BigBirdAttention, references_sparse.bigbird, {"block_size": 4, "random_blocks": 2} | ROPE | CAUSAL),
    Row(EntmaxAttention, references_sparse.entmax, ROPE | CAUSAL, cost=lambda n: n**2),
    Row(TopkAttention, references_sparse.topk, {"k": 5} | ROPE | CAUSAL, cost=lambda n: n**2),
    Row(AdaptiveSpanAttention, references_sparse.adaptive_span, {"max_span": 19, "ramp": 4} | ROPE),
    Row(AdaptiveSpanAttention, references_sparse.adaptive_span, {"max_span": 7, "ramp": 8} | ROPE | CAUSAL),
]


def label(row: Row) -> str:
    return "-".join([row.name, *(f"{knob}={value}" for knob, value in row.knobs.items())])


def parametrize(rows: list[Row]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of all rows; in the quick suite, of the first row of each mechanism. The others share one call."""
    by_mechanism: dict[type[Mechanism], list[Row]] = {}
    for row in rows:
        by_mechanism.setdefault(row.mechanism, []).append(row)
    cases = [pytest.param(first, id=label(first[0])) for first in ([row] for row, *_ in by_mechanism.values())]
    cases += [
        pytest.param(others, id=f"{others[0].name}, others", marks=pytest.mark.slow)
        for _, *others in by_mechanism.values()
        if others
    ]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def test_of_rows(rows: list[Row], **settings: Any) -> None:
            for row in rows:
                try:
                    test(row, **settings)
                except BaseException as failure:
                    failure.add_note(label(row))
                    raise

        _, *settings = inspect.signature(test).parameters.values()
        first = inspect.Parameter("rows", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test_of_rows.__signature__ = inspect.Signature([first, *settings])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("rows", cases)(test_of_rows)

    return decorate


every_row = parametrize(ROWS)
causal_rows = parametrize([row for row in ROWS if row.causal])
decoding_rows = parametrize([row for row in ROWS if row.causal and not row.no_decoding])


def tokens(n: int, *, batch: int = 2, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, n, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def no_padding(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[:2], dtype=torch.bool)


def some_padding(x: Tensor) -> Tensor:
    """Padding on the left, on the right and in between, of different amounts per sample."""
    padding = torch.rand(x.shape[:2], generator=torch.Generator().manual_seed(2)) < 0.3
    padding[0, -3:] = True
    padding[1, :2] = True
    padding[:, 4] = False
    return padding


def padding_content(n: int, *, batch: int = 2) -> Tensor:
    """Large, infinite and NaN values, which would change any output that they leak into."""
    content = torch.tensor([1e4, math.nan, math.inf, -math.inf])
    return content.repeat(-(-n // 4))[:n, None].expand(batch, -1, WIDTH)


def close(actual: Tensor, expected: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# --- every mechanism ---------------------------------------------


def test_modules_yaml_files_and_rows_name_the_same_mechanisms():
    modules = set()
    for path in Path(spaces.attention.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"spaces.attention.{path.stem}".removesuffix(".__init__"))
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        classes = [value for value in own if isinstance(value, type) and issubclass(value, Mechanism)]
        if not all(map(inspect.isabstract, classes)):
            modules.add(path.stem)
    assert modules == {path.stem for path in (ROOT / "conf" / "attention").glob("*.yaml")}
    assert modules == {row.name for row in ROWS}


@every_row
@pytest.mark.parametrize(
    ("n", "pad"),
    [
        (1, no_padding),
        pytest.param(2, no_padding, marks=pytest.mark.slow),
        pytest.param(32, no_padding, marks=pytest.mark.slow),
        (LENGTH, no_padding),
        pytest.param(7, some_padding, marks=pytest.mark.slow),
        (LENGTH, some_padding),
    ],
)
def test_output_and_gradients_agree_with_the_dense_reference(row, n, pad):
    mechanism = row.build().double()
    x = tokens(n, dtype=torch.float64).requires_grad_()
    padding = pad(x)
    leaves = [x, *mechanism.parameters()]
    towards = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    expected = row.reference(mechanism, x, ~padding)
    expected_grads = torch.autograd.grad((expected * towards).sum(), leaves, materialize_grads=True)
    for given in [padding] if padding.any() else [padding, None]:
        actual = mechanism(x, given)
        grads = torch.autograd.grad((actual * towards).sum(), leaves, materialize_grads=True)
        close(actual, expected, 1e-9)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            close(grad, expected_grad, 1e-9)


@every_row
def test_single_precision_agrees_with_the_dense_reference(row):
    mechanism, x = row.build(), tokens(LENGTH)
    padding = some_padding(x)
    actual = mechanism(x, padding)
    close(actual.double(), row.reference(mechanism.double(), x.double(), ~padding), 1e-5)


@every_row
def test_outputs_are_independent_of_content_and_amount_of_padding(row):
    mechanism, x = row.build().eval(), tokens(17)
    alone = mechanism(x)
    for amount in (1, 8, LENGTH - 17):
        longer = torch.cat([x, padding_content(amount)], dim=1)
        padding = torch.arange(17 + amount).expand(2, -1) >= 17
        padded = mechanism(longer, padding)
        close(padded[:, :17], alone)
        assert (padded[:, 17:] == 0).all()


@every_row
def test_with_biases_like_those_of_checkpoints_padding_is_ignored_too(row):
    mechanism = row.build().eval()
    if not isinstance(mechanism, QKVMechanism):
        return
    mechanism.add_biases()
    for projection in mechanism.input_projections():
        torch.nn.init.normal_(projection.bias, generator=torch.Generator().manual_seed(4))
    x = tokens(17)
    longer, padding = torch.cat([x, padding_content(8)], dim=1), torch.arange(25).expand(2, -1) >= 17
    close(mechanism(longer, padding)[:, :17], mechanism(x))
    x, mechanism = tokens(LENGTH, dtype=torch.float64), mechanism.double()
    padding = some_padding(x)
    close(mechanism(x, padding), row.reference(mechanism, x, ~padding), 1e-9)


@every_row
def test_padded_content_receives_no_gradient(row):
    mechanism, x = row.build(), tokens(17).requires_grad_()
    padding = some_padding(x)
    mechanism(x, padding).square().sum().backward()
    assert (x.grad[padding] == 0).all()
    assert x.grad[~padding].abs().sum() > 0


@every_row
def test_samples_of_a_batch_are_independent(row):
    mechanism, x = row.build().eval(), tokens(23, batch=3)
    padding = no_padding(x)
    padding[0, 9:] = True
    padding[1, :] = True
    together = mechanism(x, padding)
    for sample in range(3):
        close(together[sample : sample + 1], mechanism(x[sample : sample + 1], padding[sample : sample + 1]))
    x[0] = float("nan")
    close(mechanism(x, padding)[1:], together[1:])


@causal_rows
def test_causal_outputs_have_no_gradient_with_respect_to_later_tokens(row):
    mechanism, x = row.build().double(), tokens(LENGTH, dtype=torch.float64).requires_grad_()
    for t in (0, 1, 15, 16, 30):
        (grad,) = torch.autograd.grad(mechanism(x)[:, t].square().sum(), x)
        assert (grad[:, t + 1 :] == 0).all()
        assert (grad[:, : t + 1] != 0).any()


@pytest.mark.parametrize("row", [row for row in ROWS if row.causal and not row.depends_on_later_tokens], ids=label)
def test_causal_outputs_are_independent_of_later_tokens(row):
    mechanism, x = row.build().eval(), tokens(LENGTH)
    before = mechanism(x)
    for t in (0, 1, 15, 16, 30):
        changed = x.clone()
        changed[:, t + 1 :] = 1e3
        close(mechanism(changed)[:, : t + 1], before[:, : t + 1])


@decoding_rows
def test_decode_step_gives_the_outputs_of_forward(row):
    mechanism, x = row.build().double(), tokens(LENGTH, dtype=torch.float64)
    cache, outputs = mechanism.init_cache(len(x)), []
    for token in x.unbind(1):
        y, cache = mechanism.decode_step(token, cache)
        outputs.append(y)
    close(torch.stack(outputs, dim=1), mechanism(x), 1e-9)
    with pytest.raises(ValueError, match=f"token {LENGTH + 1}: .* length={LENGTH}"):
        mechanism.decode_step(x[:, 0], cache)


@decoding_rows
@pytest.mark.parametrize("n", [1, 7, 32, LENGTH])
def test_prefill_equals_decoding_token_by_token(row, n):
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-5)):
        mechanism, x = row.build(), tokens(LENGTH, dtype=dtype)
        mechanism = mechanism.double() if dtype == torch.float64 else mechanism  # not to(), which casts complex numbers
        expected, expected_cache = Mechanism.prefill(_token_by_token(mechanism), x[:, :n])
        outputs, cache = mechanism.prefill(x[:, :n])
        close(outputs, expected, tolerance)
        assert cache.position == expected_cache.position == n
        for tensor, each in zip(cache.tensors, expected_cache.tensors, strict=True):
            close(tensor, each, tolerance)
        for token in x[:, n:].unbind(1):
            y, cache = mechanism.decode_step(token, cache)
            expected_y, expected_cache = mechanism.decode_step(token, expected_cache)
            close(y, expected_y, tolerance)


def _token_by_token(mechanism):
    """A shallow copy that reads a prompt token by token, as a mechanism without ``mix_prompt`` does."""
    plain = copy.copy(mechanism)
    plain.mix_prompt = functools.partial(Mechanism.mix_prompt, plain)
    return plain


@parametrize(
    [row for row in ROWS if row.causal and not row.no_decoding and row.mechanism.mix_prompt is not Mechanism.mix_prompt]
)
def test_a_prompt_is_read_without_steps(row):
    calls, mechanism = [], row.build()
    mechanism.mix_step = calls.append
    mechanism.prefill(tokens(9))
    assert not calls
    with pytest.raises(ValueError, match=f"{LENGTH + 1} tokens: .* length={LENGTH}"):
        mechanism.prefill(tokens(LENGTH + 1))


@decoding_rows
def test_a_decode_cache_is_immutable_and_can_be_indexed_by_sample(row):
    mechanism, x = row.build(), tokens(9, batch=3)
    cache = mechanism.init_cache(3)
    for token in x[:, :7].unbind(1):
        _, cache = mechanism.decode_step(token, cache)
    once, _ = mechanism.decode_step(x[:, 7], cache)
    mechanism.decode_step(x[:, 8], cache)
    assert torch.equal(mechanism.decode_step(x[:, 7], cache)[0], once)
    order = torch.tensor([2, 0, 0])
    selected = cache._replace(tensors=tuple(tensor[order] for tensor in cache.tensors))
    close(mechanism.decode_step(x[order, 7], selected)[0], once[order])


@pytest.mark.parametrize(
    ("mechanism", "knobs", "kept"),
    [
        (LocalAttention, {"block_size": 4, "neighbours": 2}, 12),
        (LocalAttention, {"block_size": 5}, 5),
        (LongformerAttention, {"window": 3, "dilation": 2}, 7),
        (AdaptiveSpanAttention, {"max_span": 6}, 7),
        (AdaptiveSpanAttention, {"max_span": 0}, 1),
    ],
)
def test_decode_cache_keeps_only_tokens_within_the_window(mechanism, knobs, kept):
    row = Row(mechanism, references.softmax, knobs | CAUSAL)
    built, x, most = row.build(), tokens(LENGTH), 0
    cache = built.init_cache(len(x))
    for token in x.unbind(1):
        _, cache = built.decode_step(token, cache)
        most = max(most, *(tensor.shape[2] for tensor in cache.tensors))
    assert most == kept


@pytest.mark.parametrize("row", [row for row in ROWS if not row.causal or row.no_decoding], ids=label)
def test_a_mechanism_without_decoding_raises_the_reason(row):
    reason = row.no_decoding or "causal=False: only a causal mechanism can decode token by token"
    with pytest.raises(ValueError, match=reason):
        row.build().init_cache(2)
    with pytest.raises(ValueError, match=reason):
        row.build().prefill(tokens(2))


def test_a_mechanism_with_mix_only_refuses_decoding_and_cross_attention():
    class OnlyMixes(Mechanism):
        def mix(self, x, padding):
            return x

    with pytest.raises(ValueError, match="OnlyMixes cannot decode token by token"):
        make(OnlyMixes, **CAUSAL).init_cache(2)
    with pytest.raises(ValueError, match="OnlyMixes cannot attend to another sequence"):
        make(OnlyMixes).encode_source(tokens(5))


@every_row
@pytest.mark.parametrize("training", [True, False])
def test_an_all_padding_sample_gives_zeros_and_finite_gradients(row, training):
    mechanism, x = row.build().train(training), tokens(9)
    padding = no_padding(x)
    padding[0] = True
    with torch.no_grad():
        assert (mechanism(x, padding)[0] == 0).all()
    x.requires_grad_()
    out = mechanism(x, padding)
    assert (out[0] == 0).all()
    out.square().sum().backward()
    assert (x.grad[0] == 0).all()
    for parameter in mechanism.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@every_row
def test_forward_is_deterministic_and_uses_no_random_numbers(row):
    mechanism, x = row.build(), tokens(19)
    state = torch.get_rng_state()
    first = mechanism(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(mechanism(x), first)
    assert torch.equal(mechanism.eval()(x), first)


@every_row
def test_a_loaded_state_dict_reproduces_the_outputs(row):
    saved, loaded, x = row.build(seed=0), row.build(seed=5), tokens(19)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(x), saved(x))


@every_row
def test_training_works_after_a_pass_in_inference_mode(row):
    mechanism, x = row.build(), tokens(19).requires_grad_()
    with torch.inference_mode():
        before = mechanism(x)
    after = mechanism(x)
    after.sum().backward()
    assert torch.equal(before, after)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # by the compiler
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by the compiler
@pytest.mark.parametrize("row", {(row.name, row.causal): row for row in ROWS}.values(), ids=label)
def test_torch_compile_gives_equal_outputs_and_gradients(row):
    torch._dynamo.reset()
    mechanism, x = row.build().double(), tokens(LENGTH, dtype=torch.float64).requires_grad_()
    # aot_eager traces and differentiates, but does not generate code.
    compiled = torch.compile(mechanism, backend="aot_eager", dynamic=False)
    # Compilation takes seconds, so with two rows of a mechanism only the causal one is tested with padding.
    both = len({other.causal for other in ROWS if other.mechanism is row.mechanism}) == 1
    for padding in [None, some_padding(x)] if both else [some_padding(x) if row.causal else None]:
        outputs = [function(x, padding) for function in (mechanism, compiled)]
        gradients = [torch.autograd.grad(output.square().sum(), x)[0] for output in outputs]
        close(*outputs, tolerance=1e-12)
        close(*gradients, tolerance=1e-12)


@every_row
def test_bfloat16_outputs_are_close_to_float32(row):
    mechanism, x = row.build(), tokens(LENGTH)
    expected = mechanism(x)
    actual = mechanism.bfloat16()(x.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(actual.float().flatten(), expected.flatten(), dim=0) > 0.98


@every_row
def test_outputs_and_gradients_are_finite_under_autocast(row):
    mechanism, x = row.build(), tokens(19).requires_grad_()
    padding = some_padding(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = mechanism(x, padding)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


@every_row
def test_a_sequence_longer_than_length_is_refused(row):
    with pytest.raises(ValueError, match=f"a sequence of {LENGTH + 1} tokens.*length={LENGTH}"):
        row.build()(tokens(LENGTH + 1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("mechanism", "knobs"),
    [
        (SoftmaxAttention, {}),
        (LongformerAttention, {"window": 0}),
        (ReformerAttention, {"bucket_size": 1}),
        (LinearAttention, {}),
        (PerformerAttention, {"features": 3}),
        (LocalAttention, {"block_size": 1}),
        (BigBirdAttention, {"block_size": 1, "random_blocks": 1, "global_blocks": 1}),
        (EntmaxAttention, {}),
        (TopkAttention, {"k": 1}),
        (AdaptiveSpanAttention, {"max_span": 0}),
        *(
            (SynthesizerAttention, {"mode": mode})
            for mode in ("dense", "random", "factorised", "factorised_dense", "random+dot")
        ),
    ],
)
def test_a_single_token_attends_to_itself(mechanism, knobs, causal):
    built, x = make(mechanism, length=1, causal=causal, **knobs), tokens(1)
    close(built(x), built.output(built.value(x)))


@every_row
def test_an_empty_batch_is_accepted(row):
    x = tokens(9, batch=0)
    assert row.build()(x, no_padding(x)).shape == x.shape


@every_row
def test_runs_on_the_meta_device(row):
    with torch.device("meta"):
        mechanism = row.build()
        x = torch.empty(2, 19, WIDTH)
        assert mechanism(x, torch.empty(2, 19, dtype=torch.bool)).device.type == "meta"


def flops(row: Row, n: int) -> int:
    """FLOPs of one forward pass without the projections.

    Counted on the meta device, where attention is decomposed into matrix products; the counter does not know the fused
    CPU kernel.
    """
    with torch.device("meta"):
        mechanism, x = row.build(length=n), torch.empty(1, n, WIDTH)
        projections = sum(2 * n * p.numel() for name, p in mechanism.named_parameters() if name.endswith("weight"))
        return costs.flops(mechanism, x) - projections


@every_row
def test_flops_scale_with_length_as_documented(row):
    assert flops(row, 2048) / flops(row, 1024) == pytest.approx(row.cost(2048) / row.cost(1024), rel=0.03)


# --- single mechanisms -------------------------------------------


def same_weights(mechanism: Mechanism, other: Mechanism) -> Mechanism:
    """``mechanism`` with every parameter that it shares by name with ``other`` copied from it."""
    mechanism.load_state_dict(other.state_dict(), strict=False)
    return mechanism


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"window": LENGTH - 1}, id="the window holds everything"),
        pytest.param({"window": 1, "global_tokens": LENGTH}, id="all tokens are global"),
    ],
)
def test_longformer_equals_full_attention_when_everything_is_attended_to(knobs, causal):
    mechanism = make(LongformerAttention, causal=causal, **knobs)
    x = tokens(LENGTH)
    close(mechanism(x), same_weights(make(SoftmaxAttention, causal=causal), mechanism)(x))


@pytest.mark.parametrize("causal", [False, True])
def test_longformer_with_dilation_equals_a_window_on_every_residue_class(causal):
    dilated = make(LongformerAttention, causal=causal, window=4, dilation=3)
    band = same_weights(make(LongformerAttention, causal=causal, window=4), dilated)
    x = tokens(LENGTH)
    out = dilated(x)
    for first in range(3):
        close(out[:, first::3], band(x[:, first::3]))


def test_longformer_global_projections_are_initialised_as_copies_of_the_local_ones():
    mechanism = make(LongformerAttention, window=1, global_tokens=1)
    for name in ("query", "key", "value"):
        assert torch.equal(getattr(mechanism, f"global_{name}").weight, getattr(mechanism, name).weight)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("mechanism", "knobs"),
    [
        (LocalAttention, {"block_size": LENGTH}),
        (LocalAttention, {"block_size": 4, "neighbours": LENGTH // 4}),
        (BigBirdAttention, {"block_size": 4, "random_blocks": LENGTH // 4}),
        (BigBirdAttention, {"block_size": 4, "random_blocks": LENGTH // 4, "global_blocks": 0}),
        (BigBirdAttention, {"block_size": 4, "random_blocks": 0, "global_blocks": LENGTH // 4}),
    ],
)
@pytest.mark.parametrize("n", [LENGTH, 18])
def test_block_attention_to_all_blocks_equals_full_attention(mechanism, knobs, causal, n):
    built = make(mechanism, causal=causal, **knobs)
    x = tokens(n)
    close(built(x), same_weights(make(SoftmaxAttention, causal=causal), built)(x))


def test_local_attention_is_equivariant_to_permutations_of_blocks():
    mechanism, x = make(LocalAttention, **{"length": 40}, block_size=8), tokens(40)
    order = torch.arange(40).view(5, 8)[[3, 0, 4, 1, 2]].flatten()
    close(mechanism(x[:, order]), mechanism(x)[:, order])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_bigbird_plan_has_the_configured_blocks_without_repetition(causal, seed):
    torch.manual_seed(seed)
    blocks, drawn, leading = 11, 3, 2
    mechanism = make(BigBirdAttention, causal=causal, block_size=4, random_blocks=drawn, global_blocks=leading)
    for block, row in enumerate(mechanism.plan.tolist()):
        listed = [other for other in row if other != ABSENT]
        must = {block - 1, block, block if causal else block + 1, *range(leading)}
        may = set(range(block + 1 if causal else blocks))
        assert len(listed) == len(set(listed)) == len(must & may) + min(drawn, len(may - must))
        assert must & may <= set(listed) <= may


def test_bigbird_plan_depends_on_the_seed():
    plans = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        plans.append(make(BigBirdAttention, block_size=4).plan)
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("hashes", [1, 3])
def test_reformer_with_two_chunks_equals_full_attention_with_shared_queries_and_keys(hashes, causal):
    mechanism = make(ReformerAttention, causal=causal, bucket_size=(LENGTH + 1) // 2, hashes=hashes)
    x = tokens(LENGTH)
    q, v = mechanism.split_heads(mechanism.query_key(x)), mechanism.split_heads(mechanism.value(x))
    others = ~torch.eye(LENGTH, dtype=torch.bool)
    others = others.tril() if causal else others
    others[0, 0] |= causal  # the first token has no other token
    mixed = references.weigh(q @ torch.nn.functional.normalize(q, dim=-1).mT, v, others)
    close(mechanism(x), mechanism.output(mechanism.merge_heads(mixed)))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_entmax_with_alpha_2_equals_sparsemax(scale):
    logits = scale * torch.randn(20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    close(entmax(logits, torch.tensor(2.0)), references_sparse.sparsemax_by_sorting(logits), 1e-12)


def test_entmax_approaches_softmax_as_alpha_approaches_1():
    logits = torch.randn(20, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    far, near = (
        (entmax(logits, torch.tensor(alpha, dtype=torch.float64)) - logits.softmax(-1)).abs().max()
        for alpha in (1 + 1e-4, 1 + 1e-6)
    )
    assert near < 2e-6
    assert near < far / 50


@pytest.mark.parametrize("alpha", [1.01, 1.5, 1.99, 2.0])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_entmax_of_a_long_row_equals_bisection(alpha, scale):
    logits = scale * torch.randn(2, 4096, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha = torch.tensor(alpha, dtype=torch.float64)
    weights = entmax(logits, alpha)
    close(weights, references_sparse.entmax_by_bisection(logits, alpha), 1e-10)
    close(weights, entmax(logits + 7, alpha), 1e-10)
    close(entmax(logits.float(), alpha), weights.float(), 1e-5)


def test_entmax_gradients_pass_gradcheck():
    logits = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alpha = torch.tensor([[1.2], [1.5], [1.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entmax, (logits, alpha))


def test_entmax_weights_are_sparse_and_alpha_is_learned_per_head():
    mechanism = make(EntmaxAttention, alpha=1.9)
    assert (entmax(torch.randn(9, 100) * 3, mechanism.alpha[0]) == 0).float().mean() > 0.5
    mechanism(tokens(LENGTH)).square().sum().backward()
    assert (mechanism.alpha_logits.grad != 0).all()
    close(mechanism.alpha, torch.tensor([1.9, 1.9]))


@pytest.mark.parametrize("causal", [False, True])
def test_topk_of_all_keys_equals_full_attention(causal):
    mechanism, x = make(TopkAttention, k=30, causal=causal), tokens(30)
    close(mechanism(x), same_weights(make(SoftmaxAttention, causal=causal), mechanism)(x))


def with_spans(mechanism: AdaptiveSpanAttention, *shares: float) -> AdaptiveSpanAttention:
    """``mechanism`` with the span of each head at a share of ``max_span``."""
    with torch.no_grad():
        mechanism.span_logits.copy_(torch.tensor(shares).logit())
    return mechanism


@pytest.mark.parametrize("causal", [False, True])
def test_adaptive_span_with_maximal_spans_equals_full_attention(causal):
    mechanism = with_spans(make(AdaptiveSpanAttention, max_span=LENGTH - 1, causal=causal), 1.0, 1.0)
    x = tokens(LENGTH)
    close(mechanism(x), same_weights(make(SoftmaxAttention, causal=causal), mechanism)(x))


@pytest.mark.parametrize("causal", [False, True])
def test_adaptive_span_without_a_ramp_equals_a_window(causal):
    mechanism = with_spans(make(AdaptiveSpanAttention, max_span=40, ramp=1, causal=causal), 0.125, 0.125)
    window = same_weights(make(LongformerAttention, window=5, causal=causal), mechanism)
    x = tokens(LENGTH)
    close(mechanism(x), window(x))


def test_adaptive_span_has_a_gradient_where_keys_are_on_the_ramp():
    mechanism, x = make(AdaptiveSpanAttention, max_span=40, ramp=8), tokens(LENGTH)
    grads = {}
    for share in (0.0, 0.5, 1.0):
        logits = with_spans(mechanism, share, share).span_logits
        grads[share] = torch.autograd.grad(mechanism(x).square().sum(), logits)[0]
    assert (grads[0.0] == 0).all()
    assert (grads[1.0] == 0).all()
    assert (grads[0.5] != 0).all()


@pytest.mark.parametrize("buckets", [2, 8, 32, 34, 66, 100, 128])
def test_reformer_has_the_requested_number_of_buckets_or_up_to_a_third_more(buckets):
    values = 1
    for factor in make(ReformerAttention, width=4, heads=1, length=128, bucket_count=buckets).factors:
        values *= 2 * factor
    assert buckets <= values <= 1.3 * buckets
    assert buckets == values or buckets > 32


def others(x: Tensor, t: int, factor: float) -> Tensor:
    """``x`` with every token except ``t`` multiplied by ``factor``."""
    scaled = x * factor
    scaled[:, t] = x[:, t]
    return scaled


def test_synthesizer_dense_weights_of_a_token_depend_on_that_token_only():
    mechanism, x = make(SynthesizerAttention, mode="dense"), tokens(LENGTH)
    for t in (0, 20, LENGTH - 1):
        none, once, twice = (mechanism(others(x, t, factor))[:, t] for factor in (0.0, 1.0, 2.0))
        close(twice - once, once - none)
        assert not torch.allclose(mechanism(2 * x)[:, t] - once, once - mechanism(0 * x)[:, t], atol=1e-3)


@pytest.mark.parametrize("mode", ["random", "factorised"])
def test_synthesizer_random_weights_are_independent_of_the_tokens(mode):
    mechanism, x, y = make(SynthesizerAttention, mode=mode), tokens(LENGTH), tokens(LENGTH, seed=7)
    close(mechanism(3 * x - 2 * y), 3 * mechanism(x) - 2 * mechanism(y))


def test_synthesizer_factorised_with_the_identity_as_one_factor_equals_random():
    random = make(SynthesizerAttention, mode="random")
    factorised = same_weights(make(SynthesizerAttention, mode="factorised", rank=LENGTH), random)
    with torch.no_grad():
        factorised.factors.copy_(torch.stack([random.table, torch.eye(LENGTH).expand(HEADS, -1, -1)]))
    x = tokens(LENGTH)
    close(factorised(x), random(x))


@pytest.mark.parametrize("causal", [False, True])
def test_synthesizer_dot_equals_full_attention(causal):
    mechanism, x = make(SynthesizerAttention, mode="dot", causal=causal), tokens(LENGTH)
    close(mechanism(x), same_weights(make(SoftmaxAttention, causal=causal), mechanism)(x))


@pytest.mark.parametrize("part", ["dense", "random", "factorised", "factorised_dense", "dot"])
def test_synthesizer_mixture_equals_the_part_with_all_the_weight(part):
    everything = "dot+random+dense+factorised_dense+factorised"
    mixture = make(SynthesizerAttention, mode=everything)
    with torch.no_grad():
        mixture.shares.fill_(-1e9)[everything.split("+").index(part)] = 0
    single, x = same_weights(make(SynthesizerAttention, mode=part), mixture), tokens(LENGTH)
    close(mixture(x), single(x))


def test_synthesizer_mixture_weights_are_initially_equal():
    assert torch.equal(make(SynthesizerAttention, mode="dense+dot").shares.softmax(0), torch.tensor([0.5, 0.5]))


def test_synthesizer_with_a_zero_table_averages_the_tokens_that_are_not_padding():
    mechanism, x = make(SynthesizerAttention, mode="random"), tokens(LENGTH)
    torch.nn.init.zeros_(mechanism.table)
    padding = some_padding(x)
    mean = torch.stack([sample[~padded].mean(0) for sample, padded in zip(x, padding, strict=True)])
    close(mechanism(x, padding)[:, 4], mechanism.output(mechanism.value(mean)))


@pytest.mark.parametrize("sharing", ["none", "headwise", "key-value"])
def test_linformer_with_identity_projections_equals_full_attention(sharing):
    mechanism = make(LinformerAttention, rank=LENGTH, sharing=sharing)
    with torch.no_grad():
        mechanism.projections.copy_(torch.eye(LENGTH).expand_as(mechanism.projections))
    x = tokens(LENGTH)
    close(mechanism(x), same_weights(make(SoftmaxAttention), mechanism)(x))


def test_grouped_keys_are_initialised_as_the_mean_of_their_queries():
    built = make(SoftmaxAttention, **{"heads": 6}, kv_heads=2)
    first, second = built.query.weight.chunk(2)
    means = [torch.stack(half.chunk(3)).mean(0) for half in (first, second)]
    close(built.key.weight, torch.cat(means))


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_query_attention_equals_attention_with_repeated_keys_and_values(causal):
    grouped = make(SoftmaxAttention, **{"heads": 6}, kv_heads=2, causal=causal)
    plain = make(SoftmaxAttention, **{"heads": 6}, causal=causal)
    state = grouped.state_dict()
    for name in ("key.weight", "value.weight"):
        state[name] = state[name].unflatten(0, (2, -1)).repeat_interleave(3, dim=0).flatten(0, 1)
    plain.load_state_dict(state)
    x = tokens(LENGTH)
    close(grouped(x), plain(x))


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("mechanism", "knobs"),
    [
        (SoftmaxAttention, {}),
        (LongformerAttention, {"window": 3, "dilation": 2}),
        (ReformerAttention, {"bucket_size": 4}),
        (EntmaxAttention, {}),
        (TopkAttention, {"k": 4}),
        (AdaptiveSpanAttention, {"max_span": 7, "ramp": 4}),
    ],
)
def test_outputs_depend_on_relative_positions_only(mechanism, knobs, causal, rope):
    built, x = make(mechanism, causal=causal, rope=rope, **knobs), tokens(17)
    later = torch.cat([torch.zeros(2, 11, WIDTH), x], dim=1)
    close(built(later, torch.arange(28).expand(2, -1) < 11)[:, 11:], built(x))


def test_full_attention_depends_on_token_order_only_with_rotary_positions():
    x = tokens(LENGTH)
    plain = make(SoftmaxAttention)
    turning = same_weights(make(SoftmaxAttention, rope=True), plain)
    close(plain(x.flip(1)).flip(1), plain(x))
    assert not torch.allclose(turning(x.flip(1))[:, 0], turning(x)[:, -1], atol=1e-3)
    close(turning(x[:, :1]), plain(x[:, :1]))


def test_rotary_positions_in_the_thousands_are_exact():
    turned, x = rotary(4, 9000, enabled=True), torch.tensor([1.0, 2.0, 3.0, 4.0])
    for position in (0, 1, 8999):
        angles = [position, position / 100]
        expected = [complex(x[2 * j], x[2 * j + 1]) * cmath.exp(1j * angle) for j, angle in enumerate(angles)]
        both_heads = turned(x.repeat(2)[None, None], position)[0, 0]
        parts = [part for z in expected for part in (z.real, z.imag)]
        close(both_heads, torch.tensor(parts).repeat(2), 1e-6)


@pytest.mark.parametrize("mechanism", [SoftmaxAttention, LinformerAttention, LongformerAttention])
def test_query_and_key_projections_are_initially_equal(mechanism):
    knobs = {SoftmaxAttention: {}, LinformerAttention: {"rank": 2}, LongformerAttention: {"window": 2}}[mechanism]
    built = make(mechanism, **knobs)
    assert torch.equal(built.query.weight, built.key.weight)


# --- invalid settings ----------------------------------------------

REFUSED = [
    (SoftmaxAttention, {"width": 10, "heads": 3}, "width=10, heads=3: heads must divide width"),
    (SoftmaxAttention, {"length": 0}, "length=0: it must be a whole number from 1"),
    (SoftmaxAttention, {"kv_heads": 3}, "kv_heads=3: it must divide heads=2"),
    (SoftmaxAttention, {"kv_heads": 0}, "kv_heads=0: it must divide heads=2"),
    (LinformerAttention, {"rank": 64, "length": 31}, "rank=64: with length 31 it must be 1..31"),
    (LinformerAttention, {"rank": 0}, "rank=0: with length 41 it must be 1..41"),
    (
        LinformerAttention,
        {"rank": 4, "sharing": "layerwise"},
        "sharing='layerwise': it must be one of none, headwise, key-value",
    ),
    (
        LinformerAttention,
        {"rank": 4, "causal": True},
        "causal=True: linformer mixes all positions into every key",
    ),
    (LongformerAttention, {"window": 41}, "window=41: with length 41 it must be 0..40"),
    (LongformerAttention, {"window": -1}, "window=-1: with length 41 it must be 0..40"),
    (
        LongformerAttention,
        {"window": 8, "dilation": 6},
        "dilation=6: with length 41 and window 8 it must be 1..5",
    ),
    (
        LongformerAttention,
        {"window": 8, "dilation": 0},
        "dilation=0: with length 41 and window 8 it must be 1..5",
    ),
    (
        LongformerAttention,
        {"window": 0, "dilation": 2},
        "dilation=2: with length 41 and window 0 it must be 1..1",
    ),
    (
        LongformerAttention,
        {"window": 1, "global_tokens": 42},
        "global_tokens=42: with length 41 it must be 0..41",
    ),
    (LocalAttention, {"block_size": 42}, "block_size=42: with length 41 it must be 1..41"),
    (LocalAttention, {"block_size": 0}, "block_size=0: with length 41 it must be 1..41"),
    (LocalAttention, {"block_size": 8, "neighbours": 6}, "neighbours=6: with 6 blocks it must be 0..5"),
    (LocalAttention, {"block_size": 8, "neighbours": -1}, "neighbours=-1: with 6 blocks it must be 0..5"),
    (BigBirdAttention, {"block_size": 42}, "block_size=42: with length 41 it must be 1..41"),
    (BigBirdAttention, {"block_size": 8, "random_blocks": 7}, "random_blocks=7: with 6 blocks it must be 0..6"),
    (BigBirdAttention, {"block_size": 8, "global_blocks": -1}, "global_blocks=-1: with 6 blocks it must be 0..6"),
    (EntmaxAttention, {"alpha": 1.0}, "alpha=1.0: it must lie between 1.01 and 2, both excluded"),
    (EntmaxAttention, {"alpha": 2}, "alpha=2: it must lie between 1.01 and 2, both excluded"),
    (TopkAttention, {"k": 42}, "k=42: with length 41 it must be 1..41"),
    (TopkAttention, {"k": 0}, "k=0: with length 41 it must be 1..41"),
    (AdaptiveSpanAttention, {"max_span": 41}, "max_span=41: with length 41 it must be 0..40"),
    (AdaptiveSpanAttention, {"max_span": 8, "ramp": 0}, "ramp=0: it must be at least 1"),
    (ReformerAttention, {}, "bucket_size=None, bucket_count=None: give exactly one of them"),
    (ReformerAttention, {"bucket_size": 4, "bucket_count": 4}, "bucket_size=4, bucket_count=4: give exactly one"),
    (ReformerAttention, {"bucket_size": 42}, "bucket_size=42: with length 41 it must be 1..41"),
    (ReformerAttention, {"bucket_size": 0}, "bucket_size=0: with length 41 it must be 1..41"),
    (ReformerAttention, {"bucket_count": 7}, "bucket_count=7: with length 41 it must be an even number of 2..41"),
    (ReformerAttention, {"bucket_count": 42}, "bucket_count=42: with length 41 it must be an even number of 2..41"),
    (ReformerAttention, {"bucket_size": 4, "hashes": 0}, "hashes=0: it must be at least 1"),
    (SynthesizerAttention, {"mode": "dens"}, "mode='dens': it must be one of dense, random, factorised"),
    (
        SynthesizerAttention,
        {"mode": "dense", "rank": 4},
        "rank=4: mode='dense' has none; only factorised takes it",
    ),
    (SynthesizerAttention, {"mode": "dot+dot"}, "mode='dot+dot': each part may be used only once"),
    (SynthesizerAttention, {"mode": ""}, "mode='': it must be one of dense, random"),
    (SynthesizerAttention, {"mode": "random", "rank": 4}, "rank=4: mode='random' has none"),
    (SynthesizerAttention, {"mode": "factorised", "rank": 42}, "rank=42: with length 41 it must be 1..41"),
    (SynthesizerAttention, {"mode": "factorised", "rank": 0}, "rank=0: with length 41 it must be 1..41"),
    (LinearAttention, {"feature_map": "exp"}, "feature_map='exp': it must be one of elu, relu, softmax, hedgehog"),
    (
        LinearAttention,
        {"feature_map": "softmax", "causal": True},
        "causal=True: feature_map='softmax' normalises keys over all tokens",
    ),
    (PerformerAttention, {"features": 0}, "features=0: it must be at least 1"),
    (GatedAttention, {"decay": "none"}, "decay='none': it must be one of token, constant"),
    (DeltaAttention, {"decay": "constant"}, "decay='constant': it must be one of token, none"),
    (NystromformerAttention, {"landmarks": 4, "causal": True}, "causal=True: nystromformer's landmarks are means over"),
    (NystromformerAttention, {"landmarks": 0}, "landmarks=0: with length 41 it must be 1..41"),
    (NystromformerAttention, {"landmarks": 42}, "landmarks=42: with length 41 it must be 1..41"),
    (NystromformerAttention, {"landmarks": 4, "pinv_iterations": 0}, "pinv_iterations=0: it must be at least 1"),
    (NystromformerAttention, {"landmarks": 4, "conv_kernel_size": 4}, "conv_kernel_size=4: it must be odd, or 0"),
    (NystromformerAttention, {"landmarks": 4, "conv_kernel_size": -1}, "conv_kernel_size=-1: it must be odd, or 0"),
    *(
        (mechanism, {"heads": 4, "rope": True} | knobs, "rope=True: width / heads is 3: it must be even")
        for mechanism, knobs in (
            (SoftmaxAttention, {"kv_heads": 2}),
            (LongformerAttention, {"window": 3}),
            (ReformerAttention, {"bucket_size": 4}),
            (LocalAttention, {"block_size": 4}),
            (BigBirdAttention, {"block_size": 4}),
            (EntmaxAttention, {}),
            (TopkAttention, {"k": 4}),
            (AdaptiveSpanAttention, {"max_span": 4}),
        )
    ),
    (FNetAttention, {"causal": True}, "causal=True: fnet sums up all tokens in every frequency"),
]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("mechanism", "settings", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_invalid_settings_are_refused(mechanism, settings, message, device):
    with torch.device(device), pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below
        make(mechanism, **settings)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "mechanism", dict.fromkeys(row.mechanism for row in ROWS), ids=lambda mechanism: mechanism.__name__
)
def test_a_misspelt_setting_is_refused(mechanism):
    with pytest.raises(TypeError, match="unexpected keyword argument 'rnak'"):
        make(mechanism, rnak=3)


# --- spaces/attention/README.md ----------------------------------


def test_the_readme_lists_every_mechanism_with_what_it_can_do():
    text = (Path(spaces.attention.__file__).parent / "README.md").read_text().partition("## Benchmark")[0]
    rows = re.findall(r"^\| `(\w+)`( ⁴)? \|.*\| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    table = {name: columns for name, *columns in rows}
    for name in {row.name for row in ROWS}:
        rope, decodes, crosses = table.pop(name)
        rows = [row for row in ROWS if row.name == name]
        assert bool(rope) == any("rope" in row.knobs for row in rows), name
        assert decodes.startswith("yes") == any(row.causal and not row.no_decoding for row in rows), name
        assert crosses.startswith("yes") == (not rows[0].mechanism.no_cross_attention), name
    assert not table


def test_the_readmes_example_is_a_mechanism():
    text = (Path(spaces.attention.__file__).parent / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": "pool"}
    exec(compile(textwrap.dedent(example), "README.md", "exec"), names)
    row = Row(names["PoolAttention"], mean_of_neighbours, {"window": 5})
    test_output_and_gradients_agree_with_the_dense_reference.__wrapped__(row, LENGTH, some_padding)
    test_outputs_are_independent_of_content_and_amount_of_padding.__wrapped__(row)
    test_samples_of_a_batch_are_independent.__wrapped__(row)
    with pytest.raises(ValueError, match="causal must be false"):
        row.build(causal=True)


def mean_of_neighbours(mechanism: Any, x: Tensor, real: Tensor) -> Tensor:
    positions = torch.arange(x.shape[1])
    near = (positions[:, None] - positions).abs() <= mechanism.window // 2
    samples = [
        torch.stack([sample[near[i] & kept].mean(0) if kept[i] else torch.zeros(WIDTH) for i in positions.tolist()])
        for sample, kept in zip(x, real, strict=True)
    ]
    return torch.stack(samples)
