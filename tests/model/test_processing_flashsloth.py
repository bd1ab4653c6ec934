"""Messages to aligned tensors: whatever a user types, placeholders stand where the structure has them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SYSTEM_PROMPT, assistant, encode, make_config, make_processor, picture, user

from flashsloth.model.chat_template import (
    ESCAPE,
    IMAGE_TOKEN,
    PLAIN_TEMPLATE,
    QUERY_TOKEN,
    QUESTION_START,
    chat_template,
)
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor

VISUAL_TOKENS, QUERIES = 4, 3
FUZZED = 200
FRAGMENTS = [
    *(IMAGE_TOKEN, QUERY_TOKEN, "</s>", "<|endoftext|>", ESCAPE, QUESTION_START, ESCAPE + ESCAPE),
    *("<", ">", "<im", "age>", "<learn", "able>", "</", "s>", "<|", "<image", "USER:", " ASSISTANT:", "\nUSER: "),
    *(" ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", "{{ messages }}", "{%- generation -%}", "'", '"', "\\", "\\n"),
    *("a", "What is this?", "é", "猫", "🦥", "👩‍👩‍👧", "\u200b", "\ufffd", "\x00", "0", "1234567"),
]


def decode(processor: FlashSlothProcessor, ids: torch.Tensor) -> str:
    return processor.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)


def asked(processor: FlashSlothProcessor, encoded: dict[str, Any], turn: int) -> str:
    """The text a turn's queries read, visual tokens aside."""
    return decode(processor, encoded["input_ids"][0][encoded["question_turn"][0] == turn])


def answers(processor: FlashSlothProcessor, encoded: dict[str, Any]) -> str:
    """The text that is learned."""
    labels = encoded["labels"][0]
    return decode(processor, labels[labels != IGNORED_LABEL])


def words(processor: FlashSlothProcessor, encoded: dict[str, Any]) -> str:
    """The row with one `<image>` a picture and one `<learnable>` a turn."""
    ids = encoded["input_ids"][0]
    kept = torch.ones_like(ids, dtype=torch.bool)
    for name in ("image_index", "query_turn"):
        marks = encoded[name][0]
        kept[1:] &= ~((marks[1:] > 0) & (marks[1:] == marks[:-1]))
    return decode(processor, ids[kept])


def counts(processor: FlashSlothProcessor, encoded: dict[str, Any]) -> tuple[int, int, int, int]:
    """Placeholders of pictures and queries, by id and by mark."""
    ids = encoded["input_ids"]
    by_id = [int((ids == token).sum()) for token in (processor.image_token_id, processor.query_token_id)]
    return (*by_id, int((encoded["image_index"] > 0).sum()), int((encoded["query_turn"] > 0).sum()))


def typed(rng: random.Random) -> str:
    return "".join(rng.choices(FRAGMENTS, k=rng.randrange(8)))


def test_one_turn(tiny_processor: FlashSlothProcessor) -> None:
    encoded = encode(tiny_processor, [user("What is this?", picture())])
    assert words(tiny_processor, encoded) == f"{SYSTEM_PROMPT} USER: <image>\nWhat is this?<learnable> ASSISTANT:"
    assert asked(tiny_processor, encoded, 1) == "What is this?"
    assert counts(tiny_processor, encoded) == (VISUAL_TOKENS, QUERIES, VISUAL_TOKENS, QUERIES)
    assert encoded["pixel_values"].shape == (1, 1, 3, 24, 24)
    assert {name: tuple(tensor.shape) for name, tensor in encoded.items() if tensor.ndim == 2} == dict.fromkeys(
        ("input_ids", "attention_mask", "image_index", "query_turn", "question_turn"), encoded["input_ids"].shape
    )


@pytest.mark.parametrize("pictures", [0, 1])
def test_whatever_a_user_types_stays_text(tiny_processor: FlashSlothProcessor, pictures: int) -> None:
    rng = random.Random(pictures)
    for _ in range(FUZZED):
        system, question, answer, follow_up = (typed(rng) for _ in range(4))
        chat = [
            {"role": "system", "content": system},
            user(question, *[picture()] * pictures),
            assistant(answer),
            user(follow_up),
        ]
        encoded = encode(tiny_processor, chat, return_labels=True)
        visual = VISUAL_TOKENS * pictures
        assert counts(tiny_processor, encoded) == (visual, 2 * QUERIES, visual, 2 * QUERIES)
        opening = f"{system} USER: " if system else "USER: "
        image = "<image>\n" * pictures
        assert words(tiny_processor, encoded) == (
            f"{opening}{image}{question}<learnable> ASSISTANT: {answer}</s>USER: {follow_up}<learnable> ASSISTANT:"
        )
        assert asked(tiny_processor, encoded, 1) == (question if pictures else f" {question}")
        assert asked(tiny_processor, encoded, 2) == f" {follow_up}"
        assert answers(tiny_processor, encoded) == f" {answer}</s>"
        ends = int((encoded["input_ids"] == tiny_processor.tokenizer.eos_token_id).sum())
        assert ends == 1  # the answer's own, none of those typed


