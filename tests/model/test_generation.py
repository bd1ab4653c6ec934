"""`generate` in all its ways gives what the passes one by one would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_processor, picture, user
from transformers import GenerationConfig

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

NEW_TOKENS = 5
CHATS: list[list[dict[str, Any]]] = [
    [user("What is this?", picture(1))],
    [user("Why is the sky blue?")],
    [user("Which of the two?", picture(2), picture(3))],
    [user("And this?", picture(4)), assistant("A cat."), user("And that?", picture(5))],
]


@pytest.fixture(params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest, make_tiny_model: TinyModelMaker) -> FlashSlothForConditionalGeneration:
    return make_tiny_model(request.param)


@pytest.fixture
def batch(tiny_processor: FlashSlothProcessor) -> dict[str, torch.Tensor]:
    return encode(tiny_processor, CHATS, padding_side="left")


def new_tokens(output: torch.Tensor, inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def greedy_by_hand(
    model: FlashSlothForConditionalGeneration, processor: FlashSlothProcessor, chat: list[dict[str, Any]]
) -> list[int]:
    """Whole passes, each with one token more."""
    inputs = encode(processor, chat)
    suppressed = model.generation_config.suppress_tokens
    answer = []
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        logits[suppressed] = -torch.inf
        answer.append(int(logits.argmax()))
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[answer[-1]]])], dim=1)
        inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
        for name in ("image_index", "query_turn", "question_turn"):
            inputs[name] = torch.nn.functional.pad(inputs[name], (0, 1))
    return answer


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy(
    model: FlashSlothForConditionalGeneration,
    tiny_processor: FlashSlothProcessor,
    batch: dict[str, torch.Tensor],
    use_cache: bool,
) -> None:
    expected = [greedy_by_hand(model, tiny_processor, chat) for chat in CHATS]
    together = model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=use_cache)
    assert new_tokens(together, batch) == expected
    assert len({tuple(answer) for answer in expected}) > 1  # the pictures and questions matter


def test_the_pictures_are_looked_at_once(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    seen = {"vision": 0, "embq": 0}

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            seen[name] += 1

        return hook

    tiny_model.model.vision_tower.register_forward_hook(count("vision"))
    tiny_model.model.embedded_query.register_forward_hook(count("embq"))
    tiny_model.generate(**batch, max_new_tokens=NEW_TOKENS)
    assert seen == {"vision": 1, "embq": 1}


def test_sampling_is_seeded(tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor]) -> None:
    def sample(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return new_tokens(
            tiny_model.generate(**batch, max_new_tokens=NEW_TOKENS, do_sample=True, temperature=3.0), batch
        )

    assert sample(0) == sample(0) != sample(1)


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams(
    tiny_model: FlashSlothForConditionalGeneration,
    tiny_processor: FlashSlothProcessor,
    batch: dict[str, torch.Tensor],
    use_cache: bool,
) -> None:
    settings = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": NEW_TOKENS, "use_cache": use_cache}
    together = new_tokens(tiny_model.generate(**batch, **settings), batch)
    alone = []
    for chat in CHATS:
        inputs = encode(tiny_processor, chat)
        alone += new_tokens(tiny_model.generate(**inputs, **settings), inputs)
    assert together == alone


def test_a_beam_is_scored_as_the_passes_score_it(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, CHATS[2])
    output = tiny_model.generate(
        **inputs, num_beams=4, max_new_tokens=3, length_penalty=0.0, output_scores=True, return_dict_in_generate=True
    )
    start = inputs["input_ids"].shape[1]
    whole = {**inputs, "input_ids": output.sequences, "attention_mask": torch.ones_like(output.sequences)}
    for name in ("image_index", "query_turn", "question_turn"):
        whole[name] = torch.nn.functional.pad(inputs[name], (0, 3))
    with torch.no_grad():
        logits = tiny_model(**whole).logits[0, start - 1 : -1]
    scores = logits.log_softmax(-1).gather(1, output.sequences[0, start:, None]).sum()
    assert output.sequences_scores[0].item() == pytest.approx(scores.item(), abs=1e-3)


def test_several_sequences_of_each_row(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": True, "top_k": 1, "num_return_sequences": 3}
    greedy = new_tokens(tiny_model.generate(**batch, max_new_tokens=NEW_TOKENS), batch)
    assert new_tokens(tiny_model.generate(**batch, **settings), batch) == [row for row in greedy for _ in range(3)]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"use_cache": False}])
def test_features_stand_in_for_pixels(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor], settings: dict[str, Any]
) -> None:
    expected = tiny_model.generate(**batch, max_new_tokens=NEW_TOKENS, **settings)
    with torch.no_grad():
        features = tiny_model.get_image_features(batch.pop("pixel_values"))
    given = tiny_model.generate(**batch, mm_encoder_outputs={"image": features}, max_new_tokens=NEW_TOKENS, **settings)
    assert torch.equal(given, expected)


def test_embeddings_stand_in_for_ids(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, CHATS[0])
    expected = new_tokens(tiny_model.generate(**inputs, max_new_tokens=NEW_TOKENS), inputs)
    inputs["inputs_embeds"] = tiny_model.get_input_embeddings()(inputs.pop("input_ids"))
    assert tiny_model.generate(**inputs, max_new_tokens=NEW_TOKENS).tolist() == expected


@pytest.mark.parametrize("pictures_later", [0, 1])
@pytest.mark.parametrize("chat", range(len(CHATS)))
def test_a_conversation_goes_on_from_its_cache(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, chat: int, pictures_later: int
) -> None:
    """The first turn's cache, then the whole conversation again, of which only what is new is run."""
    first = encode(tiny_processor, CHATS[chat])
    began = tiny_model.generate(**first, max_new_tokens=NEW_TOKENS, return_dict_in_generate=True)
    # Random tokens need not read back as they were written, so the conversation is put together from ids.
    follow = encode(tiny_processor, [user("Sure?", *[picture(9)] * pictures_later)])
    answer = began.sequences[:, first["input_ids"].shape[1] :]
    pictures, turns = int(first["image_index"].max()), int(first["query_turn"].max())
    inputs = {"input_ids": torch.cat([began.sequences, follow["input_ids"]], dim=1)}
    for name, offset in (("image_index", pictures), ("query_turn", turns), ("question_turn", turns)):
        shifted = torch.where(follow[name] > 0, follow[name] + offset, 0)
        inputs[name] = torch.cat([first[name], torch.zeros_like(answer), shifted], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    pixels = [turn["pixel_values"] for turn in (first, follow) if "pixel_values" in turn]
    if pixels:
        inputs["pixel_values"] = torch.cat(pixels)
    expected = tiny_model.generate(**inputs, max_new_tokens=NEW_TOKENS)
    continued = tiny_model.generate(**inputs, past_key_values=began.past_key_values, max_new_tokens=NEW_TOKENS)
    assert torch.equal(continued, expected)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}, {"generation_config": GenerationConfig(max_new_tokens=4)}])
