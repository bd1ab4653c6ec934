"""What one step of training holds for a moment, of a model of any size, with nothing computed.

In: a configuration, what learns, and a micro-batch. Out: bytes: of the weights, of what learns, and the most that is
alive at once while the step runs forward and backward, beside weights and gradients.

The step is really run, by the model's own code, on torch's fake tensors, which have a shape and a type but no numbers;
and every tensor's bytes are counted while it lives. So the count holds for any encoder and language model, for frozen
parts, adapters and activation checkpointing. Attention is counted as fused. Gradients are taken to be there already, as
when several micro-batches are added up.

Legend: B rows, T positions of a row, n supervised positions, N pictures, Q query tokens, L text tokens of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.loss import sum_by_chunks
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.planning.flops import COLOR_CHANNELS
from flashsloth.planning.memory import LiveMemory
from flashsloth.training.recipe_fields import UNQUANTIZED, AdapterSettings
from flashsloth.training.stages import freeze_all_but

MIXED, HALF, FULL = "mixed", "half", "full"
COMPUTING = (MIXED, HALF, FULL)
"""bfloat16 by autocast over float32 weights; bfloat16 weights; float32."""


@dataclass(frozen=True)
class MicroBatch:
    """What a device has at a time.

    Attributes:
        rows: samples.
        text_tokens: of each, all of them supervised.
        pictures: of each.
        has_queries: whether query tokens stand after the text.
    """

    rows: int
    text_tokens: int
    pictures: int
    has_queries: bool

    def positions(self, config: FlashSlothConfig) -> int:
        """T, positions of a row."""
        queries = config.num_query_tokens if self.has_queries else 0
        return self.text_tokens + self.pictures * config.num_image_tokens + queries


@dataclass(frozen=True)
class StepBytes:
    """What a step needs.

    Attributes:
        parameters: numbers in all.
        learning: numbers that learn.
        weights: bytes of all weights, as they are kept for computing.
        activations: bytes of everything else but gradients, at the moment when most is held.
        largest_layer: numbers of the largest transformer layer.
        outside_layers: numbers in no transformer layer: embeddings, head, everything around.
    """

    parameters: int
    learning: int
    weights: int
    activations: int
    largest_layer: int
    outside_layers: int


def step_bytes(
    config: FlashSlothConfig,
    trains: tuple[str, ...],
    batch: MicroBatch,
    *,
    computing: str = MIXED,
    activation_checkpointing: bool = False,
    adapter: AdapterSettings | None = None,
    attention: str = "sdpa",
    encodes: bool = True,
) -> StepBytes:
    """Run a step without computing it.

    Args:
        config: of the model.
        trains: parts that learn, by their names in :data:`~flashsloth.training.stages.PARTS`.
        batch: what the step sees.
        computing: one of :data:`COMPUTING`.
        activation_checkpointing: whether layers are run again in backward.
        adapter: through which the language model learns, if it does.
        attention: transformers' name of the implementation.
        encodes: whether the encoder runs, or its features are read.
    """
    model, learner = meta_learner(config, trains, computing=computing, adapter=adapter, attention=attention)
    if activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _fake(learner, mode)
        learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.grad = torch.zeros_like(parameter)
        memory = LiveMemory(learner)
        memory.leave_out(parameter.grad for parameter in learning)
        with memory:
            _run(model, batch, computing, encodes)
        return StepBytes(
            parameters=sum(parameter.numel() for parameter in learner.parameters()),
            learning=sum(parameter.numel() for parameter in learning),
            weights=sum(parameter.nbytes for parameter in learner.parameters()),
            activations=memory.peak,
            **_layers(learner),
        )


def meta_learner(
    config: FlashSlothConfig,
    trains: tuple[str, ...],
    *,
    computing: str = MIXED,
    adapter: AdapterSettings | None = None,
    attention: str = "sdpa",
) -> tuple[FlashSlothForConditionalGeneration, nn.Module]:
    """A model on the meta device, frozen as a stage freezes it; and what holds all its parameters, adapters and all."""
    with torch.device("meta"):
        model = FlashSlothForConditionalGeneration._from_config(config, attn_implementation=attention)
    model = model.to(torch.bfloat16 if computing == HALF else torch.float32).train()
    freeze_all_but(model, trains)
    if adapter is None:
        return model, model
    from flashsloth.checkpoint.adapter import Base
    from flashsloth.training.lora import add_adapter

    plain = adapter.model_copy(update={"quantize": UNQUANTIZED})  # four bits cannot be faked: `plan.py` counts them
    with torch.device("meta"):
        learner = add_adapter(model, trains, plain, Base("", "", UNQUANTIZED), half_precision=computing != FULL)
    return model, learner


def _fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Put fake tensors of a processor in the place of those of the meta device, where nothing computes by autocast."""
    fakes: dict[torch.Tensor, torch.Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if tensor not in fakes:
                    fake = FakeTensor(mode, tensor.detach(), torch.device("cpu"))
                    learns = tensor.requires_grad
                    fakes[tensor] = nn.Parameter(fake, learns) if isinstance(tensor, nn.Parameter) else fake
                table[name] = fakes[tensor]  # type: ignore[assignment]


def _run(model: FlashSlothForConditionalGeneration, batch: MicroBatch, computing: str, encodes: bool) -> None:
    """Forward and backward through every part, positions laid out without looking at numbers."""
    core = model.model
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=computing == MIXED):
        states, inputs = _inputs(core, batch, torch.bfloat16 if computing == HALF else torch.float32, encodes)
        output = core.language_model(inputs_embeds=states, use_cache=False, return_dict=True, **inputs)
        del states, inputs
        supervised = output.last_hidden_state[:, -batch.text_tokens :].flatten(0, 1)  # [n, D]
        targets = torch.zeros(len(supervised), dtype=torch.long)
        # what `LanguageModelHead` does; PEFT may have wrapped it
        total = sum_by_chunks(model.lm_head, supervised, targets, training=True).total
    del output, supervised
    total.backward()


