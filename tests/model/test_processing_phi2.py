"""The processor with the published weights' own tokenizer: what the published code made of the published prompt.

That tokenizer is not part of this repository. These tests look for it beside it, as `shared/phi2-tokenizer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import assistant, encode, picture, user
from transformers import AutoTokenizer

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN, SYSTEM_PROMPT, chat_template
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.processing_flashsloth import IGNORED_LABEL, FlashSlothProcessor

FOLDER = Path(__file__).parents[3] / "shared" / "phi2-tokenizer"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the published tokenizer is not at {FOLDER}")

LEARNABLE_ID, END_ID, IMAGE_ID = 50295, 50296, 50297
VISUAL_TOKENS, QUERIES = 81, 9
QUESTIONS = [
    "What is in the picture?",
    "Two  spaces,   three,\tand a tab",
    "    indented\n\n  code",
    "trailing space ",
    "Ünïcödé 猫 🦥🦥",
    "1234567890",
]


@pytest.fixture(scope="module")
def plain_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def processor() -> FlashSlothProcessor:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    tokenizer.add_special_tokens({"additional_special_tokens": [QUERY_TOKEN, IMAGE_TOKEN]})
    return FlashSlothProcessor(FlashSlothImageProcessorPil(), tokenizer, chat_template=chat_template())


def expected_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The pieces around `<image>`, tokenized one by one, `<learnable>` written out."""
    ids: list[int] = []
    for number, piece in enumerate(prompt.split(IMAGE_TOKEN)):
        if number:
            ids += [IMAGE_ID] * VISUAL_TOKENS
        for token in tokenizer(piece)["input_ids"]:
            ids += [token] * (QUERIES if token == LEARNABLE_ID else 1)
    return ids


def asked(encoded: dict[str, Any], turn: int) -> list[int]:
    """The ids a turn's queries read."""
    return encoded["input_ids"][0][encoded["question_turn"][0] == turn].tolist()


def marked(encoded: dict[str, Any], name: str) -> list[int]:
    return encoded[name][0].nonzero().flatten().tolist()


def test_placeholders(processor: FlashSlothProcessor) -> None:
    ids = (processor.query_token_id, processor.tokenizer.eos_token_id, processor.image_token_id)
    assert ids == (LEARNABLE_ID, END_ID, IMAGE_ID)


@pytest.mark.parametrize("question", QUESTIONS)
def test_first_turn(processor: FlashSlothProcessor, plain_tokenizer: Any, question: str) -> None:
    written = f"{SYSTEM_PROMPT} USER: {IMAGE_TOKEN}\n{question}{QUERY_TOKEN} ASSISTANT:"
    from_chat = encode(processor, [user(question, picture())])
    from_text = processor(images=picture(), text=written, return_tensors="pt")
    for encoded in (from_chat, from_text):
        ids = encoded["input_ids"][0].tolist()
        assert ids == expected_ids(plain_tokenizer, written)
        first_image, first_query = ids.index(IMAGE_ID), ids.index(LEARNABLE_ID)
        newline = first_image + VISUAL_TOKENS
        assert marked(encoded, "question_turn") == list(range(newline + 1, first_query))
        assert marked(encoded, "image_index") == list(range(first_image, newline))
        assert marked(encoded, "query_turn") == list(range(first_query, first_query + QUERIES))
        assert processor.tokenizer.decode(asked(encoded, 1), clean_up_tokenization_spaces=False) == question


def test_later_turns(processor: FlashSlothProcessor, plain_tokenizer: Any) -> None:
    chat = [
        user("What is this?", picture()),
        assistant("A sloth."),
        user("What colour?"),
        assistant("It's brown"),
        user("Sure?"),
    ]
    written = (
        f"{SYSTEM_PROMPT} USER: {IMAGE_TOKEN}\nWhat is this?{QUERY_TOKEN} ASSISTANT: A sloth.</s>"
        f"USER: What colour?{QUERY_TOKEN} ASSISTANT: It's brown</s>USER: Sure?{QUERY_TOKEN} ASSISTANT:"
    )
    for encoded in (encode(processor, chat), processor(images=picture(), text=written, return_tensors="pt")):
        ids = encoded["input_ids"][0].tolist()
        assert ids == expected_ids(plain_tokenizer, written)
        assert asked(encoded, 1) == plain_tokenizer("What is this?")["input_ids"]
        assert asked(encoded, 2) == plain_tokenizer(" What colour?")["input_ids"]
        assert asked(encoded, 3) == plain_tokenizer(" Sure?")["input_ids"]
        ends = [place for place, token in enumerate(ids) if token == END_ID]
        starts = [encoded["question_turn"][0].tolist().index(turn) for turn in (2, 3)]
        assert starts == [end + 3 for end in ends], "the published code begins with the third token after </s>"


def test_labels_are_the_answers_and_their_ends(processor: FlashSlothProcessor, plain_tokenizer: Any) -> None:
    chat = [user("What is this?", picture()), assistant("A sloth 🦥."), user("Sure?"), assistant("Yes")]
    encoded = encode(processor, chat, return_labels=True)
    labels = encoded["labels"][0]
    learned = labels[labels != IGNORED_LABEL].tolist()
    assert learned == plain_tokenizer(" A sloth 🦥.</s> Yes</s>")["input_ids"]
    kept = labels != IGNORED_LABEL
    assert labels[kept].tolist() == encoded["input_ids"][0][kept].tolist()


def test_space_before_queries_is_the_training_text(processor: FlashSlothProcessor, plain_tokenizer: Any) -> None:
    chat = [user("What is this?", picture()), assistant("A sloth.")]
    written = f"{SYSTEM_PROMPT} USER: {IMAGE_TOKEN}\nWhat is this? {QUERY_TOKEN} ASSISTANT: A sloth.</s>"
    encoded = encode(processor, chat, space_before_queries=True)
    assert encoded["input_ids"][0].tolist() == expected_ids(plain_tokenizer, written)
    assert asked(encoded, 1) == plain_tokenizer("What is this? ")["input_ids"]
