"""Any decoder-only language model, any ViT-like encoder: forward, backward, generation; and what must be refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import IMAGE_SIZE, TEXT, VISION, VOCABULARY, TinyModelMaker, assistant, encode, make_processor, picture, user
from transformers import AutoModelForCausalLM

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

PLAIN = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GROUPED = {**PLAIN, "num_key_value_heads": 2, "head_dim": 12}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 4, "n_head": 4, "bos_token_id": None, "eos_token_id": None}
GPT2["tie_word_embeddings"] = False
TEXTS: dict[str, dict[str, Any]] = {
    "phi": TEXT,
    "qwen2": {**GROUPED, "use_sliding_window": False},
    "qwen3": GROUPED,
    "llama": GROUPED,
    "mistral": GROUPED,
    "olmo2": GROUPED,
    "gemma": {**GROUPED, "tie_word_embeddings": False},
    "gpt2": GPT2,
}
TEXTS = {name: {**fields, "model_type": name} for name, fields in TEXTS.items()}
VISIONS: dict[str, dict[str, Any]] = {
    "siglip": VISION,
    "siglip2 of fixed size": {**VISION, "image_size": IMAGE_SIZE, "patch_size": 8, "vision_use_head": True},
    "clip": {**VISION, "model_type": "clip_vision_model", "hidden_act": "quick_gelu"},
}


def inputs_for(model: FlashSlothForConditionalGeneration, tokenizer: Any) -> dict[str, Any]:
    chats = [
        [user("What is this?", picture(1)), assistant("A dog."), user("Sure?"), assistant("Yes.")],
        [user("Hello!"), assistant("Hello.")],
        [user("Which?", picture(2), picture(3)), assistant("The left.")],
    ]
    return encode(make_processor(tokenizer, model.config), chats, padding_side="left", return_labels=True)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("text", TEXTS)
def test_forward_backward_and_generation(
    make_tiny_model: TinyModelMaker, tiny_tokenizer: Any, text: str, vision: str
) -> None:
    model = make_tiny_model(vision_config=dict(VISIONS[vision]), text_config=dict(TEXTS[text]))
    inputs = inputs_for(model, tiny_tokenizer)
    seen = []
    model.model.embedded_query.register_forward_hook(lambda *_: seen.append(True))
    output = model(**inputs)
    assert len(seen) == 1
    assert output.loss.isfinite()
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    del inputs["labels"]
    cached, plain = (model.generate(**inputs, max_new_tokens=4, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("text", TEXTS)
def test_an_untrained_embedded_query_changes_nothing(
    tiny_tokenizer: Any, tiny_config: FlashSlothConfig, make_tiny_model: TinyModelMaker, text: str
) -> None:
    """Whatever it sees, its way back begins as zeros."""
    config = make_tiny_model(text_config=dict(TEXTS[text])).config
    torch.manual_seed(0)
    model = FlashSlothForConditionalGeneration(config).eval()
    assert not model.model.embedded_query.up.weight.any()
    inputs = inputs_for(model, tiny_tokenizer)
    with torch.no_grad():
        expected = model(**inputs).logits
        for parameter in model.model.embedded_query.parameters():
            if parameter is not model.model.embedded_query.up.weight:
                parameter.normal_()
        torch.nn.init.zeros_(model.model.embedded_query.up.bias)
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("text", TEXTS)
def test_text_alone_is_the_language_models_own(make_tiny_model: TinyModelMaker, tiny_tokenizer: Any, text: str) -> None:
    model = make_tiny_model(text_config=dict(TEXTS[text]))
    alone = AutoModelForCausalLM.from_config(model.config.text_config, attn_implementation="eager").eval()
    alone.base_model.load_state_dict(model.model.language_model.state_dict())
    head = alone.get_output_embeddings()
    head.load_state_dict(model.lm_head.state_dict(), strict=False)
    ids = torch.tensor([tiny_tokenizer("A red dog is on the table.")["input_ids"]])
    with torch.no_grad():
        ours = model(input_ids=ids).logits - (model.lm_head.bias if head.bias is None else 0)
        torch.testing.assert_close(ours, alone(input_ids=ids).logits, rtol=1e-5, atol=1e-4)


def encoder_features(model: FlashSlothForConditionalGeneration, config: FlashSlothConfig, pixels: torch.Tensor) -> Any:
    """Hidden states of the whole encoder, as transformers gives them."""
    from transformers import AutoModel

    whole = AutoModel.from_config(config.vision_config).eval()
    missing = whole.load_state_dict(model.model.vision_tower.state_dict(), strict=False)
    assert not missing.unexpected_keys
    with torch.no_grad():
        return whole(pixel_values=pixels, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("layer", [-1, -2, 1])
@pytest.mark.parametrize("vision", VISIONS)
def test_features_are_the_hidden_states_of_the_layer_named(
    make_tiny_model: TinyModelMaker, vision: str, layer: int
) -> None:
    model = make_tiny_model(vision_config=dict(VISIONS[vision]), vision_feature_layer=layer)
    pixels = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.no_grad():
        features = model.get_image_features(pixels).last_hidden_state
    expected = encoder_features(model, model.config, pixels)[layer][:, -model.config.num_patches :]
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_copies_carry_their_own_embedded_query(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    inputs = encode(tiny_processor, [user("What is this?", picture())])
    with torch.no_grad():
        expected = tiny_model(**inputs).logits
        for copied in (copy.deepcopy(tiny_model), pickle.loads(pickle.dumps(tiny_model))):
            torch.nn.init.zeros_(tiny_model.model.embedded_query.up.weight)  # must not matter to the copy
            assert torch.equal(copied(**inputs).logits, expected)
            tiny_model.load_state_dict(copied.state_dict())
        tiny_model.save_pretrained(tmp_path)
        loaded = FlashSlothForConditionalGeneration.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(**inputs).logits, expected)


def changed(**changes: Any) -> dict[str, Any]:
    return {"vision_config": dict(VISION), "text_config": dict(TEXT), **SIZES, **changes}


SIZES = {"image_token_id": 300, "query_token_id": 301, "anchor_token_id": 13, "query_size": 16, "embq_num_heads": 4}
SIZES |= {"embq_layer": 2}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an encoder of free size": ({"vision_config": {"model_type": "siglip2_vision_model"}}, "fixed square input"),
    "a convolutional encoder": ({"vision_config": {"model_type": "convnext"}}, "ViT-like"),
    "a model of pictures and text": ({"vision_config": {"model_type": "clip"}}, "ViT-like"),
    "an unknown type": ({"text_config": {"model_type": "nonesuch"}}, "nonesuch"),
    "a text config of another kind": ({"text_config": 3}, "text_config"),
    "an encoder for a language model": ({"text_config": dict(VISION)}, "siglip_vision_model"),
    "a model with its own pictures": ({"text_config": {"model_type": "qwen2_vl"}}, "qwen2_vl"),
    "capped logits": ({"text_config": {**GROUPED, "model_type": "gemma2"}}, "final_logit_softcapping"),
    "scaled logits": (
        {"text_config": {**GROUPED, "model_type": "granite", "logits_scaling": 8.0}},
        "logits_scaling=8.0",
    ),
    "scaled logits, Cohere": ({"text_config": {**GROUPED, "model_type": "cohere"}}, "logit_scale"),
    "a pool that does not fit": ({"pool_size": 4}, r"pool_size 4 .* choose one of \[1, 2, 3, 6\]"),
    "a pool of nothing": ({"pool_size": 0}, "pool_size is 0, expected at least 1"),
    "heads and query size": ({"query_size": 18}, "does not divide query_size 18"),
    "heads and vision width": ({"embq_num_heads": 5, "query_size": 20}, "does not divide vision hidden_size 32"),
    "no heads": ({"embq_num_heads": 0}, "embq_num_heads is 0, expected at least 1"),
    "a layer too deep": ({"embq_layer": 4}, r"embq_layer 4 is outside .* 0\.\.3"),
    "a feature layer too deep": ({"vision_feature_layer": -4}, "vision_feature_layer -4"),
    "the embeddings as features": ({"vision_feature_layer": 0}, "vision_feature_layer 0"),
    "no queries": ({"num_query_tokens": 0}, "num_query_tokens is 0"),
    "no grid": ({"image_grid": 0}, "image_grid is 0"),
    "a token outside": ({"image_token_id": VOCABULARY}, f"image_token_id {VOCABULARY} is outside"),
    "one token for two": ({"query_token_id": 300}, "both 300"),
    "an activation nobody knows": ({"projector_hidden_act": "geloo"}, "projector_hidden_act is 'geloo'"),
    "a dropout over one": ({"sap_dropout": 1.5}, "sap_dropout is 1.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        FlashSlothConfig(**changed(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["t5", "opt", "mamba", "bert", "bloom"])
def test_what_is_no_decoder_of_the_usual_form_is_refused(make_tiny_model: TinyModelMaker, text: str) -> None:
    with pytest.raises(ValueError, match="decoder-only language model"):
        make_tiny_model(text_config={**PLAIN, "model_type": text})
