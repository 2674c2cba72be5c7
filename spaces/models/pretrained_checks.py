"""Whether a checkpoint fits a task and the settings of a network, in messages that name what fits."""

from __future__ import annotations

from collections.abc import Sequence

from spaces.attention import Mechanism
from spaces.attention.kernels.pairs import PairsAttention
from spaces.attention.kernels.rotary import is_rotary
from spaces.attention.projections import QKVMechanism
from spaces.models.checkpoint import Checkpoint
from spaces.models.families import FAMILIES
from spaces.spec import TaskSpec


def check_fit(source: Checkpoint, spec: TaskSpec, mechanisms: Sequence[Mechanism], width: int) -> None:
    """Raise ``ValueError`` unless a checkpoint has the sizes of the blocks."""
    if len(mechanisms) > source.depth:
        raise ValueError(f"depth={len(mechanisms)}: the checkpoint has {source.depth} layers")
    if width != source.width:
        raise ValueError(f"width={width}: it must be the checkpoint's, {source.width}")
    for mechanism in mechanisms:
        if mechanism.length != spec.length + source.class_tokens:
            given = f"class_tokens={mechanism.length - spec.length}"
            raise ValueError(f"{given}: it must be the checkpoint's, {source.class_tokens}")
        heads = mechanism.width // mechanism.head_dim
        if heads != source.heads:
            raise ValueError(f"heads={heads}: it must be the checkpoint's, {source.heads}")
        if isinstance(mechanism, QKVMechanism) and mechanism.kv_heads not in (mechanism.heads, source.kv_heads):
            has = f"the checkpoint has {source.kv_heads} heads of keys and values"
            raise ValueError(f"kv_heads={mechanism.kv_heads}: {has}")
        if mechanism.causal < source.causal:
            raise ValueError("causal=False: the checkpoint attends to earlier tokens only; give model.causal=true")
        if isinstance(mechanism, PairsAttention) and is_rotary(mechanism.rotary) != source.rotary:
            wanted = str(source.rotary).lower()
            raise ValueError(f"rope={str(not source.rotary).lower()}: for this checkpoint it must be {wanted}")


def check_classifies(source: Checkpoint, spec: TaskSpec) -> None:
    """Raise ``ValueError`` unless a task has one label per text of the checkpoint's tokens.

    Images are checked by :class:`~spaces.models.patch_embedding.PatchEmbedding`.
    """
    if source.image is not None:
        return
    if spec.vocabulary is None:
        raise ValueError("this checkpoint reads texts, as token ids: the task must be one of texts, such as table")
    if spec.per_token or spec.answer_length is not None or spec.subtasks:
        raise ValueError("this checkpoint classifies texts: this task is another one")
    _check_tokens(source, spec)


def check_continues(source: Checkpoint, spec: TaskSpec) -> None:
    """Raise ``ValueError`` unless a checkpoint is a language model, and a task asks for the next token."""
    if not source.causal:
        known = " or ".join(name for name, family in FAMILIES.items() if family.causal)
        kind = source.kind
        raise ValueError(f"model_type={kind!r} is no language model; it must be {known}, or the space pretrained")
    if not spec.causal or not spec.per_token or spec.vocabulary != spec.classes:
        raise ValueError("this checkpoint continues texts: the task must ask for the next token, such as writing")
    _check_tokens(source, spec)


def _check_tokens(source: Checkpoint, spec: TaskSpec) -> None:
    assert spec.vocabulary is not None
    if max(spec.vocabulary, 1 + max(spec.kept_ids or [0])) > source.vocabulary:
        sizes = f"{spec.vocabulary} tokens, the checkpoint's table has {source.vocabulary}"
        advice = f"take the checkpoint's tokenizer, space.input.tokens={source.tokenizer}"
        raise ValueError(f"the task has {sizes}; {advice}")
    if spec.length > source.positions:
        raise ValueError(f"length={spec.length}: the checkpoint has {source.positions} positions")
