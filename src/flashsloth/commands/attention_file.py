"""The file of `flashsloth ask --attention FILE.png`: where the model looked, painted over the pictures.

In: a name, the pictures of a question, and where the model looked in them. Out: a PNG file, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.commands.failures import CommandError

if TYPE_CHECKING:
    from PIL import Image

    from flashsloth.inference.attention import Attention

SUFFIX = ".png"

AttentionFile = Annotated[
    Path | None,
    typer.Option("--attention", metavar=f"FILE{SUFFIX}", help="Paint where the model looked, over the pictures."),
]


def check_attention_file(path: Path, pictures: int) -> None:
    """Refuse a file that cannot be painted, before a model is loaded.

    Raises:
        CommandError: if there are no pictures, the name does not end in .png, or it cannot be a file's.
    """
    if not pictures:
        raise CommandError("--attention paints over pictures, and none was given: name one before the question")
    if path.suffix.lower() != SUFFIX:
        raise CommandError(f"--attention is {str(path)!r}; expected a name that ends in {SUFFIX}")
    if path.is_dir():
        raise CommandError(f"--attention is {str(path)!r}, which is a folder; expected a file's name")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--attention is {str(path)!r}, and there is no folder {str(path.parent)!r}: make it first")


def write_attention(
    path: Path, pictures: Sequence[Image.Image], attentions: Sequence[Attention], question: str, answer: str
) -> None:
    """Paint where the model looked, into a checked file; arguments as of `attention_painting.paint`."""
    from flashsloth.inference.attention_painting import paint
    from flashsloth.whole_file import whole_file

    painting = paint(pictures, attentions, question, answer)
    with whole_file(path) as unfinished:
        painting.save(unfinished, format="PNG", optimize=True)


__all__ = ["AttentionFile", "check_attention_file", "write_attention"]