def test_placeholders_are_never_generated(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor], settings: dict[str, Any]
) -> None:
    placeholders = [tiny_model.config.image_token_id, tiny_model.config.query_token_id]
    with torch.no_grad():
        tiny_model.lm_head.bias[placeholders] = 1e4
    settings = settings if "generation_config" in settings else {**settings, "max_new_tokens": 4}
    answers = new_tokens(tiny_model.generate(**batch, **settings), batch)
    assert not set(placeholders) & {token for answer in answers for token in answer}


def test_words_suppressed_by_the_user_join_the_placeholders(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, CHATS[0])
    first = new_tokens(tiny_model.generate(**inputs, max_new_tokens=1), inputs)[0][0]
    placeholder = tiny_model.config.query_token_id
    with torch.no_grad():
        tiny_model.lm_head.bias[placeholder] = 1e4
    answer = new_tokens(tiny_model.generate(**inputs, max_new_tokens=3, suppress_tokens=[first]), inputs)[0]
    assert not {first, placeholder} & set(answer)


REFUSED = {
    "prefill_chunk_size": {"prefill_chunk_size": 4},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 2},
    "assistant_model": {"assistant_model": object()},
    "assistant_early_exit": {"assistant_early_exit": 1},
    "prefill_chunk_size in a config": {"generation_config": GenerationConfig(prefill_chunk_size=4)},
}


@pytest.mark.parametrize("case", REFUSED)
def test_ways_that_would_lose_a_picture_are_refused(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor], case: str
) -> None:
    with pytest.raises(ValueError, match=f"{case.split()[0]} does not work with FlashSloth"):
        tiny_model.generate(**batch, max_new_tokens=1, **REFUSED[case])


def test_ways_that_would_lose_a_picture_are_refused_in_the_models_own_settings(
    tiny_model: FlashSlothForConditionalGeneration, batch: dict[str, torch.Tensor]
) -> None:
    tiny_model.generation_config.prefill_chunk_size = 4
    with pytest.raises(ValueError, match="prefill_chunk_size does not work with FlashSloth"):
        tiny_model.generate(**batch, max_new_tokens=1)


def test_hd_generates_as_well(make_tiny_model: TinyModelMaker, tiny_tokenizer: Any) -> None:
    model = make_tiny_model(image_grid=2)
    processor = make_processor(tiny_tokenizer, model.config)
    inputs = encode(processor, CHATS, padding_side="left")
    together = new_tokens(model.generate(**inputs, num_beams=2, max_new_tokens=NEW_TOKENS), inputs)
    for row, chat in enumerate(CHATS):
        alone = encode(processor, chat)
        assert new_tokens(model.generate(**alone, num_beams=2, max_new_tokens=NEW_TOKENS), alone)[0] == together[row]


def test_prompts_padded_on_the_right_are_refused(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, CHATS, padding_side="right")
    with pytest.raises(ValueError, match="3 of 4 prompts end in padding"):
        tiny_model.generate(**inputs, max_new_tokens=1)
