"""References like those of ``references.py``, for mechanisms whose weights are not a softmax over logits."""

from __future__ import annotations

import torch
from references import by_head, everything_seen, qkv

from spaces.attention.performer import EPSILON


def averaged(weights, v, seen):
    """The masked ``weights`` (n, s), divided by their row sums, times ``v``; 0 where the sum is 0."""
    weights = torch.where(seen, weights, 0.0)
    sums = weights.sum(-1, keepdim=True)
    return weights @ v / torch.where(sums == 0, 1.0, sums)


def hedgehog(x, weight):
    exponentials = torch.stack([sign * x @ weight.T for sign in (1, -1)]).exp()
    return torch.cat(list(exponentials / exponentials.sum((0, -1), keepdim=True)), -1)


def linear(mechanism, x, real, *source):
    features = {
        "elu": lambda x, *_: torch.nn.functional.elu(x) + 1,
        "relu": lambda x, *_: x.relu() + 1e-3,
        "softmax": lambda x, *_: x.softmax(-1),
        "hedgehog": lambda x, which, head: hedgehog(x, mechanism.maps[which, head]),
    }[mechanism.feature_map]

    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        k_features = features(k, 1, head)
        if mechanism.feature_map == "softmax":
            k_features = torch.zeros_like(k)
            if kept.any():
                k_features = k_features.masked_scatter(kept[:, None], k[kept].softmax(0))
        return averaged(features(q, 0, head) @ k_features.T, v, everything_seen(mechanism, len(q), len(k)) & kept)

    return by_head(mechanism, x, real, rows, *source)


def performer(mechanism, x, real, *source):
    """The matrix of products of features, divided by the largest feature of the query and of all keys."""
    directions, scale = mechanism.directions, mechanism.head_dim**-0.25

    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        q, k = q * scale, k * scale
        q_logs, k_logs = q @ directions, k @ directions - (k**2).sum(-1, keepdim=True) / 2
        q_features = (q_logs - q_logs.detach().amax(-1, keepdim=True)).exp() + EPSILON
        k_features = (k_logs - k_logs.detach().max()).exp()
        return averaged(q_features @ k_features.T, v, everything_seen(mechanism, len(q), len(k)) & kept)

    return by_head(mechanism, x, real, rows, *source)


def gated(mechanism, x, real):
    """All pairs of tokens with the product of the decays between them; bidirectional, a token counts itself twice."""

    def rows(x, kept, head):
        q, k, v = qkv(mechanism, x, head)
        if mechanism.decay == "token":
            steps, decays = set_by_tokens(mechanism.token_decay, x, head)
            v = v * steps[:, None]
        else:
            decays = mechanism.log_decay[head].exp().expand(len(x))
        decays = torch.where(kept, decays, 1.0)
        forward = decay_between(decays)
        weights = forward if mechanism.causal else forward + decay_between(decays.flip(0)).flip(0, 1)
        sums = ((q @ k.T) * weights * kept) @ v
        return sums / (sums.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    return by_head(mechanism, x, real, rows)


def set_by_tokens(gates, x, head):
    """The steps and decays of one head."""
    steps = torch.nn.functional.softplus(x @ gates.step_size.weight[head] + gates.step_size.bias[head])
    return steps, torch.exp(-gates.log_rates[head].exp() * steps)


def delta(mechanism, x, real):
    """The recurrence, token after token, in both directions unless causal."""

    def rows(x, kept, head):
        q, k, v = qkv(mechanism, x, head)
        k = k / k.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        strength = (x @ mechanism.strength.weight[head] + mechanism.strength.bias[head]).sigmoid()
        decays = torch.ones_like(strength)
        if mechanism.decay == "token":
            _, decays = set_by_tokens(mechanism.token_decay, x, head)
        order = [i for i in range(len(x)) if kept[i]]
        sums = delta_rule(q, k, v, strength, decays, order)
        if not mechanism.causal:
            sums = sums + delta_rule(q, k, v, strength, decays, order[::-1])
        return sums / (sums.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    return by_head(mechanism, x, real, rows)


def delta_rule(q, k, v, strength, decays, order):
    """The output of one head for the tokens in ``order``, in that order; 0 for the others."""
    state, read = v.new_zeros(k.shape[-1], v.shape[-1]), [torch.zeros_like(v[0]) for _ in v]
    for i in order:
        erased = torch.eye(len(k[i]), dtype=k.dtype) - strength[i] * torch.outer(k[i], k[i])
        state = decays[i] * erased @ state + strength[i] * torch.outer(k[i], v[i])
        read[i] = q[i] @ state
    return torch.stack(read)


def decay_between(decays):
    """The product of ``decays[j + 1 .. i]`` at ``(i, j)`` for ``j <= i``, and 0 above."""
    rows = [torch.zeros(len(decays), dtype=decays.dtype)]
    for i, decay in enumerate(decays):
        itself = torch.nn.functional.one_hot(torch.tensor(i), len(decays))
        rows.append(rows[-1] * decay + itself)
    return torch.stack(rows[1:])


def nystromformer(mechanism, x, real, *source):
    """Landmarks, including those of queries, are means over the source tokens."""

    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        mixed = torch.zeros_like(q)
        if kept.any():
            groups = equal_groups(kept.nonzero().flatten().tolist(), mechanism.landmarks)
            q_source, *_ = qkv(mechanism, source[0] if source else x, head)
            q_marks, k_marks = (torch.stack([y[group].mean(0) for group in groups]) for y in (q_source, k))
            scale = q.shape[-1] ** -0.5
            between = (q_marks @ k_marks.T * scale).softmax(-1)
            inverse = between.T / (between.sum(0).max() * between.sum(1).max())
            one = torch.eye(len(groups), dtype=x.dtype)
            for _ in range(mechanism.pinv_iterations):
                product = between @ inverse
                inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
            to_tokens = (q_marks @ k[kept].T * scale).softmax(-1) @ v[kept]
            mixed = (q @ k_marks.T * scale).softmax(-1) @ inverse @ to_tokens
        if mechanism.taps is None:
            return mixed
        half, v = mechanism.taps.shape[1] // 2, v * kept[:, None]
        convolved = [
            sum(mechanism.taps[head, j - i + half] * v[j] for j in range(max(0, i - half), min(len(v), i + half + 1)))
            for i in range(len(v))
        ]
        return mixed + torch.stack(convolved)

    return by_head(mechanism, x, real, rows, *source)


def equal_groups(items, count):
    """``items`` in at most ``count`` consecutive groups of nearly equal size."""
    groups = [[] for _ in range(count)]
    for rank, item in enumerate(items):
        groups[rank * count // len(items)].append(item)
    return [group for group in groups if group]


def fnet(mechanism, x, real):
    samples = []
    for sample, kept in zip(x, real, strict=True):
        mixed = torch.zeros_like(sample)
        if kept.any():
            chosen = sample[kept].to(torch.complex128)
            mixed = mixed.masked_scatter(kept[:, None], (dft(len(chosen)) @ chosen @ dft(x.shape[-1])).real)
        samples.append(mixed)
    return torch.stack(samples)


def dft(n):
    """The matrix of the orthonormal discrete Fourier transform."""
    i = torch.arange(n, dtype=torch.float64)
    return torch.exp(-2j * torch.pi * torch.outer(i, i) / n) / n**0.5
