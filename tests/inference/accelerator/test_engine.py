"""The engine gives the plain path's logits and answers: alone, in queues, with known pictures, in conversations."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from PIL import Image
from twins import MakeTwins, Twins

import flashsloth
from flashsloth.inference import FlashSloth
from flashsloth.inference.accelerator import AcceleratorSettings, accelerate
from flashsloth.inference.accelerator.slots import Answering
from flashsloth.inference.decoding import Chooser
from flashsloth.inference.generator import Job
from flashsloth.inference.options import Options

LENGTH = 24
TOLERANCE = 1e-4  # of a logit in float32
QUESTIONS = ["What is this?", "Where is the red dog with the blue chair, left or right?", "Is it?", "What?"]


class Watching(Chooser):
    """Chooses the likeliest, and keeps the logits."""

    def __init__(self, sloth: FlashSloth) -> None:
        super().__init__(Options(), sloth.model.generation_config.suppress_tokens)
        self.logits: list[torch.Tensor] = []

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        chosen = super().__call__(logits)
        self.logits.append(logits.clone())
        return chosen


def jobs_of(sloth: FlashSloth, pictures: list[Image.Image]) -> list[Job]:
    """One picture, none, another, two."""
    shown: list[Any] = [pictures[0], None, pictures[1], pictures[:2]]
    return [sloth._job(picture, question, Options()) for picture, question in zip(shown, QUESTIONS, strict=True)]


def plain_logits(sloth: FlashSloth, job: Job) -> tuple[list[int], torch.Tensor]:
    chooser = Watching(sloth)
    generator = sloth.generator
    decoding = generator._decoding([job], generator._tensors([job.prompt]), None)
    ids = [step[0][1] for step in decoding.steps(chooser, [], LENGTH)]
    return ids, torch.cat(chooser.logits)


@pytest.mark.parametrize("name", ["phi", "llama", "hd"])
@pytest.mark.parametrize("lag", [0, 1])
def test_every_logit_is_the_plain_one(make_twins: MakeTwins, pictures: list[Image.Image], name: str, lag: int) -> None:
    twins = make_twins(f"calm {name}", lag=lag)
    for job in jobs_of(twins.plain, pictures):
        expected_ids, expected = plain_logits(twins.plain, job)
        chooser = Watching(twins.plain)
        answering = Answering(0, job, LENGTH)
        slots = twins.engine.borrow(1, answering.columns)
        assert slots is not None
        ids = list(twins.engine.tokens(slots, answering, chooser, []))
        twins.engine.give_back(1)
        assert ids == expected_ids
        torch.testing.assert_close(torch.cat(chooser.logits), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["phi", "llama"])
def test_a_queue_longer_than_the_rows_gets_the_answers_its_jobs_get_alone(
    make_twins: MakeTwins, pictures: list[Image.Image], name: str
) -> None:
    twins = make_twins(name)
    jobs = jobs_of(twins.plain, pictures) * 2
    rooms = [5, LENGTH, 1, 9, 2, 17, LENGTH, 3]

    def plain() -> list[list[int]]:
        asked = zip(jobs, rooms, strict=True)
        return [twins.plain.generator.run_one(job, Options(max_new_tokens=room)) for job, room in asked]

    alone = plain()
    ends = [alone[1][6], alone[6][3]]
    twins.end_after(*ends)
    expected = plain()
    assert [len(ids) for ids in expected] != [len(ids) for ids in alone]
    for lag in (0, 1, 3):
        again = make_twins(name, lag=lag)
        again.end_after(*ends)
        answerings = [Answering(place, job, room) for place, (job, room) in enumerate(zip(jobs, rooms, strict=True))]
        found = dict(run_queue_of(again, answerings))
        assert [found[place] for place in range(len(jobs))] == expected


def run_queue_of(twins: Twins, answerings: list[Answering]) -> Any:
    from flashsloth.inference.accelerator.entrance import run_queue, whole_answers
    from flashsloth.inference.accelerator.feeding import Listed

    generator = twins.fast.generator
    columns = answerings[0].columns  # too few for the others: the cache has to grow
    answers = run_queue(generator, twins.engine, Listed(answerings), generator.chooser(Options()), 8, columns)
    assert answers is not None
    return whole_answers(answers)


def test_the_end_of_an_answer_ends_it_wherever_it_comes(twins: Twins, pictures: list[Image.Image]) -> None:
    job = jobs_of(twins.plain, pictures)[0]
    options = Options(max_new_tokens=LENGTH)
    whole = twins.plain.generator.run_one(job, options)
    for place in (0, 1, 11):
        twins.end_after(whole[place])
        expected = twins.plain.generator.run_one(job, options)
        assert len(expected) <= place + 1
        assert twins.fast.generator.run_one(job, options) == expected


@pytest.mark.parametrize("name", ["phi", "llama", "hd"])
def test_another_question_reads_the_question_alone(
    make_twins: MakeTwins, pictures: list[Image.Image], name: str
) -> None:
    twins = make_twins(name)
    assert twins.fast.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH) == twins.plain.answer(
        pictures[0], QUESTIONS[0], max_new_tokens=LENGTH
    )
    slots = twins.engine.borrow(1, 1)
    assert slots is not None
    starts: list[int] = []
    hook = slots.read.register_forward_pre_hook(lambda _, args: starts.extend(args[1][1].tolist()))
    looks: list[int] = []
    twins.engine.look.register_forward_pre_hook(lambda *_: looks.append(1))
    twins.engine.give_back(1)
    found = twins.fast.answer(pictures[0], QUESTIONS[2], max_new_tokens=LENGTH)
    hook.remove()
    assert found == twins.plain.answer(pictures[0], QUESTIONS[2], max_new_tokens=LENGTH)
    job = jobs_of(twins.plain, pictures)[0]
    assert starts == [job.prompt.last_question_start()]
    assert not looks


def test_a_batch_is_answered_as_one_by_one(twins: Twins, pictures: list[Image.Image]) -> None:
    pairs: list[tuple[Any, str]] = [
        (pictures[0], QUESTIONS[1]),
        (None, QUESTIONS[0]),
        (pictures[1], QUESTIONS[0]),
        (pictures[:2], QUESTIONS[0]),
        (pictures[0], QUESTIONS[0]),
        (None, QUESTIONS[1]),
        (pictures[2], QUESTIONS[3]),
        (pictures[0], QUESTIONS[3]),
    ]
    expected = [twins.plain.answer(picture, question, max_new_tokens=LENGTH) for picture, question in pairs]
    assert twins.fast.answer_batch(pairs, max_new_tokens=LENGTH) == expected
    assert twins.fast.answer_batch(iter(pairs), max_new_tokens=LENGTH) == expected


def test_questions_about_one_picture_share_its_beginning(twins: Twins, pictures: list[Image.Image]) -> None:
    expected = twins.plain.answer_many(pictures[0], QUESTIONS, max_new_tokens=LENGTH)
    slots = twins.engine.borrow(4, 200)
    assert slots is not None
    starts: list[list[int]] = []
    slots.read.register_forward_pre_hook(lambda _, args: starts.append(args[1][1].tolist()))
    twins.engine.give_back(4)
    looks: list[int] = []
    twins.engine.look.register_forward_pre_hook(lambda *_: looks.append(1))
    assert twins.fast.answer_many(pictures[0], QUESTIONS, max_new_tokens=LENGTH) == expected
    assert looks == [1]
    assert starts[0][0] == 0
    assert all(start > 0 for row in starts[1:] for start in row[:1])


def test_pieces_come_as_they_are_made_and_two_answers_at_once_do_not_mix(
    twins: Twins, pictures: list[Image.Image]
) -> None:
    first = twins.fast.stream(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH)
    second = twins.fast.stream(pictures[1], QUESTIONS[1], max_new_tokens=LENGTH)
    pieces: tuple[list[str], list[str]] = ([], [])
    for one, other in zip(first, second, strict=False):
        pieces[0].append(one)
        pieces[1].append(other)
    pieces[0].extend(first)
    pieces[1].extend(second)
    for shown, question, found in zip(pictures, QUESTIONS, pieces, strict=False):
        whole = twins.plain.answer(shown, question, max_new_tokens=LENGTH)
        assert whole.startswith("".join(found)) or "".join(found) == whole
    stopped = twins.fast.stream(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH)
    next(stopped)
    stopped.close()
    assert twins.engine.borrow(1, 8) is not None


def test_a_conversation_goes_on_with_what_it_holds(make_twins: MakeTwins, pictures: list[Image.Image]) -> None:
    for lag in (0, 1):
        twins = make_twins(lag=lag)
        said = []
        for sloth in (twins.plain, twins.fast):
            chat = sloth.chat(pictures[0], max_new_tokens=9)
            said.append([chat.ask(QUESTIONS[0]), chat.ask(QUESTIONS[1], pictures[1]), chat.ask(QUESTIONS[2])])
            assert chat._cache.get_seq_length() == len(chat._cached)
        assert said[0] == said[1]


def test_a_prompt_of_several_turns_is_read_turn_by_turn(twins: Twins, pictures: list[Image.Image]) -> None:
    sloth = twins.plain
    messages = [tiny.user(QUESTIONS[0], pictures[0]), tiny.assistant("red"), tiny.user(QUESTIONS[1], pictures[1])]
    messages += [tiny.assistant("blue"), tiny.user(QUESTIONS[2])]
    bare = [
        {**one, "content": [{k: v for k, v in part.items() if k != "image"} for part in one["content"]]}
        for one in messages
    ]
    job = Job(sloth.writer.write(bare, None), sloth.image_encoder.look([pictures[0], pictures[1]]))
    assert job.prompt.turns == 3
    options = Options(max_new_tokens=LENGTH)
    assert twins.fast.generator.run_one(job, options) == sloth.generator.run_one(job, options)
    jobs = [job, *jobs_of(sloth, pictures)]
    found = dict(twins.fast.generator.run(jobs, options))
    assert [found[place] for place in range(len(jobs))] == [sloth.generator.run_one(one, options) for one in jobs]


def test_drawing_is_that_of_the_plain_path(twins: Twins, pictures: list[Image.Image]) -> None:
    drawn = []
    for sloth in (twins.plain, twins.fast):
        torch.manual_seed(5)
        drawn.append(sloth.answer(pictures[0], QUESTIONS[0], max_new_tokens=LENGTH, temperature=1.5, top_p=0.9))
    assert drawn[0] == drawn[1]


def test_nano_answers_as_by_the_plain_path() -> None:
    plain, fast = flashsloth.load(device="cpu"), flashsloth.load(device="cpu")
    assert accelerate(fast.generator, fast.image_encoder, AcceleratorSettings(backend=None, records=False)) is not None
    pairs = [(tiny.picture(seed, 200, 120), QUESTIONS[seed % 4]) for seed in range(5)]
    expected = [plain.answer(picture, question, max_new_tokens=12) for picture, question in pairs]
    assert [fast.answer(picture, question, max_new_tokens=12) for picture, question in pairs] == expected
    fast.pictures.clear()
    assert fast.answer_batch(pairs, max_new_tokens=12) == expected
