"""Position tensors of ids alone are the processor's own: every template, several turns, any padding; or a refusal."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_config, make_processor, picture, user
from transformers import AutoTokenizer

import flashsloth
from flashsloth.model.chat_template import IMAGE_TOKEN, PLAIN_TEMPLATE, QUERY_TOKEN, chat_template
from flashsloth.model.generation import CACHE_NAME
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.loading.token_ids import PUBLISHED_PROMPT_IDS
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.model.prompt_layout import layout_from_ids, prompt_ids, views_of_pictures
from flashsloth.training.packing import join_samples, pad_rows

POSITION_TENSORS = ("image_index", "query_turn", "question_turn")
PHI2 = Path(__file__).parents[3] / "shared" / "phi2-tokenizer"
TYPED = [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "USER:",
    " ASSISTANT:",
    "What",
    "is",
    "?",
    "é",
    "猫",
    "</s>",
    "<image>",
    "<learnable>",
    ":",
    "7",
]
IMAGE = {"type": "image", "image": picture(7)}
WORDS = {"type": "text", "text": "Is this "}


def typed(rng: random.Random) -> str:
    return "".join(rng.choices(TYPED, k=rng.randrange(1, 6)))


def chats() -> list[list[dict[str, Any]]]:
    """Pictures first, between words, in later turns, several, none; whatever a user types."""
    made = [
        [user("What is this?", picture(1))],
        [user("Why?")],
        [user("", picture(1))],
        [user("")],
        [{"role": "user", "content": [IMAGE]}],
        [{"role": "user", "content": [IMAGE, IMAGE]}],
        [{"role": "user", "content": [WORDS, IMAGE, WORDS, IMAGE]}],
        [{"role": "user", "content": [IMAGE, WORDS, IMAGE]}],
        [user("Look.", picture(1), picture(2)), assistant("Yes."), user("And?"), assistant("No."), user("Sure?")],
        [user("Look."), assistant("Yes."), user("And this?", picture(1)), assistant("A dog.")],
        [
            user("One", picture(1)),
            assistant(""),
            {"role": "user", "content": [WORDS, IMAGE]},
            assistant("x"),
            user("y"),
        ],
        [{"role": "system", "content": "Be brief."}, user("What?", picture(1)), assistant("A dog."), user("Why?")],
        [{"role": "system", "content": ""}, user("What?"), assistant("A dog."), user("Why?", picture(3))],
    ]
    rng = random.Random(0)
    for pictures in (0, 1, 2) * 12:
        seen = [picture(seed) for seed in range(pictures)]
        made.append([user(typed(rng), *seen), assistant(typed(rng)), user(typed(rng), *seen[1:]), assistant("b")])
    return made


def check(processor: FlashSlothProcessor, config: Any, inputs: dict[str, torch.Tensor]) -> None:
    views = views_of_pictures(inputs.get("pixel_values"), inputs.get("image_views"), None, config)
    layout = layout_from_ids(inputs["input_ids"], views, config, inputs["attention_mask"])
    assert set(layout) == set(POSITION_TENSORS)
    for name, tensor in layout.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, inputs[name]), (name, processor.tokenizer.decode(inputs["input_ids"][0]))


UNMARKED = """\
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {{- 'USER: ' -}}
    {%- if message['content'] is string -%}{{- message['content'] -}}
    {%- else -%}
      {%- for part in message['content'] -%}
        {{- '<image>\n' if part['type'] == 'image' else part['text'] -}}
      {%- endfor -%}
    {%- endif -%}
    {{- '<learnable>' -}}
  {%- else -%}
    {%- set answer = message['content'] -%}
    {{- ' ASSISTANT: ' + (answer if answer is string else answer[0]['text']) + '</s>' -}}
  {%- endif -%}
{%- endfor -%}
"""
CHATML = """\
{%- for message in messages -%}
  {{- eos_token + message['role'] + '\n' -}}
  {%- if message['content'] is string -%}
    {{- '\ue0f0' if message['role'] == 'user' else '' -}}{{- message['content'] -}}
  {%- else -%}
    {%- set place = namespace(marked=message['role'] != 'user') -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'text' and not place.marked -%}{{- '\ue0f0' -}}{%- set place.marked = true -%}{%- endif -%}
      {{- '<image>' if part['type'] == 'image' else part['text'] -}}
    {%- endfor -%}
    {{- '' if place.marked else '\ue0f0' -}}
  {%- endif -%}
  {{- '<learnable>' if message['role'] == 'user' else '' -}}
{%- endfor -%}
"""


@pytest.mark.parametrize("template", [UNMARKED, CHATML], ids=["without marks", "ChatML"])
def test_templates_of_another_kind(tiny_tokenizer: Any, template: str) -> None:
    config = make_config(tiny_tokenizer)
    processor = make_processor(tiny_tokenizer, config)
    processor.chat_template = template
    config.prompt_ids = prompt_ids(processor)
    for chat in chats()[:12]:
        if chat[0]["role"] != "system" or template is CHATML:
            check(processor, config, encode(processor, chat))


TEMPLATES = {
    "the model's": {},
    "the published": {"chat_template": chat_template()},
    "a space before queries": {"space_before_queries": True},
    "a beginning of its own": {"chat_template": chat_template("It's a \\n test.", bos_token="</s>")},
    "no system text": {"chat_template": chat_template("")},
    "stage 1": {"chat_template": PLAIN_TEMPLATE},
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("grid", [1, 2], ids=["standard", "hd"])
def test_as_the_processor_has_it(tiny_tokenizer: Any, template: str, grid: int) -> None:
    config = make_config(tiny_tokenizer, image_grid=grid)
    processor = make_processor(tiny_tokenizer, config)
    for chat in chats() if grid == 1 else chats()[:13]:
        inputs = encode(processor, chat, **TEMPLATES[template])
        if inputs["input_ids"].numel():  # stage 1 writes nothing where there is neither picture nor answer
            check(processor, config, inputs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_in_batches(tiny_processor: FlashSlothProcessor, tiny_config: Any, side: str) -> None:
    inputs = encode(tiny_processor, chats(), padding_side=side, add_generation_prompt=False)
    check(tiny_processor, tiny_config, inputs)
    without_mask = layout_from_ids(inputs["input_ids"], [1] * len(inputs["pixel_values"]), tiny_config)
    assert all(torch.equal(without_mask[name], inputs[name]) for name in ("image_index", "query_turn"))


def test_in_packed_rows(tiny_processor: FlashSlothProcessor, tiny_config: Any) -> None:
    whole = [chat for chat in chats() if chat[-1]["role"] == "assistant"]
    rows = []
    for chat in whole:
        inputs = encode(tiny_processor, chat)
        rows.append({name: inputs[name][0].tolist() for name in ("input_ids", *POSITION_TENSORS)})
    packed = pad_rows([join_samples(rows[:9]), join_samples(rows[9:])], {})
    mask = (packed["sample_index"] > 0).long()
    pictures = int(packed["image_index"].amax(dim=1).sum())
    layout = layout_from_ids(packed["input_ids"], [1] * pictures, tiny_config, mask)
    for name, tensor in layout.items():
        assert torch.equal(tensor, packed[name]), name


def test_with_the_small_models_tokenizer() -> None:
    config = flashsloth.FlashSlothConfig.from_pretrained(Path(flashsloth.__file__).parent / "nano")
    processor = FlashSlothProcessor.from_pretrained(Path(flashsloth.__file__).parent / "nano")
    assert config.prompt_ids == prompt_ids(processor)
    for chat in chats():
        check(processor, config, encode(processor, chat))


@pytest.mark.skipif(not PHI2.is_dir(), reason=f"the published tokenizer is not at {PHI2}")
def test_with_the_published_tokenizer() -> None:
    tokenizer = AutoTokenizer.from_pretrained(PHI2)
    tokenizer.add_special_tokens({"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]})
    processor = FlashSlothProcessor(FlashSlothImageProcessorPil(), tokenizer, chat_template=chat_template())
    config = flashsloth.FlashSlothConfig(prompt_ids=prompt_ids(processor))
    assert config.prompt_ids == PUBLISHED_PROMPT_IDS
    for chat in chats():
        check(processor, config, encode(processor, chat))


@pytest.fixture
def inputs(tiny_processor: FlashSlothProcessor) -> dict[str, torch.Tensor]:
    return encode(tiny_processor, [[user("What is it?", picture(1))], [user("And the other?", picture(2), picture(3))]])


def bare(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in inputs.items() if name not in POSITION_TENSORS}


def test_the_model_answers_ids_alone_alike(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    assert torch.equal(tiny_model(**bare(inputs)).logits, tiny_model(**inputs).logits)
    for options in ({}, {"num_beams": 2}, {"num_return_sequences": 2, "num_beams": 2}, {"use_cache": False}):
        expected = tiny_model.generate(**inputs, max_new_tokens=4, **options)
        assert torch.equal(tiny_model.generate(**bare(inputs), max_new_tokens=4, **options), expected), options


def test_prompt_and_answer_joined_by_hand(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    """As GRPO does: generated ids after the prompt's, one forward over both, no position tensors."""
    whole = tiny_model.generate(**inputs, max_new_tokens=5, return_dict_in_generate=True, output_logits=True)
    joined = bare(inputs) | {"input_ids": whole.sequences}
    mask = inputs["attention_mask"]
    joined["attention_mask"] = torch.cat([mask, mask.new_ones(2, 5)], dim=1)
    logits = tiny_model(**joined, logits_to_keep=6).logits[:, :-1]
    torch.testing.assert_close(logits, torch.stack(whole.logits, dim=1), rtol=1e-4, atol=1e-4)


