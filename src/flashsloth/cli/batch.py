"""`flashsloth batch`: a file of questions in, a file of answers out, whatever happens in between."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.evaluate_tasks import Adapter
from flashsloth.cli.progress import told_progress
from flashsloth.cli.serve import EXTRA, own_name
from flashsloth.cli.terminal import CommandError, readable
from flashsloth.inference import MAX_TOKENS, RESOLUTION_THRESHOLD
from flashsloth.serving.config import ServeConfig

if TYPE_CHECKING:
    from flashsloth.serving.batch import Answerer, BatchOutcome
    from flashsloth.serving.batch_lines import BatchSource
    from flashsloth.serving.batch_output import BatchOutput

EXAMPLES = (
    "flashsloth batch questions.jsonl answers.jsonl",
    'flashsloth batch photos answers.jsonl --question "What is in the picture?"',
    "flashsloth batch table.csv answers.jsonl --model FOLDER --max-tokens 64",
    "flashsloth batch questions.jsonl answers.jsonl --engine ray --actors 8 --actor-gpus 1",
)
RAY_EXTRA = "pip install 'flashsloth[scale]'"
LOCAL, RAY = ENGINES = ("local", "ray")
INCOMPLETE = 1
"""Exit code where a line could not be answered."""
FOR_SIMPLE_LINES = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "choices",
    "per_token",
    "resolution",
    "resolution_threshold",
)
"""Arguments that OpenAI's lines do not take: each says them by itself."""
FOR_OPENAIS_LINES = ("served_model_name", "allow_media_host")
LOADING = ("device", "dtype", "quantize", "adapter")
FOR_RAY = ("actors", "actor_cpus", "actor_gpus")

In = Annotated[
    Path,
    typer.Argument(metavar="IN", help="OpenAI's batch lines; a picture and a question a line (JSONL, CSV); a folder."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="For the answers; a file that is there goes on.")]
Asked = Annotated[
    str | None, typer.Option("--question", "-q", metavar="TEXT", help="Asked where a line has none, and of a folder.")
]
Choices = Annotated[
    list[str] | None, typer.Option("--choice", metavar="TEXT", help="Score this answer; repeat for each choice.")
]
ServedNames = Annotated[
    list[str] | None,
    typer.Option("--served-model-name", metavar="NAME", help="What OpenAI's lines call the model; repeatable."),
]
MediaHosts = Annotated[
    list[str] | None,
    typer.Option("--allow-media-host", metavar="NAME", help="A host that OpenAI's lines may name pictures of."),
]
EngineName = Annotated[str, typer.Option("--engine", help="local, or ray: several processes or machines.")]
Actors = Annotated[int, typer.Option("--actors", metavar="N", min=1, help="Of ray: models that answer.")]
ActorCpus = Annotated[float, typer.Option("--actor-cpus", metavar="N", help="Of ray: processors of each.")]
ActorGpus = Annotated[float, typer.Option("--actor-gpus", metavar="N", help="Of ray: accelerators of each.")]
PerToken = Annotated[bool, typer.Option("--per-token", help="Score choices by their mean per token.")]


def batch(
    source: In,
    out: Out,
    *,
    question: Asked = None,
    model: arguments.Model = None,
    adapter: Adapter = None,
    max_tokens: arguments.MaxTokens = MAX_TOKENS,
    temperature: arguments.Temperature = 0.0,
    top_p: arguments.TopP = 1.0,
    top_k: arguments.TopK = 0,
    min_p: arguments.MinP = 0.0,
    seed: arguments.DrawSeed = None,
    stop: arguments.Stop = None,
    presence_penalty: arguments.PresencePenalty = 0.0,
    frequency_penalty: arguments.FrequencyPenalty = 0.0,
    choices: Choices = None,
    per_token: PerToken = False,
    resolution: arguments.Resolution = None,
    resolution_threshold: arguments.ResolutionThreshold = RESOLUTION_THRESHOLD,
    served_model_name: ServedNames = None,
    allow_media_host: MediaHosts = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
    engine: EngineName = LOCAL,
    actors: Actors = 1,
    actor_cpus: ActorCpus = 0.5,
    actor_gpus: ActorGpus = 0.0,
    as_json: arguments.Json = False,
) -> None:
    """Answer every line of a file, or every picture of a folder.

    Answers are written down one by one, in any order, each id once; the same command goes on after any end, and asks
    again what has changed or failed. Exits with 1 where a line could not be answered: its line in OUT says why.
    """
    given = locals()
    from flashsloth.serving.batch import read_asked, run_batch
    from flashsloth.serving.batch_lines import BatchSource
    from flashsloth.serving.batch_output import BatchOutput

    asked = BatchSource(source, None if question is None else readable(question, "--question"))
    if out.exists() and out.samefile(source):
        raise CommandError(f"{out} is what is asked; expected another file for the answers")
    _check_options(asked, given)
    counted = read_asked(asked)
    with BatchOutput(out) as output:
        answerer = _ray_answerer(asked, output, given) if engine == RAY else _answerer(asked, given)
        with told_progress(source.name, "lines") as progress:
            outcome = run_batch(asked, counted, output, answerer, progress)
    _say(outcome, out, as_json)
    if outcome.failed:
        raise typer.Exit(INCOMPLETE)


