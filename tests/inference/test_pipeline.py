"""Every way of asking gives the same answer, and shares the work that can be shared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from flashsloth.inference import FlashSloth, PromptError
from flashsloth.inference.roomy_cache import roomy_cache
from flashsloth.media import PictureError

LENGTH = 8
QUESTIONS = [
    "What is this?",
    "Where is the red dog with the blue chair, and on which side of the table is it?",
    "What is the <image>?",
    "Is it?",
]


def one_by_one(sloth: FlashSloth, pairs: list[tuple[Any, str]]) -> list[str]:
    return [sloth.answer(picture, question, max_new_tokens=LENGTH) for picture, question in pairs]


def test_the_picture_and_the_question_and_the_system_text_decide(
    sloth: FlashSloth, pictures: list[Image.Image]
) -> None:
    asked = [
        sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH),
        sloth.answer(pictures[1], QUESTIONS[0], max_new_tokens=LENGTH),
        sloth.answer(pictures[0], QUESTIONS[1], max_new_tokens=LENGTH),
        sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH, system="Be brief."),
        sloth.answer(None, QUESTIONS[0], max_new_tokens=LENGTH),
        sloth.answer(pictures[:2], QUESTIONS[0], max_new_tokens=LENGTH),
    ]
    assert len(set(asked)) == len(asked)


def test_answer_is_what_transformers_generates(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    inputs = tiny.encode(sloth.processor, [tiny.user(QUESTIONS[0], pictures[0])])
    ids = sloth.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=sloth.generator.end_ids)
    text = sloth.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH) == text.strip()


def test_every_source_of_a_picture_is_the_same_picture(
    sloth: FlashSloth, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    expected = sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH)
    buffer = io.BytesIO()
    pictures[0].save(buffer, "PNG")
    for source in (path, str(path), buffer.getvalue(), np.asarray(pictures[0]), [path], (pictures[0],)):
        assert sloth.answer(source, QUESTIONS[0], max_new_tokens=LENGTH) == expected


@pytest.mark.parametrize("question", QUESTIONS)
def test_stream_joins_to_the_answer(sloth: FlashSloth, pictures: list[Image.Image], question: str) -> None:
    pieces = list(sloth.stream(pictures[0], question, max_new_tokens=LENGTH))
    assert all(pieces)
    assert "".join(pieces) == sloth.answer(pictures[0], question, max_new_tokens=LENGTH)


def test_many_questions_get_the_answers_they_get_alone(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    expected = one_by_one(sloth, [(pictures[0], question) for question in QUESTIONS])
    assert sloth.answer_many(pictures[0], QUESTIONS, max_new_tokens=LENGTH) == expected


def test_many_questions_share_the_look_and_the_beginning(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    looks: list[int] = []
    columns: list[tuple[int, int]] = []
    hooks = [
        sloth.model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1)),
        sloth.model.model.language_model.register_forward_pre_hook(
            lambda _, __, kwargs: columns.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
        ),
    ]
    sloth.pictures.clear()
    sloth.answer_many(pictures[0], QUESTIONS, max_new_tokens=1)
    for hook in hooks:
        hook.remove()
    job = sloth._job(pictures[0], QUESTIONS[0], options_of(1))
    beginning = job.prompt.last_question_start()
    longest = max(len(sloth._job(pictures[0], question, options_of(1)).prompt) for question in QUESTIONS)
    assert looks == [1]
    assert columns == [(1, beginning), (len(QUESTIONS), longest - beginning)]


def options_of(max_new_tokens: int) -> Any:
    from flashsloth.inference.options import Options

    return Options(max_new_tokens=max_new_tokens)


def test_a_mixed_batch_gets_the_answers_its_pairs_get_alone(
    sloth: FlashSloth, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[tuple[Any, str]] = [
        (pictures[0], QUESTIONS[1]),
        (None, QUESTIONS[0]),
        (pictures[1], QUESTIONS[0]),
        (pictures[:2], QUESTIONS[0]),
        (pictures[0], QUESTIONS[0]),
        (None, QUESTIONS[1]),
        (pictures[2], QUESTIONS[3]),
    ]
    expected = one_by_one(sloth, pairs)
    assert sloth.answer_batch(pairs, max_new_tokens=LENGTH) == expected
    monkeypatch.setattr("flashsloth.inference.generator.ROWS_AT_A_TIME", 2)
    monkeypatch.setattr("flashsloth.inference.pipeline.PICTURES_HELD", 2)
    monkeypatch.setattr("flashsloth.inference.vision.PICTURES_AT_A_TIME", 1)
    assert sloth.answer_batch(iter(pairs), max_new_tokens=LENGTH) == expected


def test_nothing_asked_nothing_answered(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    assert sloth.answer_batch([]) == []
    assert sloth.answer_many(pictures[0], []) == []


def variant(tmp_path: Path, **changes: Any) -> FlashSloth:
    tokenizer = tiny.make_tokenizer()
    config = tiny.make_config(tokenizer, **changes)
    return FlashSloth(tiny.make_model(config, attention="sdpa"), tiny.make_processor(tokenizer, config))


def test_hd_questions_share_too(tmp_path: Path, pictures: list[Image.Image]) -> None:
    sloth = variant(tmp_path, image_grid=2)
    pairs = [(picture, question) for picture in pictures[:2] for question in QUESTIONS[:2]]
    assert sloth.answer_batch(pairs, max_new_tokens=LENGTH) == one_by_one(sloth, pairs)


def test_a_sliding_window_shares_nothing_and_answers_the_same(tmp_path: Path, pictures: list[Image.Image]) -> None:
    window = {"model_type": "mistral", "sliding_window": 16, "head_dim": 12}
    sloth = variant(tmp_path, text_config={**tiny.TEXT, **window}, lm_head_bias=False)
    assert roomy_cache(sloth.model.config.text_config) is None
    pairs = [(pictures[0], question) for question in QUESTIONS]
    assert sloth.answer_batch(pairs, max_new_tokens=LENGTH) == one_by_one(sloth, pairs)
    chat = sloth.chat(pictures[0], max_new_tokens=LENGTH)
    assert chat.ask(QUESTIONS[0]) == one_by_one(sloth, pairs[:1])[0]
    chat.ask(QUESTIONS[3])
    assert len(chat.turns) == 2


def test_an_answer_ends_at_its_end_token_also_in_a_batch(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    ids = sloth.generator.run_one(sloth._job(pictures[0], QUESTIONS[0], options_of(6)), options_of(6))
    sloth.generator.end_ids.append(ids[2])
    try:
        answers = sloth.answer_many(pictures[0], QUESTIONS, max_new_tokens=6)
        assert answers == [sloth.answer(pictures[0], question, max_new_tokens=6) for question in QUESTIONS]
        assert sloth.generator.run_one(sloth._job(pictures[0], QUESTIONS[0], options_of(6)), options_of(6)) == ids[:3]
    finally:
        sloth.generator.end_ids.pop()


def test_temperature_draws(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    def draw(seed: int, **options: Any) -> str:
        torch.manual_seed(seed)
        return sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH, temperature=2.0, **options)

    assert draw(0) == draw(0)
    assert len({draw(seed) for seed in range(4)}) > 1
    likeliest = sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH)
    assert draw(0, top_p=1e-6) == likeliest


def test_an_answer_ends_where_the_context_does(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    context = sloth.generator.context
    job = sloth._job(pictures[0], QUESTIONS[0], options_of(1))
    sloth.generator.context = len(job.prompt) + 2
    try:
        assert len(sloth.generator.run_one(job, options_of(LENGTH))) == 2
        expected = sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH)
        pairs = [(pictures[0], QUESTIONS[3]), (pictures[0], QUESTIONS[0])]
        assert sloth.answer_batch(pairs, max_new_tokens=LENGTH)[1] == expected
        with pytest.raises(PromptError, match=r"tokens \(4 of them for pictures\).*context is .*shorten"):
            sloth.answer(pictures[0], QUESTIONS[1])
    finally:
        sloth.generator.context = context


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.answer(None, "  "), PromptError, "question is empty"),
        (lambda s: s.answer(None, 3), PromptError, "question is int"),
        (lambda s: s.stream("nowhere.png", "What?"), PictureError, "no such file"),
        (lambda s: s.answer_many(None, "What?"), PromptError, "expected a list"),
        (lambda s: s.answer_batch(["What?"]), PromptError, "pair 0 is str"),
        (lambda s: s.answer_batch([(None, "What?"), (None, "")]), PromptError, "question is empty"),
        (lambda s: s.answer(None, "What?", max_tokens=3), TypeError, "unknown option 'max_tokens'"),
        (lambda s: s.answer(None, "What?", max_new_tokens=0), PromptError, "at least 1"),
        (lambda s: s.answer(None, "What?", max_new_tokens=2.5), PromptError, "whole number"),
        (lambda s: s.answer(None, "What?", temperature=-1), PromptError, "temperature is -1"),
        (lambda s: s.answer(None, "What?", temperature=float("nan")), PromptError, "expected a number"),
        (lambda s: s.answer(None, "What?", top_p=0), PromptError, "top_p is 0"),
        (lambda s: s.answer(None, "What?", image_policy="rough"), PromptError, "careful, official"),
        (lambda s: s.answer(None, "What?", system=3), PromptError, "system is int"),
    ],
)
def test_a_mistake_is_named_in_one_line(sloth: FlashSloth, call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        call(sloth)
    assert "\n" not in str(raised.value)
