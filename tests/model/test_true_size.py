"""The published widths, with few layers: what only shows at true size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import assistant, encode, make_processor, picture, user

from flashsloth.model.configuration_flashsloth import PHI2_TEXT_CONFIG, SO400M_VISION_CONFIG, FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

pytestmark = pytest.mark.slow

LAYERS = {"vision_config": {**SO400M_VISION_CONFIG, "num_hidden_layers": 3}, "embq_layer": 1}
LAYERS["text_config"] = {**PHI2_TEXT_CONFIG, "num_hidden_layers": 2}
PUBLISHED = {"encoder": 398e6, "SAP": 1.3e6, "projector": 9.5e6, "EmbQ": 8.1e6, "Phi-2": 2780e6, "all": 3196e6}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_parameter_counts() -> None:
    with torch.device("meta"):
        model = FlashSlothForConditionalGeneration._from_config(FlashSlothConfig())
    parts = model.model
    found = {
        "encoder": parameters(parts.vision_tower),
        "SAP": parameters(parts.spatial_attention_pooling),
        "projector": parameters(parts.projector),
        "EmbQ": parameters(parts.embedded_query),
        "Phi-2": parameters(parts.language_model) + parameters(model.lm_head),
        "all": parameters(model),
    }
    assert found == pytest.approx(PUBLISHED, rel=0.03)


@pytest.mark.parametrize("grid", [1, 2])
def test_a_batch_at_true_size(tiny_tokenizer: Any, grid: int) -> None:
    config = FlashSlothConfig(
        **LAYERS,
        image_grid=grid,
        image_token_id=tiny_tokenizer.convert_tokens_to_ids("<image>"),
        query_token_id=tiny_tokenizer.convert_tokens_to_ids("<learnable>"),
    )
    assert (config.num_patches, config.num_windows, config.num_image_tokens) == (729, 81, 81 * (1 if grid == 1 else 5))
    torch.manual_seed(0)
    model = FlashSlothForConditionalGeneration(config).train()
    for frozen in (model.model.language_model, model.lm_head):
        frozen.requires_grad_(False)  # their gradients alone would take 2 GB
    torch.nn.init.normal_(model.model.embedded_query.up.weight, std=0.1)
    processor = make_processor(tiny_tokenizer, config)
    chats = [
        [user("What is this?", picture(1, 640, 480)), assistant("A dog.")],
        [user("Why?"), assistant("So.")],
        [user("Which?", picture(2, 300, 500), picture(3, 384, 384)), assistant("The left one.")],
    ]
    inputs = encode(processor, chats, padding_side="left", return_labels=True)
    model(**inputs).loss.backward()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in trained if parameter.grad is None] == []
    model.zero_grad(set_to_none=True)
    model.eval()
    with torch.no_grad():
        together = model(**inputs).logits
        for row, chat in enumerate(chats):
            alone = model(**encode(processor, chat)).logits[0]
            real = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][real], alone, rtol=0, atol=1e-4)
    prompts = encode(processor, [chat[:1] for chat in chats], padding_side="left")
    cached, plain = (
        model.generate(**prompts, max_new_tokens=4, use_cache=use, eos_token_id=None, pad_token_id=0)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)
