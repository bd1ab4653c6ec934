"""The job that training memory and time are compared by: FlashSloth, beside itself with all its visual tokens.

In: a stage and a size. Out: a :class:`TrainingJob` that makes either model and its batches. The rival has the same
encoder, projector and language model, but nothing in SAP's place, and neither query tokens nor EmbQ: every patch is a
visual token, as in LLaVA-1.5 and Imp.

Legend: B rows, T positions of a row, N pictures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flashsloth.benchmark.cost import COLOR_CHANNELS
from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.known_models import find_model
from flashsloth.benchmark.training_step import MicroBatch
from flashsloth.inference.precision import DTYPES
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.training.stages import STAGES, freeze_all_but

FLASHSLOTH, ALL_TOKENS = "FlashSloth", "all visual tokens"
SUBJECTS = (FLASHSLOTH, ALL_TOKENS)
STAGE_NAMES = ("alignment", "instruction")
LEFT_OUT = {"sap", "query_tokens", "embq"}
"""Parts that the rival does not have."""
EVERY_PATCH = 1
"""The side of windows that hold one patch."""


@dataclass(frozen=True)
class TrainingJob:
    """One measurement.

    Attributes:
        subject: one of :data:`SUBJECTS`.
        stage: one of :data:`STAGE_NAMES`.
        model: the size: a name as `flashsloth plan` takes it; None for the small model.
        layers: of each tower; None for all.
        rows: samples a step.
        text_tokens: of each.
        dtype: of weights, gradients, optimizer and activations alike.
        activation_checkpointing: whether layers are run again in backward.
    """

    subject: str
    stage: str
    model: str | None
    layers: int | None
    rows: int
    text_tokens: int
    dtype: str = "bfloat16"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("subject", SUBJECTS), ("stage", STAGE_NAMES), ("dtype", tuple(DTYPES))):
            if getattr(self, name) not in choices:
                raise BenchmarkError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        for name in ("layers", "rows", "text_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BenchmarkError(f"{name} is {value}; expected at least 1")

    @property
    def has_queries(self) -> bool:
        """Whether query tokens stand after the text."""
        return self.subject == FLASHSLOTH and STAGES[self.stage].template != "plain"

    @property
    def trains(self) -> tuple[str, ...]:
        """The stage's parts, as far as the subject has them."""
        parts = STAGES[self.stage].trains
        return parts if self.subject == FLASHSLOTH else tuple(part for part in parts if part not in LEFT_OUT)

    @property
    def micro_batch(self) -> MicroBatch:
        """What a step sees."""
        return MicroBatch(self.rows, self.text_tokens, pictures=1, has_queries=self.has_queries)

    def config(self) -> FlashSlothConfig:
        """The subject's, with so many layers."""
        config = find_model(self.model).config
        fields = config.to_dict()
        if self.layers is not None:
            fields["text_config"]["num_hidden_layers"] = self.layers
            fields["text_config"].pop("layer_types", None)
            fields["vision_config"]["num_hidden_layers"] = self.layers - min(0, config.vision_feature_layer + 1)
            fields["embq_layer"] = min(config.embq_layer, self.layers // 2)
        if self.subject == ALL_TOKENS:
            fields["pool_size"] = EVERY_PATCH
        return FlashSlothConfig.from_dict(fields)

    def make(self) -> FlashSlothForConditionalGeneration:
        """The subject, random, ready to learn."""
        from flashsloth.benchmark.random_weights import make_random

        config, dtype = self.config(), DTYPES[self.dtype]
        made = make_random(
            lambda: FlashSlothForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=dtype),
            torch.device("cpu"),
            seed=0,
        )
        if self.subject == ALL_TOKENS:
            made.model.spatial_attention_pooling = nn.Identity()
        freeze_all_but(made, self.trains)
        if self.activation_checkpointing:
            made.gradient_checkpointing_enable({"use_reentrant": False})
        return made.train()

    def batch(self, config: FlashSlothConfig) -> dict[str, torch.Tensor]:
        """Inputs of a step: one picture a row, then text, all of it supervised, then the query tokens."""
        length, visual = self.micro_batch.positions(config), config.num_image_tokens
        ids = torch.full((self.rows, length), config.anchor_token_id)
        ids[:, :visual] = config.image_token_id
        marks = {name: torch.zeros_like(ids) for name in ("image_index", "query_turn", "question_turn")}
        marks["image_index"][:, :visual] = 1
        labels = ids.clone()
        labels[:, :visual] = -100
        if self.has_queries:
            queries = slice(length - config.num_query_tokens, length)
            ids[:, queries] = config.query_token_id
            marks["query_turn"][:, queries] = 1
            marks["question_turn"][:, visual : queries.start] = 1
            labels[:, queries] = -100
        side = config.vision_config.image_size
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(self.rows, config.num_views, COLOR_CHANNELS, side, side, generator=generator)
        return {"input_ids": ids, "labels": labels, "pixel_values": pixels.to(DTYPES[self.dtype]), **marks}

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self)


__all__ = ["ALL_TOKENS", "FLASHSLOTH", "STAGE_NAMES", "SUBJECTS", "TrainingJob"]
