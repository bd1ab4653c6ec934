"""Every way of asking gives the same answer, and shares the work that can be shared."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from flashsloth.errors import AnswerError, LoadError, PromptError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.model_runner import SingleRunner
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import pad_right
from flashsloth.inference.request import FinishReason
from flashsloth.media import PictureError

LENGTH = 8
QUESTIONS = [
    "What is this?",
    "Where is the red dog with the blue chair, and on which side of the table is it?",
    "What is the <image>?",
    "Is it?",
]


def one_by_one(sloth: FlashSloth, pairs: list[tuple[Any, str]]) -> list[str]:
    return [sloth.answer(picture, question, max_tokens=LENGTH) for picture, question in pairs]


def test_the_picture_and_the_question_and_the_system_text_decide(
    sloth: FlashSloth, pictures: list[Image.Image]
) -> None:
    asked = [
        sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH),
        sloth.answer(pictures[1], QUESTIONS[0], max_tokens=LENGTH),
        sloth.answer(pictures[0], QUESTIONS[1], max_tokens=LENGTH),
        sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, system="Be brief."),
        sloth.answer(None, QUESTIONS[0], max_tokens=LENGTH),
        sloth.answer(pictures[:2], QUESTIONS[0], max_tokens=LENGTH),
    ]
    assert len(set(asked)) == len(asked)


def test_answer_is_what_transformers_generates(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    inputs = tiny.encode(sloth.processor, [tiny.user(QUESTIONS[0], pictures[0])])
    ids = sloth.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=sloth.engine.end_ids)
    text = sloth.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH) == text.strip()


def test_pictures_may_stand_between_texts(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    texts = [{"type": "text", "text": text} for text in ("In", "and in", "what is this?")]
    place = {"type": "image"}
    question = [texts[0], place, texts[1], place, texts[2]]
    parts = [part if part is not place else {"type": "image", "image": pictures[number]}
             for number, part in zip((0, 0, 0, 1, 0), question, strict=True)]  # fmt: skip
    inputs = tiny.encode(sloth.processor, [{"role": "user", "content": parts}])
    ids = sloth.model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False, eos_token_id=sloth.engine.end_ids)
    text = sloth.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    shown = pictures[:2]
    assert [sloth.answer(shown, question, max_tokens=LENGTH) for _ in range(2)] == [text, text]
    pairs = [(shown, question), (shown[::-1], question), (shown[0], QUESTIONS[0]), (shown, question)]
    assert sloth.answer_batch(pairs, max_tokens=LENGTH) == [
        text, *(sloth.answer(*pair, max_tokens=LENGTH) for pair in pairs[1:3]), text,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ([{"type": "text", "text": "What?"}], "has places for 0 pictures, and 1 were given"),
        ([{"type": "image"}], "is empty"),
        ([{"type": "image"}, {"type": "video"}], "a part of the question is 'video'"),
        ([{"type": "image"}, "What?"], "a part of the question is 'str'"),
    ],
)
def test_parts_of_a_question_that_cannot_be_are_refused(
    sloth: FlashSloth, pictures: list[Image.Image], question: Any, reason: str
) -> None:
    with pytest.raises(PromptError, match=reason):
        sloth.answer(pictures[0], question)
    with pytest.raises(PromptError, match=reason):
        sloth.answer_batch([(pictures[0], question)])


def test_every_source_of_a_picture_is_the_same_picture(
    sloth: FlashSloth, pictures: list[Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    expected = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    buffer = io.BytesIO()
    pictures[0].save(buffer, "PNG")
    for source in (path, str(path), buffer.getvalue(), np.asarray(pictures[0]), [path], (pictures[0],)):
        assert sloth.answer(source, QUESTIONS[0], max_tokens=LENGTH) == expected


@pytest.mark.parametrize("question", QUESTIONS)
def test_stream_joins_to_the_answer(sloth: FlashSloth, pictures: list[Image.Image], question: str) -> None:
    pieces = list(sloth.stream(pictures[0], question, max_tokens=LENGTH))
    assert all(pieces)
    assert "".join(pieces) == sloth.answer(pictures[0], question, max_tokens=LENGTH)


def test_many_questions_get_the_answers_they_get_alone(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    expected = one_by_one(sloth, [(pictures[0], question) for question in QUESTIONS])
    assert sloth.answer_many(pictures[0], QUESTIONS, max_tokens=LENGTH) == expected


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
    sloth.answer_many(pictures[0], QUESTIONS, max_tokens=1)
    for hook in hooks:
        hook.remove()
    prompts = [sloth.request(pictures[0], question).prompt for question in QUESTIONS]
    beginning = prompts[0].last_question_start()
    positions = sum(rows * length for rows, length in columns)
    assert looks == [1]
    assert positions < beginning + len(QUESTIONS) * (max(map(len, prompts)) - beginning) + beginning


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
    assert sloth.answer_batch(pairs, max_tokens=LENGTH) == expected
    monkeypatch.setattr("flashsloth.inference.engine.preprocessing.PICTURES_HELD", 2)
    monkeypatch.setattr("flashsloth.inference.vision.PICTURES_AT_A_TIME", 1)
    narrow = FlashSloth(sloth.model, sloth.processor, pictures=PictureCache(0), config=EngineConfig(max_rows=2))
    assert narrow.answer_batch(iter(pairs), max_tokens=LENGTH) == expected


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
    assert sloth.answer_batch(pairs, max_tokens=LENGTH) == one_by_one(sloth, pairs)


def test_a_sliding_window_shares_nothing_and_answers_the_same(tmp_path: Path, pictures: list[Image.Image]) -> None:
    window = {"model_type": "mistral", "sliding_window": 16, "head_dim": 12}
    sloth = variant(tmp_path, text_config={**tiny.TEXT, **window}, lm_head_bias=False)
    assert isinstance(sloth.engine.runner, SingleRunner)
    pairs = [(pictures[0], question) for question in QUESTIONS]
    assert sloth.answer_batch(pairs, max_tokens=LENGTH) == one_by_one(sloth, pairs)
    chat = sloth.chat(pictures[0], max_tokens=LENGTH)
    assert chat.ask(QUESTIONS[0]) == one_by_one(sloth, pairs[:1])[0]
    chat.ask(QUESTIONS[3])
    assert len(chat.turns) == 2


def test_an_answer_ends_at_its_end_token_also_in_a_batch(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    whole = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=6, details=True)
    sloth.engine.end_ids.append(whole.tokens[2])
    try:
        answers = sloth.answer_many(pictures[0], QUESTIONS, max_tokens=6)
        assert answers == [sloth.answer(pictures[0], question, max_tokens=6) for question in QUESTIONS]
        ended = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=6, details=True)
        assert (ended.tokens, ended.finish_reason) == (whole.tokens[:3], FinishReason.STOP)
    finally:
        sloth.engine.end_ids.pop()


def test_temperature_draws(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    def draw(seed: int, **options: Any) -> str:
        return sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, temperature=2.0, seed=seed, **options)

    assert draw(0) == draw(0)
    assert len({draw(seed) for seed in range(4)}) > 1
    likeliest = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    assert draw(0, top_p=1e-6) == likeliest


def test_a_seed_that_was_chosen_is_told(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    drawn = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, temperature=2.0, details=True)
    again = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, temperature=2.0, seed=drawn.seed)
    assert again == drawn.text


def test_n_answers_are_those_of_their_places(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    def draw(n: int) -> list[str]:
        drawn = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, temperature=2.0, seed=3, n=n)
        return [one.text for one in drawn]

    assert draw(4)[:2] == draw(2)
    assert len(set(draw(4))) > 1


def test_an_answer_ends_where_the_context_does(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    context = sloth.engine.context
    prompt = sloth.request(pictures[0], QUESTIONS[0]).prompt
    sloth.engine.context = len(prompt) + 2
    try:
        ended = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, details=True)
        assert (len(ended.tokens), ended.finish_reason) == (2, FinishReason.LENGTH)
        with pytest.raises(PromptError, match=r"tokens \(4 of them for pictures\).*context is .*shorten"):
            sloth.answer(pictures[0], QUESTIONS[1])
        pairs = [(pictures[0], QUESTIONS[1]), (pictures[0], QUESTIONS[0])]
        found = sloth.answer_batch(pairs, max_tokens=LENGTH, on_error="return")
        assert isinstance(found[0], PromptError)
        assert found[1] == ended.text
    finally:
        sloth.engine.context = context


def test_choices_have_the_probabilities_of_scoring_each_whole(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    choices = ["a red dog", "blue", "the chair is small and blue", "no"]
    message = sloth.writer.user_message(QUESTIONS[0], 1)
    sums, lengths = [], []
    for choice in choices:
        ids = sloth.writer.answer_ids([message], choice, None)
        inputs = tiny.encode(sloth.processor, [tiny.user(QUESTIONS[0], pictures[0])])
        prompt = inputs["input_ids"].shape[1]
        written = sloth.request(pictures[0], QUESTIONS[0]).prompt.followed_by(ids)
        inputs |= pad_right([written], 0, sloth.device)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logprobs = sloth.model(**inputs, use_cache=False).logits[0, prompt - 1 : -1].float().log_softmax(-1)
        sums.append(float(logprobs.gather(1, torch.tensor(ids)[:, None]).sum()))
        lengths.append(len(ids))
    for per_token in (False, True):
        found = sloth.answer(
            pictures[0], QUESTIONS[0], choices=choices, per_token=per_token, logprobs=True, top_logprobs=2
        )
        assert len(found.top_logprobs) == len(found.logprobs) == len(found.tokens)
        totals = torch.tensor([one / (length if per_token else 1) for one, length in zip(sums, lengths, strict=True)])
        expected = dict(zip(choices, totals.softmax(0).tolist(), strict=True))
        assert found.choices == pytest.approx(expected, abs=1e-4)
        assert found.text == max(expected, key=expected.__getitem__)
    assert len(set(lengths)) > 1


def test_logprobs_are_those_of_a_pass_without_a_cache(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    found = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=4, logprobs=True, top_logprobs=3)
    assert len(found.tokens) == len(found.logprobs) == len(found.top_logprobs)
    inputs = tiny.encode(sloth.processor, [tiny.user(QUESTIONS[0], pictures[0])])
    with torch.no_grad():
        expected = sloth.model(**inputs, use_cache=False).logits[0, -1].float().log_softmax(-1)
    assert found.logprobs[0] == pytest.approx(float(expected[found.tokens[0]]), abs=1e-4)
    assert [token for token, _ in found.top_logprobs[0]] == expected.topk(3).indices.tolist()


def test_a_stop_text_ends_an_answer_and_is_not_in_it(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    whole = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH)
    stop = whole[len(whole) // 2 :][:3]
    ended = sloth.answer(pictures[0], QUESTIONS[0], max_tokens=LENGTH, stop=stop, details=True)
    assert ended.text == whole[: whole.index(stop)].strip()
    assert ended.finish_reason == FinishReason.STOP
    assert "".join(sloth.stream(pictures[0], QUESTIONS[0], max_tokens=LENGTH, stop=[stop])) == ended.text


def test_what_fails_in_a_batch_fails_alone(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    pairs: list[Any] = [
        (pictures[0], QUESTIONS[0]),
        ("nowhere.png", QUESTIONS[0]),
        "no pair",
        (pictures[1], ""),
        (pictures[1], QUESTIONS[1]),
    ]
    expected = one_by_one(sloth, [pairs[0], pairs[4]])
    found = sloth.answer_batch(pairs, max_tokens=LENGTH, on_error="return")
    assert [found[0], found[4]] == expected
    assert [type(one) for one in found[1:4]] == [PictureError, PromptError, PromptError]
    with pytest.raises(AnswerError, match=r"3 of the batch could not be answered, at 1, 2, 3; .*nowhere") as raised:
        sloth.answer_batch(iter(pairs), max_tokens=LENGTH)
    assert [raised.value.answers[0], raised.value.answers[4]] == expected
    assert sorted(raised.value.errors) == [1, 2, 3]
    came: list[int] = []
    with pytest.raises(AnswerError):
        came.extend(place for place, _ in sloth.answer_as_ready(pairs, max_tokens=LENGTH))
    assert sorted(came) == [0, 4]


def test_pairs_that_end_in_an_error_end_the_batch_and_leave_the_engine_idle(
    sloth: FlashSloth, pictures: list[Image.Image]
) -> None:
    def pairs() -> Iterator[tuple[Any, str]]:
        yield pictures[0], QUESTIONS[0]
        raise OSError("the list is gone")

    with pytest.raises(OSError, match="the list is gone"):
        sloth.answer_batch(pairs())
    assert sloth.answer(pictures[0], QUESTIONS[0], max_tokens=2)
    assert not sloth.engine.has_work


def test_several_threads_may_ask(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    pairs = [(pictures[number % 3], QUESTIONS[number % len(QUESTIONS)]) for number in range(12)]
    expected = one_by_one(sloth, pairs)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda pair: sloth.answer(*pair, max_tokens=LENGTH), pairs))
    assert found == expected


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.answer(None, "  "), PromptError, "question is empty"),
        (lambda s: s.answer(None, 3), PromptError, "question is int"),
        (lambda s: s.stream("nowhere.png", "What?"), PictureError, "no such file"),
        (lambda s: s.answer_many(None, "What?"), PromptError, "expected a list"),
        (lambda s: s.answer_batch(["What?"]), PromptError, "pair 0 is str"),
        (lambda s: s.answer_batch([(None, "What?"), (None, "")]), AnswerError, "at 1; the first: the question is"),
        (lambda s: s.answer_batch([], on_error="skip"), PromptError, "on_error is 'skip'; expected one of raise"),
        (lambda s: s.answer(None, "What?", tokens=3), TypeError, "unknown option 'tokens'"),
        (lambda s: s.answer(None, "What?", max_tokens=0), PromptError, "at least 1"),
        (lambda s: s.answer(None, "What?", max_new_tokens=2, max_tokens=2), PromptError, "are the same option"),
        (lambda s: s.answer(None, "What?", choices="yes"), PromptError, "choices is str; expected a list"),
        (lambda s: s.answer(None, "What?", choices=["a", "a"]), PromptError, "holds a text twice"),
        (
            lambda s: s.answer(None, "What?", choices=["a", "b"], n=2),
            PromptError,
            "n is for answers that are made",
        ),
        (
            lambda s: s.answer(None, "What?", choices=["a", "b"], temperature=1),
            PromptError,
            "temperature is for answers",
        ),
        (lambda s: s.chat(None, logprobs=True), PromptError, "a conversation returns texts: leave logprobs out"),
        (lambda s: s.answer(None, "What?", per_token=True), PromptError, "per_token is for choices, and none"),
        (lambda s: s.answer_batch("What?"), PromptError, "pairs is str; expected"),
        (lambda s: s.answer_as_ready(None), PromptError, "pairs is NoneType; expected"),
        (lambda s: s.stream(None, "What?", n=2), PromptError, "stream gives one answer, and takes no n=2"),
        (lambda s: s.chat(None, choices=["a"]), PromptError, "a conversation gives one answer, and takes no choices"),
        (lambda s: s.answer(None, "What?", max_tokens=2.5), PromptError, "whole number"),
        (lambda s: s.answer(None, "What?", temperature=-1), PromptError, "temperature is -1"),
        (lambda s: s.answer(None, "What?", temperature=float("nan")), PromptError, "expected a number"),
        (lambda s: s.answer(None, "What?", top_p=0), PromptError, "top_p is 0"),
        (lambda s: s.answer(None, "What?", image_policy="rough"), PromptError, "careful, official"),
        (lambda s: s.answer(None, "What?", system=3), PromptError, "system is int"),
        (lambda _: EngineConfig(max_rows=2.5), LoadError, "max_rows is 2.5; expected a whole number of at least 1"),
        (lambda _: EngineConfig(workers=True), LoadError, "workers is True"),
        (
            lambda _: EngineConfig(cache_bytes="8"),
            LoadError,
            "cache_bytes is '8'; expected a whole number of at least 0",
        ),
        (lambda _: EngineConfig(cuda_graphs=0), LoadError, "cuda_graphs is 0; expected True or False"),
    ],
)
def test_a_mistake_is_named_in_one_line(sloth: FlashSloth, call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        call(sloth)
    assert "\n" not in str(raised.value)
