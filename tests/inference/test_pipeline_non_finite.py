"""A model that computes NaN gives an error that names the layer: every way of answering, and the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import picture

import flashsloth
from flashsloth.cli.app import main
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.model.loading.non_finite import NonFiniteError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

QUESTION = "What is it?"
FEW: dict[str, Any] = {"max_tokens": 4}
LATER = 32
WAYS: dict[str, Callable[[FlashSloth], Any]] = {
    "answer": lambda sloth: sloth.answer(picture(1), QUESTION, **FEW),
    "without a picture": lambda sloth: sloth.answer(None, QUESTION, **FEW),
    "drawn": lambda sloth: sloth.answer(picture(1), QUESTION, temperature=1.0, **FEW),
    "stream": lambda sloth: list(sloth.stream(picture(1), QUESTION, **FEW)),
    "many": lambda sloth: sloth.answer_many(picture(1), [QUESTION, "Why?"], **FEW),
    "batch": lambda sloth: sloth.answer_batch([(picture(1), QUESTION), (None, "Why?"), (picture(2), QUESTION)], **FEW),
    "chat": lambda sloth: sloth.chat(picture(1), **FEW).ask(QUESTION),
}
LAYER = "language_model.layers.2.mlp.fc1"


def damage(sloth: FlashSloth, name: str, value: float = torch.nan) -> None:
    with torch.no_grad():
        sloth.model.get_submodule(name).bias.view(-1)[0] = value


@pytest.fixture(params=["cpu", "sped up"])
def fresh(request: pytest.FixtureRequest, checkpoint: Path) -> FlashSloth:
    """A model that may be damaged."""
    return flashsloth.load(checkpoint, device="cpu", optimize=request.param == "sped up")


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_answering(fresh: FlashSloth, way: str) -> None:
    damage(fresh, f"model.{LAYER}")
    with pytest.raises(NonFiniteError, match=rf"{LAYER} \(\w*Linear, in the language model\); its bias is not finite"):
        WAYS[way](fresh)
    with torch.no_grad():
        fresh.model.get_submodule(f"model.{LAYER}").bias.zero_()
    WAYS[way](fresh)  # nothing damaged was kept


@pytest.mark.parametrize("name", ["model.vision_tower.encoder.layers.0.self_attn.out_proj", "model.projector.linear_2"])
def test_what_is_seen(fresh: FlashSloth, name: str) -> None:
    damage(fresh, name, -torch.inf)
    with pytest.raises(NonFiniteError, match=name.replace(".", r"\.")):
        fresh.answer(picture(1), QUESTION)
    assert len(fresh.pictures) == 0
    assert isinstance(fresh.answer(None, QUESTION, **FEW), str)


def test_a_later_step(fresh: FlashSloth) -> None:
    """Damage that only a generated token meets."""
    ids = fresh.answer(None, QUESTION, max_tokens=LATER, details=True).tokens
    prompt = fresh.writer.write([fresh.writer.user_message(QUESTION, 0)], None).input_ids
    token = next(token for token in ids[:-1] if token not in prompt)
    with torch.no_grad():
        fresh.model.get_input_embeddings().weight[token, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"embed_tokens \(Embedding"):
        fresh.answer(None, QUESTION, max_tokens=LATER)


def test_the_command_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finite weights whose products are not: nothing on stdout, one line on stderr, and not 0."""
    model = FlashSlothForConditionalGeneration.from_pretrained(checkpoint)
    with torch.no_grad():
        model.get_submodule(f"model.{LAYER}").weight.fill_(3e38)
    folder = tmp_path / "huge"
    shutil.copytree(checkpoint, folder)
    model.save_pretrained(folder)
    picture(1).save(tmp_path / "picture.png")
    assert main(["ask", "--model", str(folder), str(tmp_path / "picture.png"), QUESTION]) == 2
    printed = capsys.readouterr()
    assert not printed.out.strip()
    message = " ".join(printed.err.split())
    assert f"computed NaN or infinity in torch.float32: the first layer with such an output is model.{LAYER}" in message
    assert "not your mistake" not in message
