"""What is recorded are the weights that the pass computes with, and nothing changes where nobody records."""

from __future__ import annotations

import copy
import math
import threading
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_config, make_processor, picture, user
from torch import nn

from flashsloth.ablation.variants import exchange_pooling, remove_embedded_query
from flashsloth.kernels.optimize import speed_up
from flashsloth.model.attention_maps import AttentionWeights, recording_attention
from flashsloth.model.embedded_query import EmbeddedQuery, EmbeddedQueryInputs
from flashsloth.model.generation import CACHE_NAME
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

GRID, WINDOW, QUERIES = 6, 3, 3
ONE = [user("What is this?", picture(1))]
TWO = [user("Which is red?", picture(1), picture(2))]
TALK = [user("What is this?", picture(1)), assistant("A dog."), user("And this?", picture(2))]
NONE = [user("Is it?")]


@torch.no_grad()
def recorded(model: nn.Module, inputs: dict[str, Any], row: int = 0) -> AttentionWeights | None:
    with recording_attention(model) as maps:
        model(**inputs)
    return maps.of(row)


def by_hand(model: FlashSlothForConditionalGeneration, inputs: dict[str, Any]) -> np.ndarray:
    """The last turn's weights of a batch of one, a head at a time: [N, Q, W, g, g]."""
    block = model.model.embedded_query
    given: list[torch.Tensor] = []
    hook = block.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        features = model(**inputs).image_outputs.last_hidden_state  # [N, W*P, V]
    hook.remove()
    states, (last,) = given[0][0], inputs["query_turn"].amax(dim=1)
    query = block.norm_query(block.down_text(states[inputs["query_turn"][0] == last]))
    text = block.norm_text(block.down_text(states[inputs["question_turn"][0] == last]))
    asked = heads_of(block.text_attention, query, text).matmul(
        block.text_attention.v_proj(text).unflatten(-1, (block.text_attention.num_heads, -1)).transpose(0, 1)
    )
    asked = asked.transpose(0, 1).flatten(1)  # [Q, E]
    image = block.norm_image(block.down_image(features.flatten(0, 1)))
    weights = heads_of(block.image_attention, asked, image).mean(dim=0)  # [Q, N*W*P]
    return weights.view(QUERIES, len(features), -1, GRID, GRID).transpose(0, 1).detach().numpy()