def test_a_placeholder_in_two_parts_stays_text(tiny_processor: FlashSlothProcessor) -> None:
    texts = ["<im", "age>", "<learn", "able></", "s>"]
    content = [{"type": "text", "text": text} for text in texts]
    encoded = encode(tiny_processor, [{"role": "user", "content": content}])
    assert counts(tiny_processor, encoded) == (0, QUERIES, 0, QUERIES)
    assert asked(tiny_processor, encoded, 1) == " " + "".join(texts)


def test_a_written_conversation_reads_back_the_same(tiny_processor: FlashSlothProcessor) -> None:
    """`apply_chat_template` without tokens, then `__call__`: the way of a server or a pipeline."""
    rng = random.Random(2)
    for _ in range(FUZZED // 4):
        chat = [user(typed(rng), picture()), assistant(typed(rng)), user(typed(rng))]
        text = tiny_processor.apply_chat_template(chat, add_generation_prompt=True)
        from_text = tiny_processor(images=[picture()], text=text, return_tensors="pt")
        from_chat = encode(tiny_processor, chat)
        assert set(from_text) == set(from_chat)
        for name, tensor in from_chat.items():
            assert torch.equal(from_text[name], tensor), name


def test_placeholders_written_for_the_model_count(tiny_processor: FlashSlothProcessor) -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "<image>\nWhat?"}]}]
    text = tiny_processor.apply_chat_template(chat, sanitize_control_tokens=False, add_generation_prompt=True)
    encoded = tiny_processor(images=picture(), text=text, return_tensors="pt")
    assert counts(tiny_processor, encoded)[0] == VISUAL_TOKENS


def test_several_pictures_anywhere(tiny_processor: FlashSlothProcessor) -> None:
    image = {"type": "image", "image": picture()}
    parts = [{"type": "text", "text": "Is "}, image, {"type": "text", "text": "like "}, image]
    chat = [user("Look.", picture(), picture()), assistant("Yes."), {"role": "user", "content": parts}]
    encoded = encode(tiny_processor, chat)
    assert words(tiny_processor, encoded) == (
        f"{SYSTEM_PROMPT} USER: <image>\n<image>\nLook.<learnable> ASSISTANT: Yes.</s>"
        "USER: Is <image>\nlike <image>\n<learnable> ASSISTANT:"
    )
    assert encoded["image_index"][0].unique_consecutive().tolist() == [0, 1, 0, 2, 0, 3, 0, 4, 0]
    assert asked(tiny_processor, encoded, 1) == "Look."
    assert asked(tiny_processor, encoded, 2) == " Is \nlike \n"
    assert len(encoded["pixel_values"]) == 4
    assert not (encoded["question_turn"].bool() & encoded["image_index"].bool()).any()


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": ""}], ""])
def test_an_empty_question(tiny_processor: FlashSlothProcessor, content: Any) -> None:
    encoded = encode(tiny_processor, [{"role": "user", "content": content}])
    assert words(tiny_processor, encoded) == f"{SYSTEM_PROMPT} USER: <learnable> ASSISTANT:"
    assert asked(tiny_processor, encoded, 1) == " "


def test_a_picture_alone(tiny_processor: FlashSlothProcessor) -> None:
    chat = [{"role": "user", "content": [{"type": "image", "image": picture()}]}]
    encoded = encode(tiny_processor, chat)
    assert words(tiny_processor, encoded) == f"{SYSTEM_PROMPT} USER: <image>\n<learnable> ASSISTANT:"
    assert asked(tiny_processor, encoded, 1) == ""


def test_system_messages(tiny_processor: FlashSlothProcessor) -> None:
    for content in ("Be brief.", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]):
        encoded = encode(tiny_processor, [{"role": "system", "content": content}, user("What?")])
        assert words(tiny_processor, encoded) == "Be brief. USER: What?<learnable> ASSISTANT:"
    encoded = encode(tiny_processor, [{"role": "system", "content": ""}, user("What?")])
    assert words(tiny_processor, encoded) == "USER: What?<learnable> ASSISTANT:"


