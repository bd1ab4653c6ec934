"""Published layout <-> ours: one table of names, both ways."""

from __future__ import annotations

from typing import Any

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


def is_published(name_or_path: Any) -> bool:
    return False