def heads_of(attention: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Weights of one turn: [H, Q, K]."""
    queries = attention.q_proj(query).unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
    keys = attention.k_proj(key).unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
    return (queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[-1])).softmax(dim=-1)


@pytest.mark.parametrize("chat", [ONE, TWO, TALK], ids=["one", "two", "talk"])
def test_the_weights_are_those_of_a_softmax_by_hand(tiny_model, tiny_processor, chat: list[Any]) -> None:
    inputs = encode(tiny_processor, chat)
    found = recorded(tiny_model, inputs)
    pictures = len(inputs["pixel_values"])
    assert found is not None
    assert found.queries.shape == (pictures, QUERIES, 1, GRID, GRID)
    assert found.queries.dtype == found.sap.dtype == np.float32
    np.testing.assert_allclose(found.queries, by_hand(tiny_model, inputs), atol=1e-6)
    np.testing.assert_allclose(found.queries.sum(axis=(0, 2, 3, 4)), 1, atol=1e-6)


def test_sap_is_what_the_visual_tokens_were_made_with(tiny_tokenizer, make_tiny_model: TinyModelMaker) -> None:
    config = make_config(tiny_tokenizer, image_grid=2)
    model = make_tiny_model(image_grid=2)
    inputs = encode(make_processor(tiny_tokenizer, config), TWO)
    pooling = model.model.spatial_attention_pooling
    used: list[torch.Tensor] = []
    weigh = pooling._window_weights
    pooling._window_weights = lambda features: used.append(weigh(features)) or used[-1]
    with torch.no_grad():
        image = model.get_image_features(inputs["pixel_values"])
    del pooling._window_weights
    found = recorded(model, inputs)
    assert found is not None
    assert found.sap.shape == (2, 5, 2, 2, WINDOW, WINDOW)
    np.testing.assert_allclose(found.sap.reshape(10, 4, 9), used[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sap.sum(axis=(-1, -2)), 1, atol=1e-6)
    assert found.queries.shape == (2, QUERIES, 5, GRID, GRID)
    cached = {**inputs, "mm_encoder_outputs": {"image": image}, "pixel_values": None}
    again = recorded(model, cached)  # of features that were kept
    assert again is not None
    np.testing.assert_allclose(again.sap, found.sap, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_outputs_stay_to_the_last_bit(make_tiny_model: TinyModelMaker, tiny_processor, attention: str) -> None:
    model = make_tiny_model(attention=attention)
    inputs = encode(tiny_processor, [ONE, TALK], padding=True)
    with torch.no_grad():
        plain = model(**inputs).logits
        with recording_attention(model):
            assert torch.equal(model(**inputs).logits, plain)
        assert torch.equal(model(**inputs).logits, plain)
    assert not model.model.attention_keepers


def test_each_row_of_a_batch_has_its_own(tiny_model, tiny_processor) -> None:
    chats = [NONE, TWO, ONE, TALK]
    inputs = encode(tiny_processor, chats, padding=True)
    with torch.no_grad(), recording_attention(tiny_model) as maps:
        tiny_model(**inputs)
    assert maps.of(0) is None
    for row, chat in enumerate(chats[1:], 1):
        alone, found = recorded(tiny_model, encode(tiny_processor, chat)), maps.of(row)
        assert alone is not None
        assert found is not None
        np.testing.assert_allclose(found.queries, alone.queries, atol=1e-5)
        np.testing.assert_allclose(found.sap, alone.sap, atol=1e-5)
    assert maps.of(len(chats)) is None


def test_a_question_after_a_cached_picture(tiny_model, tiny_processor) -> None:
    """Pictures stand in an earlier pass; their features come with the question again."""
    inputs = encode(tiny_processor, TALK)
    expected = recorded(tiny_model, inputs)
    cut = int((inputs["question_turn"] == 2).nonzero()[0, 1])
    names = ("input_ids", "image_index", "query_turn", "question_turn")
    first = {name: inputs[name][:, :cut] for name in names}
    rest = {name: inputs[name][:, cut:] for name in names}
    pixels = {"pixel_values": inputs["pixel_values"]}
    row = torch.zeros(2, dtype=torch.long)
    with torch.no_grad(), recording_attention(tiny_model) as maps:
        begun = getattr(tiny_model.model(**first, **pixels, use_cache=True), CACHE_NAME)
        tiny_model.model(**rest, **pixels, image_row=row, cache=begun, use_cache=True)
    found = maps.of()
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.queries, expected.queries, atol=1e-5)


def test_generation_keeps_the_prompts_maps(tiny_model, tiny_processor) -> None:
    inputs = encode(tiny_processor, TWO)
    expected = recorded(tiny_model, inputs)
    with recording_attention(tiny_model) as maps:
        tiny_model.generate(**inputs, max_new_tokens=3, do_sample=False)
    found = maps.of()
    assert expected is not None
    assert found is not None
    np.testing.assert_allclose(found.queries, expected.queries, atol=1e-6)


def test_nothing_is_kept_but_inside_by_this_thread_of_this_model(tiny_model, tiny_processor) -> None:
    inputs = encode(tiny_processor, ONE)
    other = copy.deepcopy(tiny_model)

    @torch.no_grad()
    def run(model: nn.Module) -> None:
        model(**inputs)

    with recording_attention(tiny_model) as maps:
        run(other)
        thread = threading.Thread(target=run, args=(tiny_model,))
        thread.start()
        thread.join()
        with recording_attention(tiny_model) as inner:
            run(tiny_model)
        assert maps.of() is None
        assert inner.of() is not None
        run(tiny_model)
    assert maps.of() is not None
    with pytest.raises(KeyError), recording_attention(tiny_model):
        raise KeyError
    assert not tiny_model.model.attention_keepers
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_a_pass_that_nobody_records_compiles_whole(tiny_config) -> None:
    block = EmbeddedQuery(tiny_config)
    states = torch.randn(1, 9, tiny_config.text_config.hidden_size)
    place, features = torch.tensor([[3, 4, 5]]), torch.randn(1, GRID**2, tiny_config.vision_config.hidden_size)
    inputs = EmbeddedQueryInputs(place, place, place > 0, features, feature_row=place[0, :1] * 0)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(states, inputs), block(states, inputs))


@pytest.mark.slow
def test_a_compiled_model(tiny_model, tiny_processor) -> None:
    inputs = encode(tiny_processor, TALK)
    expected = recorded(tiny_model, inputs)
    compiled = torch.compile(tiny_model, backend="eager")
    with torch.no_grad():
        compiled(**inputs)
    for _ in range(2):
        found = recorded(compiled, inputs)
        assert expected is not None
        assert found is not None
        np.testing.assert_allclose(found.queries, expected.queries, atol=1e-6)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_optimized_model(
    make_tiny_model: TinyModelMaker, tiny_processor, monkeypatch: pytest.MonkeyPatch, quantize: Any, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(import_module("flashsloth.kernels.optimize"), "WORTH_PACKING", 1)
    inputs = encode(tiny_processor, TALK)
    model = make_tiny_model(attention="sdpa").to(dtype)
    plain = recorded(model, inputs)
    speed_up(model, quantize=quantize)
    found = recorded(model, inputs)
    assert plain is not None
    assert found is not None
    np.testing.assert_allclose(found.queries.sum(axis=(0, 2, 3, 4)), 1, atol=1e-6)
    np.testing.assert_allclose(found.sap.sum(axis=(-1, -2)), 1, atol=1e-6)
    if quantize is None and dtype == torch.float32:
        np.testing.assert_allclose(found.queries, plain.queries, atol=1e-5)
        np.testing.assert_allclose(found.sap, plain.sap, atol=1e-5)


def test_a_model_without_attention_to_show_is_refused(tiny_model) -> None:
    with pytest.raises(ValueError, match="holds no FlashSlothModel"), recording_attention(nn.Linear(1, 1)):
        pass
    pooled = copy.deepcopy(tiny_model)
    exchange_pooling(pooled, "average")
    with pytest.raises(ValueError, match="AveragePooling, which has no attention"), recording_attention(pooled):
        pass
    remove_embedded_query(tiny_model)
    with pytest.raises(ValueError, match="QueriesThatDoNotLook"), recording_attention(tiny_model):
        pass
