"""Projections of queries, keys and values, which most mechanisms have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.attention import Mechanism, Shape

Projection = tuple[Tensor, Tensor | None]  # weight and bias


class QKVMechanism(Mechanism):
    """A mechanism with ``query``, ``key`` and ``value`` projections, without biases, and an ``output`` projection.

    Args:
        shape: the sizes, and whether it is causal.
        kv_heads: heads of the keys and values, which groups of ``heads / kv_heads`` query heads share; ``heads`` unless
            given.
        kept_heads: share of the heads that exist, above 0, at least one head; their width stays ``width / heads``. Of a
            trained layer the most important ones are copied, see :func:`important_heads`.
    """

    def __init__(self, shape: Shape, *, kv_heads: int | None = None, kept_heads: float = 1.0) -> None:
        super().__init__(shape)
        if not 0 < kept_heads <= 1:
            raise ValueError(f"kept_heads={kept_heads!r}: it must be above 0 and at most 1")
        if kept_heads < 1 and kv_heads is not None:
            raise ValueError(f"kept_heads={kept_heads}: it cannot be combined with kv_heads={kv_heads}")
        self.heads = max(1, round(kept_heads * shape.heads))
        self.kv_heads = self.heads if kv_heads is None else kv_heads
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={kv_heads}: it must divide heads={shape.heads}")
        features = self.heads * shape.head_dim
        self.query = nn.Linear(shape.width, features, bias=False)
        self.key = nn.Linear(shape.width, self.kv_heads * shape.head_dim, bias=False)
        self.value = nn.Linear(shape.width, self.kv_heads * shape.head_dim, bias=False)
        self.output = nn.Linear(features, shape.width)
        init_key_from_query(self.query, self.key, head_dim=shape.head_dim)

    def add_biases(self) -> None:
        """Give the projections of queries, keys and values biases of 0, as trained checkpoints have them."""
        for projection in self.input_projections():
            projection.bias = nn.Parameter(projection.weight.new_zeros(projection.out_features))

    def zero_padding(self, projected: Tensor, padding: Tensor | None) -> Tensor:
        """Keys or values ``(batch, heads, n, d)`` with 0 at padding, where they are their bias if there is one."""
        if padding is None or self.key.bias is None:
            return projected
        return projected.masked_fill(padding[:, None, :, None], 0.0)

    def input_projections(self) -> tuple[nn.Linear, ...]:
        """The projections of queries, keys and values, in this order, perhaps several times."""
        return self.query, self.key, self.value

    @torch.no_grad()
    def load_projections(self, *weights: Projection) -> None:
        """Copy weight and bias of a trained layer's query, key, value and output projections, of the heads kept.

        Keys and values that groups of the trained heads share are repeated for each of them; where groups of this
        mechanism's heads share them, they are the means of a group (Ainslie et al., 2023, section 2.1).
        """
        query, key, value, (output, output_bias) = weights
        key, value = (self._per_head(each, len(query[0])) for each in (key, value))
        kept = important_heads(value[0], output, self.heads, head_dim=self.head_dim)
        rows = (kept[:, None] * self.head_dim + torch.arange(self.head_dim)).flatten()
        projections = self.input_projections()
        for projection, trained in zip(projections, (query, key, value) * (len(projections) // 3), strict=True):
            for name, tensor in zip(("weight", "bias"), trained, strict=True):
                if tensor is not None:
                    features = projection.out_features // self.head_dim
                    heads = tensor[rows].unflatten(0, (features, -1, self.head_dim)).mean(1).flatten(0, 1)
                    getattr(projection, name).copy_(heads)
        self.output.weight.copy_(output[:, rows])
        self.output.bias.copy_(self.output.bias.new_zeros(()) if output_bias is None else output_bias)

    def _per_head(self, projection: Projection, features: int) -> Projection:
        """Weight and bias of keys or values with ``features`` outputs, repeated for the heads that share them."""
        weight, bias = (
            each
            if each is None
            else each.unflatten(0, (-1, self.head_dim)).repeat_interleave(features // len(each), 0).flatten(0, 1)
            for each in projection
        )
        assert weight is not None
        return weight, bias


def important_heads(value: Tensor, output: Tensor, count: int, *, head_dim: int) -> Tensor:
    """The numbers, ascending, of the ``count`` heads with the largest product of the norms of value and output weights.

    Args:
        value: ``(heads * head_dim, width)``.
        output: ``(width, heads * head_dim)``.
        count: at most the number of heads.
        head_dim: features per head.
    """
    importance = value.unflatten(0, (-1, head_dim)).norm(dim=(1, 2)) * output.unflatten(1, (-1, head_dim)).norm(
        dim=(0, 2)
    )
    return importance.topk(count).indices.sort().values


@torch.no_grad()
def init_key_from_query(query: nn.Linear, key: nn.Linear, *, head_dim: int) -> None:
    """Initialise the key projection as a copy of the query projection; with grouped queries, as the mean of a group.

    A token then attends at first to tokens like itself, which is half of what associative recall needs: small models
    learn recall within seconds with this initialisation and not at all without it (measured). Training separates the
    two projections.
    """
    heads = key.out_features // head_dim
    key.weight.copy_(query.weight.unflatten(0, (heads, -1, head_dim)).mean(1).flatten(0, 1))
