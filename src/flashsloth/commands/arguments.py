"""Options that several commands take, each described once."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="A folder or a name on the hub; without it, the small model."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", metavar="N", help="The longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0: the likeliest words. Above: drawn, ever wilder.")]
TopP = Annotated[float, typer.Option("--top-p", help="Draw only from the likeliest words of this joint probability.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed, the same pictures.")]
Level = Annotated[int, typer.Option("--level", help="0 (one object) to 3 (everything).")]
