"""Slow, obvious float64 references: every mechanism as full attention over explicitly built ``(n, n)`` logits.

Each takes a mechanism for its weights, ``x`` ``(batch, n, width)`` and ``real`` ``(batch, n)`` bool, true where a token
is not padding, and loops over samples and heads. For cross-attention, ``source`` is ``(batch, s, width)``, and ``real``
refers to it. No reference calls a fused kernel or the code under test.
"""

from __future__ import annotations

import torch


def attend(q, k, v, seen, *, scale=None, log_counts=0.0):
    """One head: ``q`` (n, d), ``k`` (s, d), ``v`` (s, e), ``seen`` (n, s) bool."""
    logits = q @ k.T * (q.shape[-1] ** -0.5 if scale is None else scale)
    return weigh(logits + log_counts, v, seen)


def weigh(logits, v, seen):
    """The softmax of each row over the keys that are not masked, times ``v``; 0 for a fully masked row."""
    sees = seen.any(-1, keepdim=True)
    weights = logits.masked_fill(~seen & sees, float("-inf")).softmax(-1)
    return torch.where(sees, weights, 0.0) @ v


def everything_seen(mechanism, n, s=None):
    seen = torch.ones(n, n if s is None else s, dtype=torch.bool)
    return seen.tril() if mechanism.causal else seen


def by_head(mechanism, x, real, rows, *source):
    """``rows(x, real, head, *source) -> (n, head_dim)`` for each sample and head, joined, projected.

    0 at padding; in cross-attention, 0 where the source is all padding.
    """
    samples = []
    for kept, *sequences in zip(real, x, *source, strict=True):
        sequences[-1] = torch.where(kept[:, None], sequences[-1], 0.0)
        sample, *other = sequences
        joined = torch.cat([rows(sample, kept, head, *other) for head in range(mechanism.heads)], dim=-1)
        answered = kept.any() if source else kept[:, None]
        samples.append(torch.where(answered, mechanism.output(joined), 0.0))
    return torch.stack(samples)


def head_of(linear, x, head, heads):
    """One head's part of a projection."""
    output = x @ linear.weight.chunk(heads)[head].T
    return output if linear.bias is None else output + linear.bias.chunk(heads)[head]


def qkv(mechanism, x, head, source=None, *, prefix=""):
    """Query, key and value of one head; with grouped queries, the key and value of its group."""
    source = x if source is None else source
    q, k, v = (getattr(mechanism, prefix + name) for name in ("query", "key", "value"))
    kv_heads = k.out_features // mechanism.head_dim
    shared = head * kv_heads // mechanism.heads
    q, k = head_of(q, x, head, mechanism.heads), head_of(k, source, shared, kv_heads)
    return rotated(mechanism, q), rotated(mechanism, k), head_of(v, source, shared, kv_heads)


def rotated(mechanism, x):
    """With rotary positions, ``x`` (n, d) with every pair of features rotated."""
    if "rotary.rotations" not in dict(mechanism.named_buffers()):
        return x
    n, half = len(x), x.shape[-1] // 2
    angles = torch.tensor([[i * 10_000 ** (-j / half) for j in range(half)] for i in range(n)], dtype=torch.float64)
    cos, sin = angles.cos().float(), angles.sin().float()  # kept in single precision
    a, b = x[:, ::2], x[:, 1::2]
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=-1).flatten(1)


def softmax(mechanism, x, real, *source):
    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        return attend(q, k, v, everything_seen(mechanism, len(q), len(k)) & kept)

    return by_head(mechanism, x, real, rows, *source)


def linformer(mechanism, x, real, *source):
    def rows(x, kept, head, *source):
        q, k, v = qkv(mechanism, x, head, *source)
        projections = mechanism.projections[:, head] if mechanism.sharing == "none" else mechanism.projections
        e, f = projections[0, :, : len(k)] * kept, projections[-1, :, : len(k)] * kept
        return attend(q, e @ k, f @ v, torch.ones(len(q), len(e), dtype=torch.bool))

    return by_head(mechanism, x, real, rows, *source)