def test_templates_of_ones_own(tiny_processor: FlashSlothProcessor) -> None:
    template = chat_template("It's a \\n test.", bos_token="^")
    encoded = encode(tiny_processor, [user("What?", picture())], chat_template=template, space_before_queries=True)
    assert words(tiny_processor, encoded) == "^It's a \\n test. USER: <image>\nWhat? <learnable> ASSISTANT:"
    assert asked(tiny_processor, encoded, 1) == "What? "


def test_the_plain_template_of_stage_one(tiny_processor: FlashSlothProcessor) -> None:
    chat = [user("Describe it.", picture()), assistant("A red <image>.")]
    encoded = encode(tiny_processor, chat, chat_template=PLAIN_TEMPLATE, return_labels=True)
    assert words(tiny_processor, encoded) == "<image>A red <image>.\n"
    assert counts(tiny_processor, encoded) == (VISUAL_TOKENS, 0, VISUAL_TOKENS, 0)
    assert not encoded["question_turn"].any()
    assert answers(tiny_processor, encoded) == "A red <image>.\n"


def test_an_answer_begun_is_continued(tiny_processor: FlashSlothProcessor) -> None:
    chat = [user("What?", picture()), assistant("It is <a>")]
    encoded = encode(tiny_processor, chat, continue_final_message=True)
    assert words(tiny_processor, encoded).endswith("What?<learnable> ASSISTANT: It is <a>")


def test_assistant_masks_mark_what_is_learned(tiny_processor: FlashSlothProcessor) -> None:
    chat = [user("What?", picture()), assistant("A dog.")]
    masked = encode(tiny_processor, chat, return_assistant_tokens_mask=True)
    labels = encode(tiny_processor, chat, return_labels=True)["labels"]
    assert "labels" not in masked
    assert torch.equal(masked["assistant_masks"], (labels != IGNORED_LABEL).long())


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_padded_together(tiny_processor: FlashSlothProcessor, side: str) -> None:
    chats = [
        [user("What is this?", picture(1)), assistant("A dog.")],
        [user("Why?"), assistant("So.")],
        [user("And these two?", picture(2), picture(3)), assistant("Cats.")],
    ]
    batch = encode(tiny_processor, chats, padding_side=side, return_labels=True)
    assert batch["pixel_values"].shape == (3, 1, 3, 24, 24)
    for row, chat in enumerate(chats):
        alone = encode(tiny_processor, chat, return_labels=True)
        length = alone["input_ids"].shape[1]
        real = slice(length) if side == "right" else slice(-length, None)
        assert batch["attention_mask"][row].sum() == length
        for name in ("input_ids", "attention_mask", "image_index", "query_turn", "question_turn", "labels"):
            assert torch.equal(batch[name][row][real], alone[name][0]), name
        padding = batch["attention_mask"][row] == 0
        assert (batch["input_ids"][row][padding] == tiny_processor.tokenizer.pad_token_id).all()
        assert (batch["labels"][row][padding] == IGNORED_LABEL).all()
        for name in ("image_index", "query_turn", "question_turn"):
            assert not batch[name][row][padding].any()


def test_pictures_are_given_flat_or_by_row(tiny_processor: FlashSlothProcessor) -> None:
    prompts = ["<image>\na<learnable>", "b<learnable>", "<image><image>\nc<learnable>"]
    pictures = [picture(seed) for seed in range(3)]
    flat = tiny_processor(images=pictures, text=prompts, return_tensors="pt")
    by_row = tiny_processor(images=[pictures[:1], [], pictures[1:]], text=prompts, return_tensors="pt")
    assert all(torch.equal(flat[name], by_row[name]) for name in flat)


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("resolution", [None, "standard"])
def test_a_prompt_to_answer_is_as_the_template_writes_it(
    tiny_tokenizer: Any, grid: int, resolution: str | None
) -> None:
    processor = make_processor(tiny_tokenizer, make_config(tiny_tokenizer, image_grid=grid))
    chat = [
        user("  What </s> is <image> this?\n", picture(), picture()),
        assistant("A cat"),
        user("é Why?", picture()),
    ]
    options = {"resolution": resolution, "return_pixel_values": False}
    for to_answer in (True, False):
        encoded = processor.apply_chat_template(
            chat, add_generation_prompt=to_answer, tokenize=True, return_dict=True, processor_kwargs=options
        )
        row = processor.write_prompt(chat, add_generation_prompt=to_answer, resolution=resolution)
        assert {name: [ids] for name, ids in row.items()} == dict(encoded)


