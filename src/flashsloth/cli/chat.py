"""`flashsloth chat`: a conversation at the terminal.

In: lines from stdin. Out: answers as they are made. Ctrl-C stops an answer, Ctrl-D (the end of stdin) ends it all.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.ask import open_named, paths_of
from flashsloth.cli.terminal import USERS, judge, machines_refusal, readable
from flashsloth.inference import MAX_TOKENS

if TYPE_CHECKING:
    from PIL import Image

    from flashsloth.inference.chat import Conversation
    from flashsloth.inference.options import AnswerOptions
    from flashsloth.inference.pipeline import FlashSloth

EXAMPLES = (
    "flashsloth chat photo.jpg",
    "flashsloth chat --model runs/nano/final --temperature 0.7",
)
HELP = """\
/image PATH   show a picture with the next question
/new          start over, with the pictures of the command line
/help         this
/quit, exit   leave (or Ctrl-D); Ctrl-C stops an answer"""
LEAVING = ("/quit", "/exit", "quit", "exit", ":q")
PROMPT = "> "


def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="PICTURE", help="Pictures to talk about.")] = None,
    model: arguments.Model = None,
    max_tokens: arguments.MaxTokens = MAX_TOKENS,
    temperature: arguments.Temperature = 0.0,
    top_p: arguments.TopP = 1.0,
    top_k: arguments.TopK = 0,
    min_p: arguments.MinP = 0.0,
    seed: arguments.DrawSeed = None,
    stop: arguments.Stop = None,
    presence_penalty: arguments.PresencePenalty = 0.0,
    frequency_penalty: arguments.FrequencyPenalty = 0.0,
    deadline: arguments.Deadline = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
) -> None:
    """Talk about pictures: every question knows the ones before.

    Inside, /image PATH adds a picture, /new starts over, /help says more.
    """
    given = locals()
    opened = open_named(images or [])  # first: a mistake costs no loading
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    session = Session(sloth, opened, arguments.sampling_options(given))
    terminal.print_note(f"{terminal.describe(sloth)}. Ask; /help for commands, Ctrl-D to leave.")
    while (line := _read_line()) is not None and line.lower() not in LEAVING:
        try:
            session.take(readable(line, "the line"))
        except Exception as error:
            code, message = judge(error)
            refused = machines_refusal(error) is not None and not isinstance(error, OSError)
            if code != USERS and not refused:  # a bug, or there is nowhere to write answers to
                raise
            terminal.print_error(message)


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
        words = line.split(None, 1)
        if not words:
            return
        command, rest = words[0].lower(), words[1] if len(words) > 1 else ""
        if command == "/image":
            self._add_picture(rest)
        elif command == "/new":
            self._conversation, self._waiting = self._new_conversation(), []
            terminal.print_note("A new conversation.")
        elif command == "/help":
            terminal.stderr().print(HELP)
        elif command.startswith("/") and command.count("/") == 1 and not rest:
            terminal.print_error(f"there is no command {words[0]}; /help lists them")
        else:
            self._answer(line)

    def _new_conversation(self) -> Conversation:
        return self._sloth.chat(self._images or None, **self._options)

    def _add_picture(self, rest: str) -> None:
        from flashsloth.media import open_picture

        opened = [(path, open_picture(path)) for path in paths_of(rest)]  # all or none; a mistake is reported now
        for path, picture in opened:
            self._waiting.append(picture)
            terminal.print_note(f"{path}, {picture.width} x {picture.height}: shown with your next question.")

    def _answer(self, question: str) -> None:
        pieces = self._conversation.stream(question, self._waiting or None)
        self._waiting = []  # once the question is taken: after one that is too long they still wait
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
