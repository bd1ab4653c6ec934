"""Our own loop makes what transformers' `generate` makes, and lets rows go that are done."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from PIL import Image

from flashsloth.inference import FlashSloth
from flashsloth.inference.decoding import Chooser, Decoding
from flashsloth.inference.generator import Job
from flashsloth.inference.options import Options
from flashsloth.inference.roomy_cache import roomy_cache
from flashsloth.inference.vision import picture_inputs

LENGTH = 8
QUESTIONS = ["What is this?", "Where is the red dog with the blue chair?", "Is it?", "What?"]


def jobs_of(sloth: FlashSloth, pictures: list[Image.Image]) -> list[Job]:
    shown = [pictures[0], None, pictures[1], pictures[:2]]
    return [sloth._job(picture, question, Options()) for picture, question in zip(shown, QUESTIONS, strict=True)]


def pictures_of(sloth: FlashSloth, jobs: list[Job]) -> dict[str, Any]:
    return picture_inputs([job.seen for job in jobs], sloth.device)


def decoding_of(sloth: FlashSloth, jobs: list[Job], drops_rows: bool = True) -> Decoding:
    generator = sloth.generator
    cache = roomy_cache(sloth.model.config.text_config)
    inputs = generator._tensors([job.prompt for job in jobs])
    return Decoding(sloth.model, inputs, pictures_of(sloth, jobs), cache, drops_rows)


def answers_of(decoding: Decoding, end_ids: list[int], room: int = LENGTH) -> dict[int, list[int]]:
    answers: dict[int, list[int]] = {}
    for step in decoding.steps(Chooser(Options(), []), end_ids, room):
        for row, token in step:
            answers.setdefault(row, []).append(token)
    return answers


def test_a_padded_batch_gives_what_generate_gives(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    jobs = jobs_of(sloth, pictures)
    generator = sloth.generator
    inputs = generator._tensors([job.prompt for job in jobs])
    sequences = sloth.model.generate(
        **inputs, **pictures_of(sloth, jobs), max_new_tokens=LENGTH, do_sample=False, eos_token_id=None
    )
    expected = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    chooser = Chooser(Options(), sloth.model.generation_config.suppress_tokens)
    found: list[list[int]] = [[] for _ in jobs]
    for step in decoding_of(sloth, jobs).steps(chooser, [], LENGTH):
        for row, token in step:
            found[row].append(token)
    assert found == expected


def test_rows_that_are_done_leave_and_change_nothing(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    jobs = jobs_of(sloth, pictures)
    whole = answers_of(decoding_of(sloth, jobs), [])
    end_ids = [whole[2][1], whole[0][4]]  # the third row ends at its second token, the first at its fifth or before
    expected = {}
    for row, ids in whole.items():
        ends = [place for place, token in enumerate(ids) if token in end_ids]
        expected[row] = ids[: ends[0] + 1] if ends else ids
    assert len({len(ids) for ids in expected.values()}) > 1
    rows: list[int] = []
    hook = sloth.model.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    dropping = answers_of(decoding_of(sloth, jobs), end_ids)
    hook.remove()
    assert dropping == expected == answers_of(decoding_of(sloth, jobs, drops_rows=False), end_ids)
    assert rows[0] == 4 > rows[-1]


def test_the_last_token_is_not_run(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    job = jobs_of(sloth, pictures)[0]
    decoding = decoding_of(sloth, [job])
    answers = answers_of(decoding, [], room=3)
    assert len(answers[0]) == 3
    assert decoding.cache.get_seq_length() == len(job.prompt) + 2


def test_logits_are_made_for_the_last_position_alone(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    shapes: list[Any] = []
    hook = sloth.model.lm_head.register_forward_hook(lambda _, args, output: shapes.append(tuple(output.shape[:2])))
    sloth.answer(pictures[0], QUESTIONS[1], max_new_tokens=3)
    hook.remove()
    assert shapes == [(1, 1)] * 3


def test_placeholders_are_never_chosen_and_draws_keep_to_the_likeliest() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 8.0]])
    assert Chooser(Options(), [0])(logits.clone()).tolist() == [3]
    torch.manual_seed(0)
    drawn = {int(Chooser(Options(temperature=5.0), [0])(logits.clone())) for _ in range(60)}
    assert drawn == {1, 2, 3}
    narrow = {int(Chooser(Options(temperature=1.0, top_p=0.5), [0])(logits.clone())) for _ in range(20)}
    assert narrow == {3}


def test_drawing_is_that_of_generate(sloth: FlashSloth, pictures: list[Image.Image]) -> None:
    inputs = tiny.encode(sloth.processor, [tiny.user(QUESTIONS[0], pictures[0])])
    torch.manual_seed(7)
    ids = sloth.model.generate(
        **inputs, max_new_tokens=LENGTH, do_sample=True, temperature=1.5, top_p=0.9, top_k=0, eos_token_id=None
    )
    job = sloth._job(pictures[0], QUESTIONS[0], Options())
    torch.manual_seed(7)
    options = Options(max_new_tokens=LENGTH, temperature=1.5, top_p=0.9)
    chooser = Chooser(options, sloth.model.generation_config.suppress_tokens)
    found = [step[0][1] for step in decoding_of(sloth, [job]).steps(chooser, [], LENGTH)]
    assert found == ids[0, inputs["input_ids"].shape[1] :].tolist()
