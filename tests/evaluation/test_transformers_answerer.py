"""Another model of transformers answers a benchmark, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_pope import draw_pope
from PIL import Image
from small_llava import save_llava

from flashsloth.cli.app import main
from flashsloth.errors import LoadError
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.predictions import PREDICTIONS
from flashsloth.evaluation.runner import read_items, run
from flashsloth.evaluation.settings import settings_of
from flashsloth.evaluation.tasks import make_task
from flashsloth.evaluation.transformers_answerer import TransformersAnswerer

COUNT = 12
SHORT = settings_of("gqa")


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("models") / "small-llava")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pope(tmp_path_factory.mktemp("pope"))


@pytest.fixture(scope="module")
def items(data: Path) -> list[Item]:
    return read_items(make_task("pope"), data, None, 0)


def test_every_question_is_answered_by_itself(tmp_path: Path, llava: Path, items: list[Item]) -> None:
    answerer = TransformersAnswerer(str(llava), device="cpu")
    outcome = run(SHORT, items, answerer, tmp_path / "whole")
    assert outcome.merged, outcome.failures
    assert len({one.answer for one in outcome.answered}) > COUNT // 2  # it reads the question, and sees the picture
    assert all(one.tokens is not None and 1 <= one.tokens <= SHORT.max_tokens for one in outcome.answered)
    alone = dict(answerer.answers([items[7]], SHORT, 0))
    assert getattr(alone[0], "text", alone) == outcome.answered[7].answer
    assert answerer.describe()["digest"].startswith("sha256:")


def test_the_picture_is_seen(llava: Path, items: list[Item]) -> None:
    answerer = TransformersAnswerer(str(llava), device="cpu")
    first = items[0]
    shown = [Item("i", first.prompt, item.pictures, {}, "i", "i") for item in items[:4]]
    assert len({getattr(reply, "text", reply) for _, reply in answerer.answers(shown, SHORT, 0)}) > 1


def test_pictures_are_converted_as_the_published_code_does(tmp_path: Path, llava: Path) -> None:
    clear = Image.effect_noise((40, 30), 200).convert("RGBA")
    clear.putalpha(0)
    pictures = {"clear": clear, "plain": clear.convert("RGB"), "white": Image.new("RGB", (40, 30), "white")}
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    asked = [Item(name, "What?", (tmp_path / f"{name}.png",), {}, name, name) for name in pictures]
    replies = TransformersAnswerer(str(llava), device="cpu").answers(asked, SHORT, 0)
    clear_text, plain_text, white_text = (getattr(reply, "text", reply) for _, reply in replies)
    assert clear_text == plain_text != white_text


def test_drawn_answers_come_back_with_the_seed(llava: Path, items: list[Item]) -> None:
    answerer = TransformersAnswerer(str(llava), device="cpu")
    warm = settings_of("mmvet")

    def texts(seed: int) -> list[str]:
        return [getattr(reply, "text", "") for _, reply in answerer.answers(items[:2], warm, seed)]

    assert all(texts(1))
    assert texts(1) == texts(1) != texts(2)


def test_a_broken_picture_is_an_item_that_failed(tmp_path: Path, llava: Path, items: list[Item]) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    first = items[0]
    bad = Item(first.id, first.prompt, (broken,), first.truth, first.group, first.picture)
    outcome = run(SHORT, [bad, *items[1:3]], TransformersAnswerer(str(llava), device="cpu"), tmp_path / "out")
    assert list(outcome.failures) == [first.id]
    assert len(outcome.answered) == 2


def test_the_command_knows_the_kind(
    tmp_path: Path, llava: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", str(data), "--out", str(tmp_path), "--model", str(llava), "--device", "cpu", "--limit", "3"]
    assert main(["eval", "pope", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "small-llava"
    header = json.loads((tmp_path / PREDICTIONS).read_text(encoding="utf-8").splitlines()[0])["header"]
    assert header["model"]["kind"] == "transformers"
    assert main(["eval", "pope", *options, "--quantize", "int8"]) == 2
    assert "--quantize is not for a transformers model" in capsys.readouterr().err
    assert main(["eval", "pope", *options, "--kind", "flashsloth"]) == 2
    assert "holds a model of type 'llava'" in capsys.readouterr().err


def test_what_is_no_such_model_is_one_error(tmp_path: Path, llava: Path) -> None:
    config = json.loads((llava / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "nothing"}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((llava / "model.safetensors").read_bytes())
    with pytest.raises(LoadError, match="cannot be loaded as an image-text-to-text model"):
        TransformersAnswerer(str(tmp_path), device="cpu")
