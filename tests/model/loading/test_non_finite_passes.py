"""NaN and infinity are an error that names the layer, whatever made them; never an empty answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, encode, picture, user

from flashsloth.model.loading.non_finite import NonFiniteError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

CULPRITS = {
    "model.vision_tower.encoder.layers.1.mlp.fc1": "the vision encoder",
    "model.spatial_attention_pooling": "SAP",
    "model.projector": "the projector",
    "model.embedded_query.up": "EmbQ",
    "model.language_model.layers.3.mlp.fc2": "the language model",
    "model.language_model.final_layernorm": "the language model",
    "lm_head": "the language model's head",
}


@pytest.fixture
def inputs(tiny_processor: FlashSlothProcessor) -> dict[str, torch.Tensor]:
    return encode(tiny_processor, [[user("What is it?", picture(1))], [user("And this one here?", picture(2))]])


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("name", CULPRITS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_generation_names_the_layer(
    tiny_model: FlashSlothForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    options: dict[str, Any],
    name: str,
    value: float,
) -> None:
    weights = list(tiny_model.get_submodule(name).parameters())
    with torch.no_grad():
        weights[-1].view(-1)[0] = value
    with pytest.raises(NonFiniteError, match=r"computed NaN or infinity in torch\.float32") as error:
        tiny_model.generate(**inputs, max_new_tokens=3, **options)
    message = str(error.value)
    assert name in message
    assert f"in {CULPRITS[name]});" in message
    assert "is not finite itself: copy the checkpoint again" in message
    assert "\n" not in message
    hooks = [hook for module in tiny_model.modules() for hook in module._forward_hooks]
    assert not hooks  # what looked for the layer is gone


def test_overflow_is_told_from_damage(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    with torch.no_grad():
        tiny_model.model.language_model.layers[2].mlp.fc2.weight.mul_(1e6).clamp_(-6e4, 6e4)
    model = tiny_model.half()
    model.set_attn_implementation("sdpa")
    with pytest.raises(NonFiniteError, match=r"layers\.2\.mlp\.fc2 \(Linear.*65504: load the model in bfloat16"):
        model.generate(**inputs, max_new_tokens=3)
    assert model.bfloat16().generate(**inputs, max_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_later_step_is_looked_at_too(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    """A token whose embedding is damaged, which only an answer can bring in."""
    answer = tiny_model.generate(**inputs, max_new_tokens=6)[:, inputs["input_ids"].shape[1] :]
    fresh = next(token for token in answer[0].tolist() if token not in inputs["input_ids"])
    with torch.no_grad():
        tiny_model.get_input_embeddings().weight[fresh, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"embed_tokens \(Embedding, in the language model\)"):
        tiny_model.generate(**inputs, max_new_tokens=6)


def test_quantized_by_another_library(
    make_tiny_model: TinyModelMaker, inputs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Either it answers, or it says what to do: a model that torchao has quantized to int8 in float16."""
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = make_tiny_model(attention="sdpa").half()
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    with torch.no_grad():
        finite = bool(model(**inputs).logits.isfinite().all())
    if finite:
        model.generate(**inputs, max_new_tokens=3)
    else:
        with pytest.raises(NonFiniteError, match="quantized"):
            model.generate(**inputs, max_new_tokens=3)
