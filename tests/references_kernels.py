"""References like those of ``references.py``, for mechanisms whose weights are not a softmax over logits."""

from __future__ import annotations

import torch
from references import by_head, everything_seen, qkv

from spaces.attention.performer import EPSILON


def averaged(weights, v, seen):
    """The rows of ``weights`` (n, s) over what they see, divided by their sums, times ``v``; 0 where that is 0."""
    weights = torch.where(seen, weights, 0.0)
    sums = weights.sum(-1, keepdim=True)
    return weights @ v / torch.where(sums == 0, 1.0, sums)


def linear(mechanism, x, real):
    features = {
        "elu": lambda x: torch.nn.functional.elu(x) + 1,
        "relu": lambda x: x.relu() + 1e-3,
        "softmax": lambda x: x.softmax(-1),
    }[mechanism.feature_map]

    def rows(x, kept, head):
        q, k, v = qkv(mechanism, x, head)
        k_features = features(k)
        if mechanism.feature_map == "softmax":
            k_features = torch.zeros_like(k)
            if kept.any():
                k_features = k_features.masked_scatter(kept[:, None], k[kept].softmax(0))
        return averaged(features(q) @ k_features.T, v, everything_seen(mechanism, len(x)) & kept)

    return by_head(mechanism, x, real, rows)


def performer(mechanism, x, real):
    """Products of features, each divided by the largest of its query or of all keys, as one matrix."""
    directions, scale = mechanism.directions, mechanism.head_width**-0.25

    def rows(x, kept, head):
        q, k, v = qkv(mechanism, x, head)
        q, k = q * scale, k * scale
        q_logs, k_logs = q @ directions, k @ directions - (k**2).sum(-1, keepdim=True) / 2
        q_features = (q_logs - q_logs.detach().amax(-1, keepdim=True)).exp() + EPSILON
        k_features = (k_logs - k_logs.detach().max()).exp()
        return averaged(q_features @ k_features.T, v, everything_seen(mechanism, len(x)) & kept)

    return by_head(mechanism, x, real, rows)


def gated(mechanism, x, real):
    """Every pair of tokens, with the product of the decays from the one to the other; a token sees itself twice."""

    def rows(x, kept, head):
        q, k, v = qkv(mechanism, x, head)
        if mechanism.decay == "token":
            gate = mechanism.step_size
            steps = torch.nn.functional.softplus(x @ gate.weight[head] + gate.bias[head])
            decays, v = torch.exp(-mechanism.log_rates[head].exp() * steps), v * steps[:, None]
        else:
            decays = mechanism.log_decay[head].exp().expand(len(x))
        decays = torch.where(kept, decays, 1.0)
        forward = decay_between(decays)
        weights = forward if mechanism.causal else forward + decay_between(decays.flip(0)).flip(0, 1)
        sums = ((q @ k.T) * weights * kept) @ v
        return sums / (sums.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    return by_head(mechanism, x, real, rows)


def decay_between(decays):
    """The product of ``decays[j + 1 .. i]`` at ``(i, j)`` for ``j <= i``, and 0 above: what is left of j at i."""
    rows = [torch.zeros(len(decays), dtype=decays.dtype)]
    for i, decay in enumerate(decays):
        itself = torch.nn.functional.one_hot(torch.tensor(i), len(decays))
        rows.append(rows[-1] * decay + itself)
    return torch.stack(rows[1:])
