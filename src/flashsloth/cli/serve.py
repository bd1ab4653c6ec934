"""`flashsloth serve`: a model for many, over HTTP, and a page to ask it on.

In: options, each with a default. Out: on stdout the page's address and a line to try; on stderr a line a request.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flashsloth.cli import arguments, terminal
from flashsloth.cli.terminal import CommandError
from flashsloth.serving.config import MIB, ServeConfig

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth

EXAMPLES = (
    "flashsloth serve",
    "flashsloth serve runs/mine/final --port 8080 --quantize int8",
    "flashsloth serve --host 0.0.0.0 --api-key-file keys.txt --allow-host pictures.example.org",
    "flashsloth serve nano --adapter runs/mine/adapter",
)
EXTRA = "pip install 'flashsloth[serve]'"
DEFAULTS = ServeConfig()
COMMENT = "#"


def serve(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A folder or a name on the hub.")] = None,
    *,
    host: Annotated[str, typer.Option("--host", help="Where to listen; beyond this machine, keys are required.")] = (
        DEFAULTS.host
    ),
    port: Annotated[int, typer.Option("--port", help="0 for one that is free.")] = DEFAULTS.port,
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="FOLDER", help="An adapter of the model, merged into it.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option("--served-model-name", metavar="NAME", help="What clients call it; repeatable.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="Keys, one a line; any of them opens it.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name it is addressed by; repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="ORIGIN", help="A site whose pages may ask; repeatable."),
    ] = None,
    allow_media_host: Annotated[
        list[str] | None,
        typer.Option("--allow-media-host", metavar="NAME", help="A host to fetch pictures from; repeatable."),
    ] = None,
    max_running: Annotated[int, typer.Option("--max-running", metavar="N", help="Answers made at once.")] = (
        DEFAULTS.max_running
    ),
    max_waiting: Annotated[int, typer.Option("--max-waiting", metavar="N", help="That wait; more are refused.")] = (
        DEFAULTS.max_waiting
    ),
    deadline: Annotated[float, typer.Option("--deadline", metavar="SECONDS", help="Of each request.")] = (
        DEFAULTS.deadline
    ),
    max_tokens: Annotated[int, typer.Option("--max-tokens", metavar="N", help="Where a request does not say.")] = (
        DEFAULTS.max_tokens
    ),
    max_pictures: Annotated[int, typer.Option("--max-pictures", metavar="N", help="In one request.")] = (
        DEFAULTS.max_pictures
    ),
    max_body: Annotated[int, typer.Option("--max-body", metavar="MIB", help="Of one request.")] = (
        DEFAULTS.max_body_bytes // MIB
    ),
    drain_timeout: Annotated[
        float, typer.Option("--drain-timeout", metavar="SECONDS", help="For answers to end in, after SIGTERM.")
    ] = DEFAULTS.drain_seconds,
    media_workers: Annotated[
        int, typer.Option("--media-workers", metavar="N", help="Processes that open pictures.")
    ] = DEFAULTS.media_workers,
    cache_bytes: Annotated[
        int | None,
        typer.Option("--cache-bytes", metavar="BYTES", help="For keys and values; without it, half of what is free."),
    ] = None,
    device: arguments.Device = "auto",
    dtype: arguments.Dtype = "auto",
    quantize: arguments.Quantize = None,
) -> None:
    """Serve a model: OpenAI's interface, a page, and more.

    Ctrl-C, or SIGTERM, ends it once the answers that it has begun are made; a second one ends it at once.
    Several models are several servers.
    """
    config = ServeConfig(
        host=host,
        port=port,
        max_running=max_running,
        max_waiting=max_waiting,
        deadline=deadline,
        max_tokens=max_tokens,
        max_pictures=max_pictures,
        max_body_bytes=max_body * MIB,
        drain_seconds=drain_timeout,
        media_workers=media_workers,
        allow_hosts=tuple(allow_host or ()),
        allow_origins=tuple(allow_origin or ()),
        allow_media_hosts=tuple(allow_media_host or ()),
        api_keys=() if api_key_file is None else read_keys(api_key_file),
        model_names=tuple(served_model_name or (own_name(model, adapter),)),
    )
    try:
        from flashsloth.serving.app import create_app
        from flashsloth.serving.listening import bind
        from flashsloth.serving.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "flashsloth":
            raise
        raise CommandError(f"the server needs {error.name}, which is not installed: {EXTRA}") from error
    sockets = bind(config)  # first: a mistake costs no loading
    from flashsloth.inference.engine.config import EngineConfig
    from flashsloth.serving.service import Service

    engine = EngineConfig(max_rows=max_running, cache_bytes=cache_bytes)
    sloth = terminal.load_quietly(model, device, dtype, quantize, engine=engine, adapter=adapter)
    app = create_app(Service(sloth, config))

    def show(url: str) -> None:
        terminal.print_lines(greeting(url, sloth, config))

    status = run(app, config, sockets=sockets, engine=sloth.engine_thread, on_ready=show)
    if status:
        raise typer.Exit(status)


def greeting(url: str, sloth: FlashSloth, config: ServeConfig) -> list[str]:
    """What a person reads once the server is ready."""
    from flashsloth.serving.service import RED_PICTURE

    key = ' -H "Authorization: Bearer $KEY"' if config.api_keys else ""
    question = '{"type": "text", "text": "What color is it?"}'
    picture = f'{{"type": "image_url", "image_url": {{"url": "{RED_PICTURE}"}}}}'
    body = (
        f'{{"model": "{config.model_names[0]}", "messages": [{{"role": "user", "content": [{picture}, {question}]}}]}}'
    )
    return [
        f"{terminal.describe(sloth)} answers at {url}/v1, and on a page: {url}/",
        f"curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'",
        *missing_names(config),
    ]


def missing_names(config: ServeConfig) -> list[str]:
    """What whoever opens the server to other machines may have forgotten."""
    from flashsloth.serving.sites import EVERYWHERE

    if config.host not in EVERYWHERE or config.allow_hosts:
        return []
    return ["other machines get a 421: give the name, or the address, that they use for this one with --allow-host"]


def own_name(model: str | None, adapter: str | None) -> str:
    """What a model is called that nobody named."""
    from flashsloth.model.loading.folders import SHIPPED

    named = adapter or model
    return SHIPPED if named is None else Path(named).resolve().name if Path(named).is_dir() else named


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys of a file: one a line; empty lines, and those that begin with #, are none.

    Raises:
        CommandError: if there is none, or one that no header can carry.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not a text in UTF-8; expected keys, one a line") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith(COMMENT))
    if not keys:
        raise CommandError(f"{path} holds no key; expected at least one, one a line")
    for number, key in enumerate(keys, start=1):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise CommandError(f"{path}: key {number} has a character that no header carries; expected ASCII letters")
    return keys