def _check_options(source: BatchSource, given: dict[str, Any]) -> None:
    """Refuse what lines say by themselves, or cannot use, before anything is read.

    Raises:
        CommandError: for such an option.
    """
    defaults = {name: one.default for name, one in inspect.signature(batch).parameters.items()}
    if given["engine"] not in ENGINES:
        raise CommandError(f"--engine is {given['engine']!r}; expected {' or '.join(ENGINES)}")
    refused = dict.fromkeys(FOR_OPENAIS_LINES, "only OpenAI's lines use it")
    if source.is_openai:
        refused = dict.fromkeys(FOR_SIMPLE_LINES, "OpenAI's lines say that themselves")
    if given["engine"] != RAY:
        refused |= dict.fromkeys(FOR_RAY, "only --engine ray uses it")
    for name, why in refused.items():
        if given[name] != defaults[name]:
            option = {"choices": "choice"}.get(name, name).replace("_", "-")
            raise CommandError(f"--{option} is given, but {why}: leave it out")


def _answerer(source: BatchSource, given: dict[str, Any]) -> Answerer:
    with terminal.waiting(f"loading {given['model'] or 'the small model'}"):
        from flashsloth.evaluation.answerer import load_flashsloth
        from flashsloth.serving.batch_answerers import SimpleAnswerer

        if source.is_openai:
            _check_extra()
        model = load_flashsloth(given["model"], **{name: given[name] for name in LOADING})
        if not source.is_openai:
            return SimpleAnswerer(model, source, _options(given))
        from flashsloth.serving.batch_requests import RequestAnswerer

        return RequestAnswerer(model, _config(given))


def _ray_answerer(source: BatchSource, output: BatchOutput, given: dict[str, Any]) -> Answerer:
    with terminal.waiting("starting Ray, and loading the model there"):
        try:
            from flashsloth.serving.ray_batch import ActorSettings, RayAnswerer
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "flashsloth":
                raise
            raise CommandError(f"--engine ray needs {error.name}, which is not installed: {RAY_EXTRA}") from error
        from flashsloth.inference.options import Options

        options = _options(given)
        Options.of(options)
        loading: dict[str, Any] = {name: given[name] for name in ("model", *LOADING)}
        actors = {"actors": given["actors"], "cpus": given["actor_cpus"], "gpus": given["actor_gpus"]}
        settings = ActorSettings(**loading, options=options, config=_config(given), **actors)
        return RayAnswerer(source, output, settings)


def _config(given: dict[str, Any]) -> ServeConfig:
    """What OpenAI's lines are held to."""
    names = tuple(given["served_model_name"] or (own_name(given["model"], given["adapter"]),))
    return ServeConfig(model_names=names, allow_media_hosts=tuple(given["allow_media_host"] or ()))


def _check_extra() -> None:
    """Refuse OpenAI's lines where the server is not installed.

    Raises:
        CommandError: saying how to get it.
    """
    try:
        import flashsloth.serving.app  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "flashsloth":
            raise
        raise CommandError(f"OpenAI's lines need {error.name}, which is not installed: {EXTRA}") from error


def _options(given: dict[str, Any]) -> Any:
    """Of answers to simple lines."""
    return {
        **arguments.sampling_options({**given, "deadline": None}),
        "choices": [readable(text, "--choice") for text in given["choices"] or []],
        "per_token": given["per_token"],
        "resolution": given["resolution"],
        "resolution_threshold": given["resolution_threshold"],
    }


def _say(outcome: BatchOutcome, out: Path, as_json: bool) -> None:
    """What became of it, on stdout."""
    if as_json:
        terminal.print_json({**vars(outcome), "out": str(out)})
        return
    answered = outcome.already + outcome.answered
    before = f", {outcome.already:,} of them before" if outcome.already else ""
    terminal.print_line(f"{answered:,} of {outcome.lines:,} lines are answered in {out}{before}")
    if outcome.failed:
        terminal.print_error(
            f"{outcome.failed:,} of {outcome.lines:,} lines could not be answered; {out} says why, and the same "
            "command asks them again"
        )
