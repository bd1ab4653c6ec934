"""Which passes over prompts are for recording, and in which shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from flashsloth.inference.engine.graph_prompts import PromptInputs, PromptPart, PromptShape
from flashsloth.inference.pipeline import FlashSloth

COLUMNS = 1024


@pytest.fixture
def inputs(sloth: FlashSloth) -> PromptInputs:
    return PromptInputs(sloth.model.config, 0, torch.float32, torch.device("cpu"))


def part(sloth: FlashSloth, *questions: tuple[str, int], later: bool = False) -> PromptPart:
    """What is run of a conversation, from its beginning or its last question on."""
    messages = []
    for question, pictures in questions:
        messages += [sloth.writer.user_message(question, pictures), tiny.assistant("red")]
    prompt = sloth.writer.write(messages[:-1], None)
    shown = sloth.image_encoder.prepare([tiny.picture(number) for number in range(max(prompt.image_index))])
    return PromptPart(
        prompt, sloth.image_encoder.encode_prepared([shown])[0], prompt.last_question_start() if later else 0
    )


def test_shapes_are_rounded_up(sloth: FlashSloth, inputs: PromptInputs) -> None:
    parts = [part(sloth, ("Why?", 1)), part(sloth, ("Why?", 0)), part(sloth, ("Where?", 1))]
    assert max(len(one.prompt) for one in parts) <= 32
    assert inputs.shape_of(parts, 4, COLUMNS) == PromptShape(4, 32, 1, 32)
    later = part(sloth, ("Why?", 1), later=True)
    assert inputs.shape_of([later], 1, COLUMNS) == PromptShape(1, 32, 1, 256)
    assert inputs.shape_of([later], 1, 64) == PromptShape(1, 32, 1, 64)
    assert inputs.shape(1, 600, 0, 0, 2048) == PromptShape(1, 1024, 0, 1024)


def test_what_is_not_for_recording(sloth: FlashSloth, inputs: PromptInputs) -> None:
    one, turns = part(sloth, ("Why?", 1)), [("Why?", 1), ("Where?", 0)]
    assert inputs.shape_of([one] * 3, 3, COLUMNS) is None  # the fourth row is somebody's
    assert inputs.shape_of([one] * 9, 32, COLUMNS) is None
    assert inputs.shape_of([one], 1, 16) is None
    assert inputs.shape_of([replace(one, pictures=None)], 1, COLUMNS) is None
    assert inputs.shape_of([part(sloth, *turns)], 1, COLUMNS) is None
    assert inputs.shape_of([part(sloth, *turns, later=True)], 1, COLUMNS) is not None
    assert inputs.shape(8, 600, 0, 0, 2048) is None  # too many positions
    assert inputs.shape(8, 20, 2, 0, 2048) is None  # too many pictures


def test_positions_are_marked_as_the_prompt_says(sloth: FlashSloth, inputs: PromptInputs) -> None:
    config = sloth.model.config
    start = 1
    whole = replace(part(sloth, ("Why?", 2)), start=start)
    asked, pictures = whole.prompt, whole.pictures
    assert pictures is not None
    shape = inputs.shape_of([whole], 2, COLUMNS)
    assert shape is not None
    inputs.write(shape, [whole], 5)
    given = inputs.tensors(shape)
    length = len(asked) - start
    assert given.ids[0, :length].tolist() == asked.input_ids[start:]
    assert (given.row.tolist(), given.start.tolist(), given.last.tolist()) == ([5], [start], [length - 1])
    visual = [place for place in given.visual_place[0].tolist() if place >= 0]
    assert visual == list(range(2 * config.num_image_tokens))
    assert given.query_place[0, given.query_index[0]].tolist() == list(range(config.num_query_tokens))
    assert given.in_question[0, :length].tolist() == asked.question_turn[start:]
    assert given.visible.tolist() == [[True, True]]
    torch.testing.assert_close(given.features[0], pictures.features.last_hidden_state.flatten(0, 1))
    torch.testing.assert_close(given.visual[0], pictures.features.pooler_output.flatten(0, 1))


def test_a_former_pass_leaves_nothing_in_rows_without_pictures(sloth: FlashSloth, inputs: PromptInputs) -> None:
    shape = PromptShape(2, 32, 1, 32)
    for held in inputs.static[1:]:
        held.fill_(torch.nan)
    inputs.write(shape, [part(sloth, ("Why?", 0))], 0)
    given = inputs.tensors(shape)
    assert bool(given.features.isfinite().all())
    assert bool(given.visual.isfinite().all())
    assert not bool(given.visible.any())
