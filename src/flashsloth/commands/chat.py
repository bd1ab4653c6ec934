"""`flashsloth chat`: a conversation at the terminal.

In: lines from stdin. Out: answers as they are made. Ctrl-C stops an answer, Ctrl-D (the end of stdin) ends it all.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.commands import arguments
from flashsloth.commands.ask import MAX_NEW_TOKENS, describe, open_named
from flashsloth.commands.failures import is_users_mistake, one_line

if TYPE_CHECKING:
    from PIL import Image

    from flashsloth.inference import Conversation, FlashSloth
    from flashsloth.inference.options import AnswerOptions

EXAMPLES = (
    "flashsloth chat photo.jpg",
    "flashsloth chat --model runs/nano/final --temperature 0.7",
)
HELP = """\
/image PATH   show a picture with the next question
/new          start over, with the pictures of the command line
/help         this
/quit         leave (or Ctrl-D); Ctrl-C stops an answer"""
PROMPT = "> "


def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="PICTURE", help="Pictures to talk about.")] = None,
    model: arguments.Model = None,
    max_new_tokens: arguments.MaxNewTokens = MAX_NEW_TOKENS,
    temperature: arguments.Temperature = 0.0,
    top_p: arguments.TopP = 1.0,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
) -> None:
    """Talk about pictures: every question knows the ones before.

    Inside, /image PATH adds a picture, /new starts over, /help says more.
    """
    from flashsloth.commands import terminal

    opened = open_named(images or [])  # first: a mistake costs no loading
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    options: AnswerOptions = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    session = Session(sloth, opened, options)
    terminal.print_note(f"{describe(sloth)}. Ask; /help for commands, Ctrl-D to leave.")
    while (line := _read_line()) is not None and line != "/quit":
        try:
            session.take(line)
        except Exception as error:
            if not is_users_mistake(error):
                raise
            terminal.print_error(one_line(error))


class Session:
    """A conversation, and the pictures that wait for its next question."""

    def __init__(self, sloth: FlashSloth, images: list[Image.Image], options: AnswerOptions) -> None:
        self._sloth = sloth
        self._images = images
        self._options = options
        self._conversation = self._new_conversation()
        self._waiting: list[Image.Image] = []

    def take(self, line: str) -> None:
        """Do what one line says."""
        from flashsloth.commands import terminal

        command, _, rest = line.partition(" ")
        if not line:
            return
        if command == "/image":
            self._add_picture(rest)
        elif command == "/new":
            self._conversation, self._waiting = self._new_conversation(), []
            terminal.print_note("A new conversation.")
        elif command == "/help":
            terminal.stderr().print(HELP)
        elif command.startswith("/") and command.count("/") == 1 and not rest:
            terminal.print_error(f"there is no command {command}; /help lists them")
        else:
            self._answer(line)

    def _new_conversation(self) -> Conversation:
        return self._sloth.chat(self._images or None, **self._options)

    def _add_picture(self, rest: str) -> None:
        from flashsloth.commands import terminal
        from flashsloth.media import open_picture

        paths = shlex.split(rest) or [""]
        for path in paths:
            picture = open_picture(path)  # a mistake is told now, not with the next question
            self._waiting.append(picture)
            terminal.print_note(f"{path}, {picture.width} x {picture.height}: shown with your next question.")

    def _answer(self, question: str) -> None:
        from flashsloth.commands import terminal

        pieces = self._conversation.stream(question, self._waiting or None)
        self._waiting = []
        try:
            terminal.print_pieces(pieces)
        except KeyboardInterrupt:
            terminal.print_note("stopped")


def _read_line() -> str | None:
    """The next line, stripped; None at the end. Ctrl-C at the prompt drops the line."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip() if line else None
    import readline  # noqa: F401 - gives input() its history and editing

    while True:
        try:
            return input(PROMPT).strip()
        except EOFError:
            sys.stdout.write("\n")
            return None
        except KeyboardInterrupt:
            sys.stdout.write("\n")