def _inputs(
    core: Any, batch: MicroBatch, dtype: torch.dtype, encodes: bool
) -> tuple[torch.Tensor, dict[str, EmbeddedQueryInputs]]:
    """What the language model reads, float [B, T, D], and what EmbQ looks at."""
    visual, features = _look(core, batch, dtype, encodes)
    words = core.get_input_embeddings()(torch.zeros(batch.rows, batch.text_tokens, dtype=torch.long))  # [B, L, D]
    parts = [words] if visual is None else [visual.to(words.dtype), words]
    if not batch.has_queries:
        return torch.cat(parts, dim=1), {}
    anchor = core.get_input_embeddings()(torch.zeros((), dtype=torch.long))
    parts.append(core.query_tokens(anchor).to(words.dtype).expand(batch.rows, -1, -1))
    looking = {} if features is None else {"embedded_query_inputs": _queries(core.config, batch, features)}
    return torch.cat(parts, dim=1), looking


def _look(core: Any, batch: MicroBatch, dtype: torch.dtype, encodes: bool) -> tuple[Any, Any]:
    """Visual tokens float [B, .., D] and features float [B, .., V]; None and None without pictures."""
    config, count = core.config, batch.rows * batch.pictures
    if not count:
        return None, None
    side, grid = config.vision_config.image_size, config.num_views
    if encodes:
        image = core.get_image_features(torch.zeros(count, grid, COLOR_CHANNELS, side, side, dtype=dtype))
    else:
        width = config.vision_config.hidden_size
        image = core.pool_features(torch.zeros(count, grid * config.num_patches, width, dtype=dtype))
    return tuple(
        tensor.unflatten(0, (batch.rows, batch.pictures)).flatten(1, 2)
        for tensor in (image.pooler_output, image.last_hidden_state)
    )


def _queries(config: FlashSlothConfig, batch: MicroBatch, features: torch.Tensor) -> EmbeddedQueryInputs:
    """One turn a row, whose question is the whole text."""
    text = batch.text_tokens
    return EmbeddedQueryInputs(
        query_index=torch.zeros(batch.rows, config.num_query_tokens, dtype=torch.long),
        question_index=torch.zeros(batch.rows, text, dtype=torch.long),
        question_mask=torch.ones(batch.rows, text, dtype=torch.bool),
        features=features,
        feature_row=torch.zeros(batch.rows, dtype=torch.long),
    )


def _layers(model: nn.Module) -> dict[str, int]:
    """Numbers of the largest transformer layer, and outside of all."""
    sizes = [
        sum(parameter.numel() for parameter in layer.parameters())
        for stack in model.modules()
        if isinstance(stack, nn.ModuleList)
        for layer in stack
    ]
    everything = sum(parameter.numel() for parameter in model.parameters())
    return {"largest_layer": max(sizes), "outside_layers": everything - sum(sizes)}