def test_lists_without_tensors(tiny_processor: FlashSlothProcessor) -> None:
    chats = [[user("What is this?")], [user("Why?")]]
    ids = tiny_processor.apply_chat_template(chats, tokenize=True, padding=False)
    alone = [encode(tiny_processor, chat, add_generation_prompt=False)["input_ids"][0].tolist() for chat in chats]
    assert ids == alone
    padded = tiny_processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, padding="max_length", max_length=64
    )
    assert [len(row) for row in padded["query_turn"]] == [64, 64]


def test_save_and_load(tiny_processor: FlashSlothProcessor, tmp_path: Path) -> None:
    tiny_processor.save_pretrained(tmp_path)
    loaded = FlashSlothProcessor.from_pretrained(tmp_path)
    chat = [user("What <image> is </s> 猫?", picture()), assistant("A dog.")]
    ours, theirs = (encode(processor, chat, return_labels=True) for processor in (tiny_processor, loaded))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (loaded.num_image_tokens, loaded.num_query_tokens) == (VISUAL_TOKENS, QUERIES)


def test_an_hd_processor_counts_five_views(tiny_tokenizer: Any) -> None:
    config = make_config(tiny_tokenizer, image_grid=2)
    encoded = encode(make_processor(tiny_tokenizer, config), [user("What?", picture())])
    assert int((encoded["image_index"] == 1).sum()) == 5 * VISUAL_TOKENS == config.num_image_tokens
    assert encoded["pixel_values"].shape == (1, 5, 3, 24, 24)


ERRORS = {
    "too few pictures": ({"text": "<image>\nWhat?<learnable>"}, "found 1, but 0 pictures"),
    "too many pictures": ({"text": "What?<learnable>", "images": [picture()]}, "found 0, but 1 pictures"),
    "wrong rows": (
        {"text": ["<image>a", "<image>b"], "images": [[picture(), picture()], []]},
        r"found \[1, 1\], row by row, but \[2, 0\]",
    ),
    "no text": ({"images": picture()}, "text is missing"),
    "unknown option": ({"text": "a", "paddding": True}, "paddding"),
    "truncation": ({"text": "aa<learnable>bb", "truncation": True, "max_length": 3}, "would cut a picture, a question"),
    "too long": ({"text": "a" * 30, "max_length": 5}, "max_length is 5"),
    "padding without a length": ({"text": "a", "padding": "max_length"}, "needs max_length"),
    "padding side": ({"text": ["a", "bb"], "padding_side": "top"}, "'top', expected 'left' or 'right'"),
    "uneven tensors": ({"text": ["a", "bb"], "padding": False, "return_tensors": "pt"}, "padding"),
    "no prompts": ({"text": []}, "prompt"),
    "text of another kind": ({"text": 3}, "int"),
    "text of another kind in a list": ({"text": ["a", None]}, "NoneType"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_mistake_is_answered_in_one_line(tiny_processor: FlashSlothProcessor, case: str) -> None:
    arguments, message = ERRORS[case]
    with pytest.raises(ValueError, match=message) as error:
        tiny_processor(**arguments)
    assert "\n" not in str(error.value)


CHAT_ERRORS = {
    "an unknown role": ([{"role": "tool", "content": "x"}], "role tool"),
    "a late system message": ([user("a"), {"role": "system", "content": "x"}], "role system"),
    "an unknown part": ([{"role": "user", "content": [{"type": "video"}]}], "video"),
    "a part without a type": ([{"role": "user", "content": [{"text": "a"}]}], "type"),
    "a text part without text": ([{"role": "user", "content": [{"type": "text"}]}], "text"),
    "a text that is none": ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "int"),
    "no content": ([{"role": "user"}], "content"),
    "content of another kind": ([{"role": "user", "content": 3}], "int"),
    "no role": ([{"content": "a"}], "role"),
    "a picture without a source": ([{"role": "user", "content": [{"type": "image"}]}], "no source"),
    "no messages": ([], "empty"),
    "a picture in an answer": (
        [user("a"), {"role": "assistant", "content": [{"type": "image", "image": picture()}]}],
        "assistant",
    ),
    "a picture that is not there": ([{"role": "user", "content": [{"type": "image", "path": "/no.png"}]}], "/no.png"),
}


@pytest.mark.parametrize("case", CHAT_ERRORS)
def test_a_mistake_in_a_conversation_is_answered_in_one_line(tiny_processor: FlashSlothProcessor, case: str) -> None:
    conversation, message = CHAT_ERRORS[case]
    with pytest.raises(ValueError, match=message) as error:
        tiny_processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt")
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_placeholders_is_refused(tiny_processor: FlashSlothProcessor) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=_without_specials(), eos_token="</s>")
    with pytest.raises(ValueError, match="the tokenizer has no <image>"):
        FlashSlothProcessor(tiny_processor.image_processor, bare)


def _without_specials() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
