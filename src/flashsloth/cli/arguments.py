"""Options that several commands take, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashsloth.cli.terminal import CommandError, readable

if TYPE_CHECKING:
    from flashsloth.inference.options import AnswerOptions

SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "deadline",
)
"""Arguments that go to the model as they are."""

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="A folder or a name on the hub; without it, the small model."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Quantize = Annotated[
    str | None, typer.Option("--quantize", metavar="BITS", help="int8 or int4: a smaller language model.")
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", "--max-new-tokens", metavar="N", help="The longest answer, in tokens.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", help="0: the likeliest tokens. Above 0: drawn, the flatter the higher.")
]
TopP = Annotated[float, typer.Option("--top-p", help="Draw only from the likeliest tokens of this joint probability.")]
TopK = Annotated[
    int, typer.Option("--top-k", metavar="N", help="Draw only from so many likeliest tokens; 0: from all.")
]
MinP = Annotated[
    float, typer.Option("--min-p", help="Draw only from tokens with this share of the likeliest one's probability.")
]
DrawSeed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Draw the same again; without it a seed is chosen and shown.")
]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End the answer before this text; repeatable.")
]
PresencePenalty = Annotated[
    float, typer.Option("--presence-penalty", help="Against tokens that the answer holds already: -2 to 2.")
]
FrequencyPenalty = Annotated[
    float, typer.Option("--frequency-penalty", help="The same, for each time that they came: -2 to 2.")
]
Deadline = Annotated[
    float | None, typer.Option("--deadline", metavar="SECONDS", help="End the answer after this time, wherever it is.")
]
Resolution = Annotated[
    str | None,
    typer.Option(
        "--resolution",
        metavar="WHAT",
        help="Of an HD model: standard (the whole view), hd (all views), auto (hd where standard is not sure).",
    ),
]
ResolutionThreshold = Annotated[
    float, typer.Option("--resolution-threshold", metavar="P", help="For auto: how sure is sure, 0 to 1.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="What a published checkpoint's files lack; repeatable."),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed, the same pictures.")]
Unknown = Annotated[
    float,
    typer.Option(
        "--unknown",
        metavar="SHARE",
        help="Of pictures that show nothing with a name, and of questions with false premises.",
    ),
]
Level = Annotated[int, typer.Option("--level", help="0 (one object) to 3 (everything).")]


def sampling_options(given: Mapping[str, Any]) -> AnswerOptions:
    """Options of an answer that `ask` and `chat` both take, of all arguments of the command.

    Raises:
        CommandError: for a text that is not UTF-8.
    """
    options: Any = {name: given[name] for name in SAMPLING}
    return {**options, "stop": [readable(text, "--stop") for text in given["stop"] or []]}


def check_seed(seed: int) -> None:
    """Refuse a seed that torch cannot take.

    Raises:
        CommandError: if it is below 0 or has more than 63 bits.
    """
    if not 0 <= seed < 1 << 63:
        raise CommandError(f"--seed is {seed}; expected 0 to 2^63 - 1")


def settings_of(texts: list[str] | None) -> dict[str, Any]:
    """`["query_token_id=500"]` as a dictionary, values read as YAML.

    Raises:
        CommandError: for what is not key=value, or no field of the configuration.
    """
    import dataclasses

    import yaml

    from flashsloth.model.configuration_flashsloth import FlashSlothConfig

    fields = {field.name for field in dataclasses.fields(FlashSlothConfig)}
    settings = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator or key not in fields:
            raise CommandError(f"--set {text!r}; expected a field of the configuration, as in query_token_id=50295")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CommandError(f"--set {text!r} is not YAML after the =; expected a value, as in {key}=3") from error
    return settings
