"""Servers of true size with random weights: FlashSloth's, and one of a peer under `transformers serve`.

In: which model, and a folder for its checkpoint. Out: tokens a second and time to the first token at 1, 4 and 8
clients, each asking for 8 tokens about a picture of its own that the server has not seen.

The peer is SmolVLM-2.2B, whose published checkpoint is an Idefics3: of all peers of `benchmark/models` it is the one
whose processor needs nothing but Pillow, and so the one that `transformers serve` answers with here.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flashsloth.benchmark.checkpoints import TRUE_SIZE, make_checkpoint
from flashsloth.benchmark.serving.client import Reply
from flashsloth.benchmark.serving.questions import Question, chat
from flashsloth.benchmark.serving.server_process import ServerProcess

CLIENTS, TOKENS = (1, 4, 8), 8
MOST_SECONDS = 3600.0
FIRST_PICTURE, LEVEL_PICTURES = 200_000, 100
OURS, PEER = "FlashSloth", "SmolVLM-2.2B under transformers serve"
PEER_READY = re.compile(r"Uvicorn running on http://([0-9.]+):([0-9]+)")
SEED = 0
SPACE = "Ġ"
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% else %}<image>{% endif %}{% endfor %}"
    "{% endif %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class TrueSize:
    """What so many clients of one server got.

    Attributes:
        model: in words.
        clients: at once.
        tokens_per_second: of all together, pictures included.
        first_token: seconds to the first text, the median of the clients.
        seconds: until all had their answers.
        wrong: what must not be.
    """

    model: str
    clients: int
    tokens_per_second: float
    first_token: float
    seconds: float
    wrong: tuple[str, ...] = ()


class PeerProcess(ServerProcess):
    """`transformers serve` in a process of its own."""

    def _command(self, named: list[str], options: Sequence[str]) -> list[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program = str(Path(sys.executable).with_name("transformers"))
        return [program, "serve", *named, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", *options]

    def _address(self, out: str, log: list[str]) -> re.Match[str] | None:
        return PEER_READY.search("\n".join([out, *log]))


def measure_true_size(folder: Path, say: Callable[[str], None], *, peer: bool) -> Iterator[TrueSize]:
    """Make a checkpoint in a folder, serve it, and ask.

    Args:
        folder: empty; it needs 7 GB.
        say: is told what is done.
        peer: whether the peer's.
    """
    title = PEER if peer else OURS
    say(f"{title}: making it, about a minute")
    if peer:
        make_peer_checkpoint(folder)
        server: ServerProcess = PeerProcess(folder)
    else:
        make_checkpoint(TRUE_SIZE, folder)
        server = ServerProcess(folder, ["--dtype", "bfloat16"])
    with server:
        name = str(folder) if peer else "nano"
        say(f"{title}: warming up")
        asyncio.run(_ask(server, name, [FIRST_PICTURE - 1]))
        for clients in CLIENTS:
            say(f"{title}: {clients} at once, up to {2 * clients} minutes")
            first = FIRST_PICTURE + LEVEL_PICTURES * clients
            started = time.perf_counter()
            replies = asyncio.run(_ask(server, name, range(first, first + clients)))
            seconds = time.perf_counter() - started
            yield _found(title, replies, seconds)


async def _ask(server: ServerProcess, name: str, pictures: Sequence[int]) -> list[Reply]:
    """All at once."""

    async def ask(number: int) -> Reply:
        connection = await server.open()
        body = {**Question(number, "What color is the circle?", TOKENS).body(stream=True), "model": name}
        try:
            return await asyncio.wait_for(connection.ask(chat(body)), MOST_SECONDS)
        finally:
            connection.abort()

    return list(await asyncio.gather(*(ask(number) for number in pictures)))


def _found(title: str, replies: list[Reply], seconds: float) -> TrueSize:
    wrong = [f"status {one.status}" for one in replies if one.status != HTTPStatus.OK]
    first = [one.first_token for one in replies if one.first_token is not None]
    if len(first) < len(replies):
        wrong.append(f"{len(replies) - len(first)} answers without text")
    tokens = TOKENS * len(first)
    return TrueSize(title, len(replies), tokens / seconds, statistics.median(first or [0.0]), seconds, tuple(wrong))


def make_peer_checkpoint(folder: Path, sizes: dict[str, Any] | None = None) -> None:
    """Write a checkpoint of SmolVLM's published sizes with random weights, which speaks Nano's words and made-up ones.

    Args:
        folder: empty.
        sizes: further arguments of its configuration, of a smaller one.
    """
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration
    from transformers.utils import logging

    from flashsloth.benchmark.models.random_weights import make_random
    from flashsloth.benchmark.models.smolvlm import IMAGE_ID, SHUFFLE, TEXT, VISION

    logging.disable_progress_bar()
    vocabulary = int(TEXT["vocab_size"])  # type: ignore[call-overload]
    given = sizes or {}
    config = Idefics3Config(
        vision_config={**VISION, **given.get("vision", {})},
        text_config={**TEXT, "eos_token_id": vocabulary - 1, "pad_token_id": 0, **given.get("text", {})},
        scale_factor=SHUFFLE,
        image_token_id=IMAGE_ID,
        tie_word_embeddings=False,
    )
    marks = _marks(vocabulary, IMAGE_ID)
    _peer_processor(marks, vocabulary, folder).save_pretrained(folder)
    model = make_random(
        lambda: Idefics3ForConditionalGeneration._from_config(config, dtype=torch.bfloat16), torch.device("cpu"), SEED
    )
    model.generation_config.suppress_tokens = sorted(marks)
    model.generation_config.eos_token_id = vocabulary - 1
    model.save_pretrained(folder)


def _marks(vocabulary: int, image: int) -> dict[int, str]:
    """Ids and texts of special tokens; answers hold none of them."""
    return {
        image: "<image>",
        image - 1: "<fake_token_around_image>",
        image - 2: "<global-img>",
        vocabulary - 1: "<end_of_utterance>",
    }


def _peer_processor(marks: dict[int, str], vocabulary: int, folder: Path) -> Any:
    from transformers import Idefics3Processor, PreTrainedTokenizerFast
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    from flashsloth.benchmark.models.smolvlm import TILES_ALONG_LONGER_SIDE, VISION
    from flashsloth.model.loading.folders import shipped_folder

    settings = json.loads((shipped_folder() / "tokenizer.json").read_text(encoding="utf-8"))
    own, theirs = "<image>", "<nano-image>"  # Nano's mark is a word like others here
    words = {theirs if text == own else text: number for text, number in settings["model"]["vocab"].items()}
    words.update({marks.get(number, f"{SPACE}word{number}"): number for number in range(len(words), vocabulary)})
    settings["model"]["vocab"] = words
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    settings["added_tokens"] = [
        *({**one, "content": theirs if one["content"] == own else one["content"]} for one in settings["added_tokens"]),
        *({"id": number, "content": text, **plain} for number, text in sorted(marks.items())),
    ]
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=marks[vocabulary - 1], pad_token="<pad>")
    side = int(VISION["image_size"])
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": TILES_ALONG_LONGER_SIDE * side}, max_image_size={"longest_edge": side}
    )
    visual_tokens = (side // int(VISION["patch_size"]) // 3) ** 2
    return Idefics3Processor(images, tokenizer, image_seq_len=visual_tokens, chat_template=TEMPLATE)
