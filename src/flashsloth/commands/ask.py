"""`flashsloth ask`: pictures and a question in, the answer out."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.commands import arguments
from flashsloth.commands.failures import CommandError
from flashsloth.commands.picture_paths import path_of
from flashsloth.commands.streams import readable

if TYPE_CHECKING:
    from PIL import Image

    from flashsloth.inference import FlashSloth

EXAMPLES = (
    'flashsloth ask photo.jpg "What color is the car?"',
    'flashsloth ask before.png after.png "What is different?"',
    'flashsloth ask chart.png "Which bar is the largest?" --json',
    'cat photo.jpg | flashsloth ask - "What is this?"',
)
STDIN = "-"
MAX_TOKENS = 512


def ask(
    pictures: Annotated[list[str] | None, typer.Argument(metavar="PICTURE", help="Files; - is one from stdin.")] = None,
    *,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Comes last.")],
    model: arguments.Model = None,
    max_new_tokens: arguments.MaxNewTokens = MAX_TOKENS,
    temperature: arguments.Temperature = 0.0,
    top_p: arguments.TopP = 1.0,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    as_json: arguments.Json = False,
) -> None:
    """Ask one question about a picture, several, or none.

    The answer appears word by word, on stdout.
    """
    from flashsloth.commands import terminal

    names = pictures or []
    question = readable(question, "the question")
    _check_question(question, names)
    opened = open_named(names)  # first: a mistake costs no loading
    started = time.perf_counter()
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    loaded = time.perf_counter()
    pieces = sloth.stream(opened or None, question, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
    answer = terminal.collect(pieces) if as_json else terminal.print_pieces(pieces)
    done = time.perf_counter()
    tokens = len(sloth.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
    if not as_json:
        terminal.print_note(f"{done - loaded:.2f} s, {tokens} tokens, {describe(sloth)}")
        return
    terminal.print_json(
        {
            "answer": answer,
            "question": question,
            "pictures": names,
            "tokens": tokens,
            "seconds": round(done - loaded, 3),
            "load_seconds": round(loaded - started, 3),
            "model": sloth.name,
            "device": str(sloth.device),
            "dtype": str(sloth.dtype).removeprefix("torch."),
        }
    )


def open_named(names: list[str]) -> list[Image.Image]:
    """The pictures of a command line, opened; `-` is read from stdin."""
    from flashsloth.media import open_picture

    return [open_picture(sys.stdin.buffer.read() if name == STDIN else path_of(name)) for name in names]


def describe(sloth: FlashSloth) -> str:
    """A model in a few words: "nano on cpu in float32"."""
    return f"{sloth.name} on {sloth.device} in {str(sloth.dtype).removeprefix('torch.')}"


def _check_question(question: str, names: list[str]) -> None:
    """Catch the two ways in which the last argument is not the question, before a model is loaded."""
    if os.path.isfile(path_of(question)):
        raise CommandError(f"the last argument, {question!r}, is a file; expected the question after the pictures")
    if not question.strip():
        raise CommandError("the question is empty; expected a text after the pictures")
    if names.count(STDIN) > 1:
        raise CommandError("stdin (-) was named more than once; it holds one picture")
