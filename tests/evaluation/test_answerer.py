"""What a FlashSloth is asked when it answers a benchmark, and what the header says of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fine_tuned import save_base, save_fine_tuned
from PIL import Image
from talkative import save_talkative

from flashsloth.errors import LoadError, PromptError
from flashsloth.evaluation.answerer import FlashSlothAnswerer, Reply, device_here, load_flashsloth
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.settings import settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.inference.load import load
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

SHORT = settings_of("gqa")
QUESTION = "Is there a red dog?"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talkative(tmp_path_factory.mktemp("talkative"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tiny_processor: FlashSlothProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fine_tuned(tmp_path_factory.mktemp("adapter"), base, tiny_processor)


def shown(*pictures: Path, prompt: str = QUESTION) -> Item:
    return Item("i", prompt, pictures, {}, "i", "i")


def test_pictures_are_converted_as_the_published_code_does(talkative: Path, tmp_path: Path) -> None:
    picture = tmp_path / "clear.png"
    noise = Image.effect_noise((40, 30), 200).convert("RGBA")
    noise.putalpha(0)
    noise.save(picture)
    sloth = load(talkative, device="cpu", dtype="float32")
    answerer = FlashSlothAnswerer(sloth, "talkative")
    [(place, reply)] = answerer.answers([shown(picture)], SHORT, 0)
    options = {"max_tokens": SHORT.max_tokens}
    assert isinstance(reply, Reply)
    assert place == 0
    assert reply.text.strip() == sloth.answer(picture, QUESTION, image_policy="official", **options)
    assert reply.text.strip() != sloth.answer(picture, QUESTION, image_policy="careful", **options)
    assert (reply.tokens, reply.finish_reason) == (SHORT.max_tokens, "length")


def test_an_answer_keeps_the_white_space_that_some_rules_see(talkative: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    sloth = load(talkative, device="cpu", dtype="float32")
    asked = [shown(tmp_path / "red.png", prompt=f"{QUESTION} {number}") for number in range(20)]
    texts = [reply.text for _, reply in FlashSlothAnswerer(sloth, "t").answers(asked, SHORT, 0)]  # type: ignore[union-attr]
    assert any(text != text.strip() for text in texts)


def test_the_header_tells_models_apart(talkative: Path, base: Path, tmp_path: Path) -> None:
    one, other = load_flashsloth(str(talkative), device="cpu"), load_flashsloth(str(base), device="cpu")
    assert one.describe()["digest"] != other.describe()["digest"]
    moved = Path(shutil.copytree(talkative, tmp_path / "elsewhere" / talkative.name))
    assert load_flashsloth(str(moved), device="cpu").describe() == one.describe()
    small = load_flashsloth(str(talkative), device="cpu", quantize="int8").describe()
    assert (small["digest"], small["quantize"]) == (one.describe()["digest"], "int8")
    assert one.describe()["quantize"] is None


def test_an_adapter_stands_in_the_header_beside_its_base(base: Path, adapter: Path, talkative: Path) -> None:
    alone = load_flashsloth(str(base), device="cpu").describe()
    adapted = load_flashsloth(None, "x", device="cpu", adapter=str(adapter)).describe()
    assert alone["adapter"] is None
    assert adapted["adapter"].startswith("sha256:")
    assert adapted["digest"] == alone["digest"]
    for model, given in ((str(adapter), None), (str(base), str(adapter))):
        assert load_flashsloth(model, "x", device="cpu", adapter=given).describe() == adapted
    with pytest.raises(EvaluationError, match="leave --model out"):
        load_flashsloth(str(talkative), device="cpu", adapter=str(adapter))


def test_a_resolution_that_the_model_does_not_have_is_refused_before_anything_is_asked(talkative: Path) -> None:
    with pytest.raises(PromptError, match="resolution"):
        load_flashsloth(str(talkative), device="cpu", resolution="hd")
    with pytest.raises(PromptError, match="resolution is 'large'"):
        load_flashsloth(str(talkative), device="cpu", resolution="large")
    with pytest.raises(LoadError, match="there is no folder"):
        load_flashsloth("no such thing", device="cpu")


def test_an_hd_model_is_shown_what_is_asked_for(tmp_path: Path) -> None:
    folder = save_talkative(tmp_path / "hd", image_grid=2)
    Image.effect_noise((60, 50), 200).convert("RGB").save(tmp_path / "noise.png")
    sloth = load(folder, device="cpu", dtype="float32")
    texts = {}
    for resolution in ("standard", "hd"):
        answerer = load_flashsloth(str(folder), device="cpu", resolution=resolution)
        assert (answerer.describe()["views"], answerer.describe()["resolution"]) == (5, resolution)
        [(_, reply)] = answerer.answers([shown(tmp_path / "noise.png")], SHORT, 0)
        texts[resolution] = reply.text.strip()  # type: ignore[union-attr]
        options = {"max_tokens": SHORT.max_tokens, "image_policy": "official", "resolution": resolution}
        assert texts[resolution] == sloth.answer(tmp_path / "noise.png", QUESTION, **options)  # type: ignore[arg-type]
    assert texts["standard"] != texts["hd"]


def test_items_are_read_as_they_are_needed(talkative: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    read: list[int] = []

    def items() -> Iterator[Item]:
        for number in range(1000):
            read.append(number)
            yield shown(tmp_path / "red.png")

    answers = load_flashsloth(str(talkative), device="cpu").answers(items(), SHORT, 0)
    next(answers)
    answers.close()
    assert len(read) < 500


def test_a_launched_process_takes_the_accelerator_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"LOCAL_RANK": "1"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_here("auto", environment) == "cuda:1"
    assert device_here("cpu", environment) == "cpu"
    assert device_here("auto", {}) == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_here("auto", environment) == "auto"
