r"""`flashsloth ask`: pictures and a question in, the answer out.

Pictures are named as people name them: typed, quoted, or dragged into a terminal, which quotes in the shell's way
('my photo.png', my\ photo.png) or gives a file:// URL. A name that is typed may hold quotes and backslashes of its own
(it's.png), so the name of a file that exists is taken as it is.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError, readable
from flashsloth.inference import MAX_TOKENS, RESOLUTION_THRESHOLD

if TYPE_CHECKING:
    from PIL import Image

    from flashsloth.inference.answer import Answer
    from flashsloth.inference.options import AnswerOptions
    from flashsloth.inference.pipeline import FlashSloth
    from flashsloth.inference.visual_attention import Attention

EXAMPLES = (
    'flashsloth ask photo.jpg "What color is the car?"',
    'flashsloth ask before.png after.png "What is different?"',
    'flashsloth ask chart.png "Which bar is the largest?" --json',
    'flashsloth ask photo.jpg "Is it day?" --choice yes --choice no',
    'flashsloth ask photo.jpg "What color is the car?" --attention looked.png',
    'cat photo.jpg | flashsloth ask - "What is this?"',
)
STDIN = "-"
FILE_SCHEME = "file://"
SUFFIX = ".png"

AttentionFile = Annotated[
    Path | None,
    typer.Option("--attention", metavar=f"FILE{SUFFIX}", help="Paint what the model attended to, over the pictures."),
]


def ask(
    pictures: Annotated[list[str] | None, typer.Argument(metavar="PICTURE", help="Files; - is one from stdin.")] = None,
    *,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Comes last.")],
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
    resolution: arguments.Resolution = None,
    resolution_threshold: arguments.ResolutionThreshold = RESOLUTION_THRESHOLD,
    answers: Annotated[int, typer.Option("--answers", "-n", metavar="N", help="So many answers, a line each.")] = 1,
    choices: Annotated[
        list[str] | None, typer.Option("--choice", metavar="TEXT", help="Score this answer; repeat for each choice.")
    ] = None,
    per_token: Annotated[bool, typer.Option("--per-token", help="Score choices by their mean per token.")] = False,
    logprobs: Annotated[
        int | None, typer.Option("--logprobs", metavar="N", help="With --json: log-probabilities, N likeliest beside.")
    ] = None,
    attention: AttentionFile = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    as_json: arguments.Json = False,
) -> None:
    """Ask one question about a picture, several, or none.

    The answer appears word by word, on stdout.
    """
    given = locals()
    names = pictures or []
    question = readable(question, "the question")
    _check_question(question, names)
    options = _options(given)
    if attention is not None:
        check_attention_file(attention, len(names))
    opened = open_named(names)  # first: a mistake costs no loading
    started = time.perf_counter()
    sloth = terminal.load_quietly(model, device, dtype, quantize)
    loaded = time.perf_counter()
    found = _answers(sloth, opened, question, options, as_json)
    seconds = time.perf_counter() - loaded
    if attention is not None and found[0].attention:  # an answer that was stopped may have none
        write_attention(attention, opened, found[0].attention, question, found[0].text)
    if as_json:
        facts = {
            "question": question,
            "pictures": names,
            **({} if attention is None else {"attention": str(attention)}),
            "tokens": sum(len(one.tokens) for one in found),
            "seconds": round(seconds, 3),
            "load_seconds": round(loaded - started, 3),
            **terminal.model_facts(sloth),
        }
        terminal.print_json({**describe_answers(found, sloth, logprobs=logprobs is not None), **facts})
    elif found[0].finish_reason != "abort":
        _print_notes(found, sloth, given, seconds)
    if found[0].finish_reason == "abort":
        raise KeyboardInterrupt


def _options(given: dict[str, Any]) -> AnswerOptions:
    """The options of an answer, checked, of all arguments of the command."""
    from flashsloth.inference.options import Options

    logprobs = given["logprobs"]
    if logprobs is not None and not given["as_json"]:
        raise CommandError("--logprobs is shown in JSON alone: give --json beside it")
    options: AnswerOptions = {
        **arguments.sampling_options(given),
        "resolution": given["resolution"],
        "resolution_threshold": given["resolution_threshold"],
        "n": given["answers"],
        "choices": [readable(text, "--choice") for text in given["choices"] or []],
        "per_token": given["per_token"],
        "logprobs": logprobs is not None,
        "top_logprobs": logprobs or 0,
        "attention": given["attention"] is not None,
        "details": True,
    }
    Options.of(options)
    return options


def _answers(
    sloth: FlashSloth, opened: list[Image.Image], question: str, options: AnswerOptions, as_json: bool
) -> list[Answer]:
    """Answer, and show it meanwhile where it is for a person; Ctrl-C ends one that comes piece by piece where it is."""
    if options["n"] > 1 or options["choices"]:
        answer = sloth.answer(opened or None, question, **options)
        found: list[Answer] = answer if isinstance(answer, list) else [answer]
        if not as_json:
            choices = sorted(found[0].choices.items(), key=lambda item: -item[1])
            lines = [f"{probability:7.2%}  {text}" for text, probability in choices]
            terminal.print_lines(lines or [one.text for one in found])
        return found
    pieces = sloth.stream(opened or None, question, **options)
    try:
        "".join(pieces) if as_json else terminal.print_pieces(pieces)
    except KeyboardInterrupt:
        pieces.close()
    return [pieces.answer]


def _print_notes(found: list[Answer], sloth: FlashSloth, given: dict[str, Any], seconds: float) -> None:
    """How an answer was made, for a person."""
    first, tokens = found[0], sum(len(one.tokens) for one in found)
    if first.finish_reason == "timeout":
        terminal.print_warning(f"the deadline of {given['deadline']:g} s came before the answer's end")
    drawn = f", seed {first.seed}" if given["temperature"] else ""
    shown = f", {first.resolution} resolution" if given["resolution"] is not None and first.resolution else ""
    terminal.print_note(f"{seconds:.2f} s, {tokens} tokens{drawn}{shown}, {terminal.describe(sloth)}")


def describe_answers(found: list[Answer], sloth: FlashSloth, logprobs: bool = True) -> dict[str, Any]:
    """Answers as JSON can hold them: the first one's fields, and all of them where there are several."""
    described = [_described(one, sloth, logprobs) for one in found]
    return described[0] if len(found) == 1 else {**described[0], "answers": described}


