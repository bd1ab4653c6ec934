"""Pairs of a picture and a question, of any number, through the engine: what `FlashSloth.answer_as_ready` does there.

In: pairs and options. Out: (place, answer) as answers get done; None where the plain path must make them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING

from flashsloth.inference.accelerator.entrance import run_queue, whole_answers
from flashsloth.inference.accelerator.feeding import Feeder
from flashsloth.inference.accelerator.settings import bucket
from flashsloth.inference.detokenizer import text_of
from flashsloth.inference.errors import PromptError
from flashsloth.inference.options import Options
from flashsloth.inference.prompt import Prompt
from flashsloth.inference.vision import Picture

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth

USUAL_TEXT_TOKENS = 128
"""For guessing how long prompts are before the first is written; a longer one makes the cache grow."""


def answer_pairs(
    sloth: FlashSloth, pairs: Iterable[tuple[Picture, str]], options: Options
) -> Iterator[tuple[int, str]] | None:
    """Answer all pairs, prepared in threads meanwhile."""
    engine = sloth.generator.engine
    assert engine is not None
    slots = engine.settings.slots
    rows = bucket(len(pairs), slots) if isinstance(pairs, Sized) else slots[-1]
    columns = usual_columns(sloth, options.max_new_tokens)

    def write(question: str, pictures: int) -> Prompt:
        return sloth.writer.write([sloth.writer.user_message(question, pictures)], options.system)

    feeder = Feeder(
        _checked(sloth, pairs),
        lambda picture: sloth.image_encoder.open(picture, options.image_policy),
        write,
        lambda prompt: sloth.generator.room(prompt, options),
        sloth.image_encoder,
        engine.settings,
    )
    answers = run_queue(sloth.generator, engine, feeder, sloth.generator.chooser(options), rows, columns)
    return None if answers is None else _texts(sloth, feeder, whole_answers(answers))


def usual_columns(sloth: FlashSloth, new_tokens: int) -> int:
    """Columns that a question about one picture, and its answer, come to need."""
    config = sloth.model.config
    wanted = config.num_image_tokens + config.num_query_tokens + USUAL_TEXT_TOKENS + new_tokens
    context = sloth.generator.context
    return wanted if context is None else min(wanted, context)


def _texts(sloth: FlashSloth, feeder: Feeder, answers: Iterator[tuple[int, list[int]]]) -> Iterator[tuple[int, str]]:
    with feeder:
        for place, ids in answers:
            yield place, text_of(ids, sloth.processor.tokenizer)


def _checked(sloth: FlashSloth, pairs: Iterable[tuple[Picture, str]]) -> Iterator[tuple[Picture, str]]:
    """The pairs, as they are read.

    Raises:
        PromptError: where one is none.
    """
    for place, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PromptError(f"pair {place} is {type(pair).__name__}; expected (picture, question)")
        sloth.writer.check_question(pair[1])
        yield pair[0], pair[1]


__all__ = ["answer_pairs", "usual_columns"]