def test_a_negative_prompt_is_taken_as_ids(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    inputs = encode(tiny_processor, [user("What is it?", picture(1))])
    negative = encode(tiny_processor, [user("Where is the dog?")])
    answer = tiny_model.generate(
        **bare(inputs), negative_prompt_ids=negative["input_ids"], guidance_scale=1.5, max_new_tokens=3
    )
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3


MISTAKES: dict[str, tuple[Any, str]] = {
    "a picture too many": (lambda i: {**i, "pixel_values": i["pixel_values"][[0, 0, 1, 2]]}, "3 pictures, but 4 were"),
    "no pictures": (lambda i: {**i, "pixel_values": None}, "3 pictures, but 0 were given"),
    "other views": (
        lambda i: {**i, "pixel_values": i["pixel_values"].repeat(1, 5, 1, 1, 1)},
        "a picture has 5 views, expected 1",
    ),
    "cut inside a picture": (
        lambda i: {**i, **{name: i[name][:, 18:] for name in ("input_ids", "attention_mask")}},
        "that stand alone, expected groups of 4",
    ),
    "cut inside the queries": (
        lambda i: {**i, **{n: i[n][:, : i["query_turn"][0].nonzero()[-1]] for n in ("input_ids", "attention_mask")}},
        "that stand alone, expected groups of 3",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_does_not_match_is_refused(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor], case: str
) -> None:
    change, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message) as error:
        tiny_model(**bare(change(inputs)))
    assert "\n" not in str(error.value)


def test_an_unknown_tokenizer_is_asked_for(make_tiny_model: TinyModelMaker, inputs: dict[str, torch.Tensor]) -> None:
    model = make_tiny_model(prompt_ids=None)
    with pytest.raises(ValueError, match=r"set config\.prompt_ids = flashsloth\.prompt_ids\(processor\)"):
        model(**bare(inputs))
    assert model(**inputs).logits.isfinite().all()


def test_ids_after_a_cached_beginning_are_refused(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor
) -> None:
    first = encode(tiny_processor, [user("What is it?", picture(1))])
    cache = tiny_model(**first, use_cache=True)[CACHE_NAME]
    follow = encode(tiny_processor, [user("And?")])["input_ids"]
    with pytest.raises(ValueError, match="after a cached beginning"):
        tiny_model(input_ids=follow, cache=cache)


def test_position_tensors_of_a_beginning_are_not_taken(
    tiny_model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]
) -> None:
    """TRL's collator joins prompt and completion, and hands on the prompt's own tensors beside the longer ids."""
    answer = torch.tensor([[5, 6, 7], [8, 9, 10]])
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(answer)], dim=1)
    joined = {**inputs, "input_ids": torch.cat([inputs["input_ids"], answer], dim=1), "attention_mask": mask}
    logits = tiny_model(**joined).logits
    assert torch.equal(logits, tiny_model(**bare(joined)).logits)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[:, :-3][real], tiny_model(**inputs).logits[real], rtol=1e-4, atol=1e-4)