def _described(answer: Answer, sloth: FlashSloth, logprobs: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"answer": answer.text, "finish_reason": str(answer.finish_reason)}
    for name in ("seed", "resolution", "confidence"):
        if getattr(answer, name) is not None:
            fields[name] = getattr(answer, name)
    if answer.choices:
        fields["choices"] = answer.choices
    if answer.logprobs and logprobs:
        decode = sloth.processor.tokenizer.decode
        beside = answer.top_logprobs or ((),) * len(answer.tokens)
        fields["logprobs"] = [
            {
                "token": decode([token]),
                "logprob": logprob,
                "top": [{"token": decode([other]), "logprob": value} for other, value in top],
            }
            for token, logprob, top in zip(answer.tokens, answer.logprobs, beside, strict=True)
        ]
    return fields


def open_named(names: list[str]) -> list[Image.Image]:
    """The pictures of a command line, opened; `-` is read from stdin."""
    from flashsloth.media import open_picture

    return [open_picture(sys.stdin.buffer.read() if name == STDIN else path_of(name)) for name in names]


def _check_question(question: str, names: list[str]) -> None:
    """Catch the two ways in which the last argument is not the question, before a model is loaded."""
    if os.path.isfile(path_of(question)):
        raise CommandError(f"the last argument, {question!r}, is a file; expected the question after the pictures")
    if not question.strip():
        raise CommandError("the question is empty; expected a text after the pictures")
    if names.count(STDIN) > 1:
        raise CommandError("stdin (-) was named more than once; it holds one picture")


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
        raise CommandError(f"--attention is {str(path)!r}, and there is no folder {str(path.parent)!r}: create it")


def write_attention(
    path: Path, pictures: Sequence[Image.Image], attentions: Sequence[Attention], question: str, answer: str
) -> None:
    """Paint what the model attended to, into a checked file; arguments as of `attention.paint`."""
    from flashsloth.files import whole_file
    from flashsloth.inference.visual_attention import paint

    painting = paint(pictures, attentions, question, answer)
    with whole_file(path) as unfinished:
        painting.save(unfinished, format="PNG", optimize=True)


def paths_of(line: str) -> list[str]:
    """The paths that a line names: one as it stands, or several in the shell's way."""
    whole = line.strip()
    if not whole or os.path.exists(path_of(whole)):
        return [path_of(whole)]
    try:
        words = [path_of(word) for word in shlex.split(whole)]
    except ValueError:  # a quote that is not closed belongs to the name
        words = []
    found = any(os.path.exists(word) or word[:5].lower() == "data:" for word in words)
    return words if found or len(words) == 1 else [path_of(whole)]  # where none exists, an error shows what was typed


def path_of(name: str) -> str:
    """A path of `~/photo.png` or `file:///home/me/my%20photo.png`."""
    if name[: len(FILE_SCHEME)].lower() == FILE_SCHEME:
        parts = urlsplit(name)
        if parts.netloc in ("", "localhost"):
            return unquote(parts.path, errors="surrogateescape")
    return os.path.expanduser(name) if name.startswith("~") else name
