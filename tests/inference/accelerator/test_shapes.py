"""Shapes are rounded up to few; prompts are cut where a pass must end; settings that cannot be are refused."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from twins import SMALL, MakeTwins, Twins

from flashsloth.inference.accelerator import AcceleratorSettings
from flashsloth.inference.accelerator.prompt_rows import parts_of
from flashsloth.inference.accelerator.settings import bucket, multiple
from flashsloth.inference.prompt import Prompt
from flashsloth.speed import SpeedError


def test_sizes_are_rounded_up() -> None:
    assert [bucket(count, (1, 2, 4)) for count in (1, 2, 3, 4, 9)] == [1, 2, 4, 4, 4]
    assert [multiple(count, 8) for count in (0, 1, 8, 9)] == [8, 8, 8, 16]
    settings = AcceleratorSettings(**SMALL)
    assert [settings.prompt_columns(length) for length in (3, 32, 33)] == [8, 32, 64]
    assert settings.width(17) == 32


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"slots": (2, 4)}, "slots is"),
        ({"reading_rows": ()}, "reading_rows is"),
        ({"looking_pictures": (1, 4, 2)}, "looking_pictures is"),
        ({"lag": -1}, "lag is -1; expected 0 or more"),
        ({"width_step": 0}, "width_step is 0; expected at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, found: str) -> None:
    with pytest.raises(SpeedError, match=found):
        AcceleratorSettings(**change)


def test_a_processor_neither_compiles_nor_records() -> None:
    settings = AcceleratorSettings.of(torch.device("cpu"))
    assert settings.backend is None
    assert not settings.records


def prompt_of(query_turn: list[int]) -> Prompt:
    return Prompt([5] * len(query_turn), [0] * len(query_turn), query_turn, [0] * len(query_turn))


def test_a_part_holds_one_turn_at_most() -> None:
    prompt = prompt_of([0, 0, 1, 1, 0, 2, 2, 0, 0])
    assert [(part.start, part.stop, part.turn) for part in parts_of(prompt, None, 0, 0)] == [(0, 4, 1), (4, 9, 2)]
    assert [(part.start, part.stop, part.turn) for part in parts_of(prompt, None, 0, 4)] == [(4, 9, 2)]
    assert [(part.start, part.stop) for part in parts_of(prompt_of([0] * 5), None, 0, 2)] == [(2, 5)]
    assert [(part.start, part.stop) for part in parts_of(prompt_of([0, 1, 1]), None, 0, 0)] == [(0, 3)]


def test_the_cache_grows_for_a_longer_answer_and_stays_for_a_shorter_one(twins: Twins) -> None:
    first = twins.engine.borrow(1, 20)
    assert first is not None
    assert twins.engine.borrow(1, 20) is None  # lent
    twins.engine.give_back(1)
    assert first.cache.columns == 32
    assert twins.engine.borrow(1, 31) is first
    twins.engine.give_back(1)
    longer = twins.engine.borrow(1, 32)
    assert longer is not None
    assert longer.cache.columns == 48
    many = twins.engine.borrow(3, 20)
    assert many is not None
    assert many.cache.rows == 4


def test_many_shapes_are_few_passes(make_twins: MakeTwins, pictures: list[Image.Image]) -> None:
    twins = make_twins()
    seen: dict[str, set[tuple[int, ...]]] = {"read": set(), "step": set()}
    slots = twins.engine.borrow(4, 150)
    assert slots is not None
    slots.read.register_forward_pre_hook(lambda _, args: seen["read"].add(tuple(args[0].shape[1:])))
    slots.step.register_forward_pre_hook(lambda _, args: seen["step"].add(tuple(args[0].shape)))
    twins.engine.give_back(4)
    pairs = [(pictures[place % 3], "why " * place + "is it?") for place in range(11)]
    twins.fast.answer_batch(pairs, max_new_tokens=9)
    assert {rows for rows, _ in seen["read"]} <= {1, 2}
    assert all(columns % 8 == 0 for _, columns in seen["read"])
    assert seen["step"] <= {(1,), (2,), (4,)}
