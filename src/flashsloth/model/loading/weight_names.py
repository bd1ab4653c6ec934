"""What the published layout and ours call the same tensor: one table, both ways.

In: a tensor's name, or tensors by name. Out: the other layout's. Values, shapes and types are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Held = TypeVar("Held")

NAMES: tuple[tuple[str, str], ...] = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.pooling.mlp.0.", "model.spatial_attention_pooling.score_in."),
    ("model.pooling.mlp.3.", "model.spatial_attention_pooling.score_out."),
    ("model.mm_projector.0.", "model.projector.linear_1."),
    ("model.mm_projector.2.", "model.projector.linear_2."),
    ("model.learnable_tokens.token", "model.query_tokens.weight"),
    ("model.lqformer.down_projector_learnable_text.", "model.embedded_query.down_text."),
    ("model.lqformer.down_projector_image.", "model.embedded_query.down_image."),
    ("model.lqformer.layers.0.ln_q.", "model.embedded_query.norm_query."),
    ("model.lqformer.layers.0.ln_text.", "model.embedded_query.norm_text."),
    ("model.lqformer.layers.0.ln_kv.", "model.embedded_query.norm_image."),
    ("model.lqformer.layers.0.t2q_attn.", "model.embedded_query.text_attention."),
    ("model.lqformer.layers.0.i2q_attn.", "model.embedded_query.image_attention."),
    ("model.lqformer.up_projector.", "model.embedded_query.up."),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.final_layernorm.", "model.language_model.final_layernorm."),
    ("lm_head.", "lm_head."),
)
"""How names begin: published, ours."""

STAGE_2_PARTS = ("model.query_tokens.", "model.embedded_query.")
"""How our names of what stage 1 does not train begin; a stage-1 checkpoint may lack them, all or none."""


def to_ours(name: str) -> str | None:
    """Our name of a published tensor; None if the published layout has no such tensor."""
    return _renamed(name, NAMES)


def by_our_names(tensors: Mapping[str, Held], *, published: bool = True) -> dict[str, Held]:
    """What is held of a checkpoint's tensors, under our names; a name that the published layout has not stays."""
    return {(to_ours(name) or name) if published else name: held for name, held in tensors.items()}


def to_published(name: str) -> str | None:
    """The published name of a tensor of ours; None if the published layout cannot hold it."""
    return _renamed(name, tuple((ours, published) for published, ours in NAMES))


def is_stage_2_only(name: str) -> bool:
    """Whether our name `name` is of a part that only stage 2 trains: the query tokens and EmbQ."""
    return name.startswith(STAGE_2_PARTS)


def allowed_missing_keys(config: Any, missing: Iterable[str], expected: Iterable[str]) -> set[str]:
    """Which missing tensors are no fault: what stage 2 trains, in a checkpoint of stage 1, where all of it is missing.

    Args:
        config: the checkpoint's configuration; `training_stage` 1 says that it is one of stage 1.
        missing: our names of what is missing.
        expected: our names of every tensor of the model.
    """
    stage_2 = {name for name in expected if is_stage_2_only(name)}
    is_stage_1 = getattr(config, "training_stage", None) == 1
    return stage_2 if is_stage_1 and stage_2 <= set(missing) else set()


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    for old, new in table:
        if name.startswith(old):
            return new + name[len(old) :]
    return None