def longformer(mechanism, x, real):
    n = x.shape[1]
    i, j = torch.arange(n)[:, None], torch.arange(n)
    distance = (i - j).abs()
    band = (distance % mechanism.dilation == 0) & (distance <= mechanism.window * mechanism.dilation)
    seen = (band | (j < mechanism.global_tokens)) & everything_seen(mechanism, n)

    def rows(x, kept, head):
        local = attend(*qkv(mechanism, x, head), seen & kept)
        if not mechanism.global_tokens:
            return local
        everywhere = attend(*qkv(mechanism, x, head, prefix="global_"), everything_seen(mechanism, n) & kept)
        return torch.where(i < mechanism.global_tokens, everywhere, local)

    return by_head(mechanism, x, real, rows)


def reformer(mechanism, x, real):
    """A softmax in which each key counts once for every round in which it is attended to."""
    n = x.shape[1]

    def rows(x, kept, head):
        qk = head_of(mechanism.query_key, x, head, mechanism.heads)
        counts = torch.zeros(n, n, dtype=torch.float64)
        for directions in mechanism.directions[head].T.chunk(mechanism.hashes):
            for chunk, shown in chunks_of_a_round(qk, directions.split(mechanism.factors), kept, mechanism.bucket_size):
                counts[torch.tensor(chunk)[:, None], torch.tensor(shown)] += 1
        if mechanism.causal:
            counts = counts.tril()
        counts.fill_diagonal_(0)
        counts[counts.sum(-1) == 0] = torch.eye(n, dtype=torch.float64)[counts.sum(-1) == 0]
        qk = rotated(mechanism, qk)
        normalised = qk / qk.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        v = head_of(mechanism.value, x, head, mechanism.heads)
        return attend(qk, normalised, v, counts > 0, scale=1.0, log_counts=counts.clamp(min=1).log())

    return by_head(mechanism, x, real, rows)


def chunks_of_a_round(qk, hashes, kept, size):
    """For each chunk: its tokens without padding, and those it attends to, its own and the previous chunk's."""
    buckets = [torch.cat([qk @ hashed.T, -qk @ hashed.T], dim=-1).argmax(-1).tolist() for hashed in hashes]
    order = sorted(kept.nonzero().flatten().tolist(), key=lambda i: ([each[i] for each in buckets], i))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    for number, chunk in enumerate(chunks):
        yield chunk, sorted({*chunk, *chunks[number - 1]})


def synthesizer(mechanism, x, real):
    n = x.shape[1]
    shares = mechanism.shares.softmax(0) if len(mechanism.parts) > 1 else [1.0]

    def rows(x, kept, head):
        logits = sum(
            share * synthesized(mechanism, part, x, head) for share, part in zip(shares, mechanism.parts, strict=True)
        )
        v = head_of(mechanism.value, x, head, mechanism.heads)
        return weigh(logits, v, everything_seen(mechanism, n) & kept)

    return by_head(mechanism, x, real, rows)


def synthesized(mechanism, part, x, head):
    """The logits ``(n, n)`` of one part of a mixture."""
    n = len(x)

    def hidden(linear):
        weight, bias = (p.chunk(mechanism.heads)[head] for p in (linear.weight, linear.bias))
        return (x @ weight.T + bias).clamp(min=0)

    if part == "dense":
        return hidden(mechanism.hidden) @ mechanism.positions[head, :n].T
    if part == "random":
        return mechanism.table[head, :n, :n]
    if part == "factorised":
        return mechanism.factors[0, head, :n] @ mechanism.factors[1, head, :n].T
    if part == "dot":
        q, k = (head_of(each, x, head, mechanism.heads) for each in (mechanism.query, mechanism.key))
        return q @ k.T * q.shape[-1] ** -0.5
    tiles, columns = hidden(mechanism.tile_hidden) @ mechanism.tiles[head].T, mechanism.columns
    return torch.stack([tiles[:, j % columns] * tiles[:, columns + j // columns] for j in range(n)], dim=-1)
