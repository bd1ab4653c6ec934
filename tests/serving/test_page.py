"""The page, as a person uses it: in a real browser, at a real server of the shipped model."""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import DESK, PHONE, THEMES, Pace, Person, browsing, page_of, person, program
from playwright.sync_api import Browser, expect
from served import EXAMPLES, nano

from flashsloth.inference.visual_attention import Attention

COLOUR, COUNT, TWO_WORDS = "What color is the square?", "How many shapes are there?", "What is above the black square?"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with page_of() as address:
        yield address


@pytest.fixture
def someone(browser: Browser, address: str) -> Iterator[Person]:
    with person(browser, address) as someone:
        yield someone


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pace]:
    pace = Pace(monkeypatch)
    yield pace
    pace.free()


def attention(name: str, question: str) -> Attention:
    """Where the model looks, as it says without a server."""
    return nano().answer(str(EXAMPLES / name), question, attention=True).attention[0]


def percent(text: str) -> float:
    found = re.search(r"([\d.]+) %", text)
    assert found
    return float(found[1]) / 100


def test_a_picture_is_dropped_and_asked_about_twice(someone: Person) -> None:
    chat = nano().chat(str(EXAMPLES / "browser.png"))
    someone.bring("browser.png")
    expect(someone.question).to_be_focused()
    assert someone.ask(COLOUR) == chat.ask(COLOUR)
    assert re.fullmatch(
        r"[\d.]+ m?s to the first token · [\d.]+ m?s in all · 2 tokens( · [\d.]+ tokens/s)?",  # in a moment: no rate
        someone.turn.locator(".figures").inner_text(),
    )
    assert someone.ask(COUNT) == chat.ask(COUNT)
    expect(someone.page.locator(".turn")).to_have_count(2)
    expect(someone.page.locator("#live p")).to_have_text(someone.answer())  # what a screen reader says
    expect(someone.question).to_be_focused()


def test_where_it_looked(someone: Person) -> None:
    page, seen = someone.page, attention("browser.png", COLOUR)
    someone.bring("browser.png")
    someone.ask(COLOUR)
    expect(page.locator("#map")).to_be_hidden()
    someone.turn.get_by_role("button", name="Where it looked").click()
    expect(page.get_by_label("Mean of all queries")).to_be_checked()
    expect(page.get_by_text("Attention is not proof")).to_be_visible()
    maps = {
        "Mean of all queries": seen.queries[:, 0].mean(axis=0),
        "Query 2": seen.queries[1, 0],
        "SAP": seen.saliency[0],
    }
    left, top, right, bottom = seen.box
    frame = page.locator("#frame")
    for name, weights in maps.items():
        page.get_by_label(name, exact=True).check()
        assert page.locator("#most").inner_text() == shown(weights.max())
        for x, y in ((0.1, 0.2), (0.51, 0.93), (0.97, 0.04)):
            box = frame.bounding_box()
            assert box
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            row, column = (
                int((top + y * (bottom - top)) * len(weights)),
                int((left + x * (right - left)) * len(weights)),
            )
            assert someone.number() == shown(weights[row, column]), (name, x, y)
    page.get_by_label("Strength").fill("0")
    assert page.locator("#map").evaluate("map => map.style.opacity") == "0"


def shown(weight: float) -> str:
    """As the page writes a share, which came as a float16."""
    share = float(np.float16(weight))
    return f"{100 * share:.{0 if share >= 0.0995 else 1 if share >= 0.00995 else 2}f} %"


def test_the_map_is_read_by_keyboard(someone: Person) -> None:
    page, seen = someone.page, attention("browser.png", COLOUR)
    someone.bring("browser.png")
    someone.ask(COLOUR)
    someone.turn.get_by_role("button", name="Where it looked").click()
    frame, told = page.get_by_role("application"), page.locator("#reading")
    for _ in range(20):
        frame.press("ArrowUp")
    for _ in range(20):
        frame.press("ArrowLeft")
    first = int(seen.box[1] * seen.queries.shape[-1])  # the first row that is not padding alone
    assert first > 0
    assert told.inner_text() == f"Row 1, column 1: {shown(seen.queries[:, 0].mean(axis=0)[first, 0])}"
    frame.press("ArrowRight")
    assert told.inner_text().startswith("Row 1, column 2: ")
    for _ in range(20):
        frame.press("ArrowDown")
    last = math.ceil(seen.box[3] * seen.queries.shape[-1])
    assert told.inner_text().startswith(f"Row {last - first}, column 2: ")


def test_a_rate_is_told_of_an_answer_that_took_its_time(someone: Person, pace: Pace) -> None:
    whole = nano().answer(str(EXAMPLES / "imagemagick.png"), TWO_WORDS)
    someone.bring("imagemagick.png")
    pace.hold()
    someone.question.fill(TWO_WORDS)
    someone.question.press("Enter")
    pace.allow()
    expect(someone.turn.locator(".answer")).to_have_text(whole.split()[0])
    time.sleep(0.2)  # what is measured
    pace.free()
    assert someone.answer() == whole
    found = re.search(r"· (\d+) tokens · ([\d.]+) tokens/s$", someone.turn.locator(".figures").inner_text())
    assert found
    assert 0 < float(found[2]) <= (int(found[1]) - 1) / 0.2 + 0.5  # rounded


def test_the_name_stays_in_one_line(browser: Browser, address: str) -> None:
    with person(browser, address, PHONE) as someone:
        before = someone.page.locator("h1").bounding_box()
        someone.bring("browser.png")
        someone.page.get_by_role("group", name="Ideas").get_by_role("button").first.click()
        assert someone.answer()
        expect(someone.page.get_by_role("button", name="Export")).to_be_visible()
        after = someone.page.locator("h1").bounding_box()
        assert before
        assert after
        assert after["height"] == before["height"]
        assert someone.page.locator("#model").evaluate("name => name.scrollWidth <= name.clientWidth")


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_it_stops(someone: Person, pace: Pace, by: str) -> None:
    whole = nano().answer(str(EXAMPLES / "imagemagick.png"), TWO_WORDS)
    someone.bring("imagemagick.png")
    pace.hold()
    someone.question.fill(TWO_WORDS)
    someone.question.press("Enter")
    pace.allow()
    expect(someone.turn.locator(".answer")).to_have_text(whole.split()[0])
    if by == "button":
        someone.page.get_by_role("button", name="Stop").click()
    else:
        someone.page.keyboard.press("Escape")
    expect(someone.turn).to_have_attribute("data-status", "stopped")
    assert someone.turn.locator(".figures").inner_text().startswith("stopped · ")
    pace.free()
    someone.turn.get_by_role("button", name="Ask again").click()
    assert someone.answer() == whole


def test_the_server_goes_away_in_mid_answer(browser: Browser, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("paced_server.py"))]
    with subprocess.Popen([*program, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        address = server.stdout.readline().strip()
        with person(browser, address) as someone:
            someone.bring("imagemagick.png")
            someone.question.fill(TWO_WORDS)
            someone.question.press("Enter")
            server.stdin.write("\n")
            server.stdin.flush()
            expect(someone.turn.locator(".answer")).to_have_text("blue")
            server.kill()
            server.wait()
            expect(someone.turn.get_by_role("alert")).to_contain_text("went away in mid-answer")
            expect(someone.turn.locator(".answer")).to_have_text("blue")
            someone.turn.get_by_role("button", name="Ask again").click()
            expect(someone.turn.get_by_role("alert")).to_contain_text("does not answer")
            with page_of(port=int(address.rstrip("/").rpartition(":")[2])) as again:
                assert again == address
                someone.turn.get_by_role("button", name="Ask again").click()
                assert someone.answer() == nano().answer(str(EXAMPLES / "imagemagick.png"), TWO_WORDS)
            assert all("Failed to load resource" in one for one in someone.complaints)
            someone.complaints.clear()


def test_several_pictures_and_one_that_goes(someone: Person) -> None:
    page = someone.page
    page.locator("#files").set_input_files([EXAMPLES / "browser.png", EXAMPLES / "word.png", EXAMPLES / "README.md"])
    expect(page.locator("#note")).to_contain_text("README.md: not a picture.")
    expect(page.locator("#pending .thumb")).to_have_count(2)
    both = [str(EXAMPLES / name) for name in ("browser.png", "word.png")]
    with someone.requests() as asked:
        assert someone.ask(COLOUR) == str(nano().answer(both, COLOUR))
        someone.turn.get_by_role("button", name="Where it looked").click()
        shares, most = [], set()
        for name in ("browser.png", "word.png"):
            page.locator("#strip").get_by_role("button", name=name).click()
            shares.append(
                percent(re.findall(r"[\d.]+ % of it in this picture", page.locator("#about").inner_text())[0])
            )
            most.add(page.locator("#most").inner_text())
        assert sum(shares) == pytest.approx(1, abs=0.02)
        assert len(most) == 1  # of both pictures, so that they compare
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("#note")).to_contain_text("word.png is removed")
        assert someone.ask(COUNT)
    pictures = [
        [
            part["type"]
            for message in body["messages"]
            if message["role"] == "user"
            for part in message["content"]
            if not isinstance(part, str)
        ].count("image_url")
        for body in asked
    ]
    assert pictures == [2, 1]


def test_a_picture_is_pasted(someone: Person) -> None:
    someone.bring("word.png", by="paste")
    assert someone.ask("What does it say?") == "Sun"


def test_a_sample_is_tried(someone: Person) -> None:
    someone.page.get_by_role("group", name="Examples").get_by_text("What color is the square?").click()
    assert someone.answer() == "orange"
    someone.page.get_by_role("group", name="Ideas").get_by_text(COUNT).click()
    assert someone.answer()


def test_a_picture_is_taken_by_the_camera(someone: Person) -> None:
    someone.page.get_by_role("button", name="Use the camera").first.click()
    dialog = someone.page.get_by_role("dialog", name="Camera")
    dialog.get_by_role("button", name="Take the picture").click()
    expect(dialog).to_be_hidden()
    expect(someone.page.locator("#caption")).to_contain_text("camera.jpg")
    assert someone.page.evaluate("document.querySelector('video').srcObject") is None  # its light is off
    assert someone.ask(COUNT)


def test_without_a_camera_it_says_why(browser: Browser, address: str) -> None:
    with person(browser, address) as someone:
        someone.page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
        someone.page.reload()
        someone.page.get_by_role("button", name="Use the camera").first.click()
        expect(someone.page.get_by_role("dialog")).to_contain_text(
            "only to pages of this machine (localhost), or with https"
        )
        someone.page.keyboard.press("Escape")
        expect(someone.page.get_by_role("dialog")).to_be_hidden()


def test_code_does_the_same(someone: Person, tmp_path: Path) -> None:
    odd, question = 'it\'s $HOME `a` "b".png', 'What\'s "it" $HOME `x` \\n ${y} \\\\?'
    (tmp_path / odd).write_bytes((EXAMPLES / "browser.png").read_bytes())
    someone.page.locator("#files").set_input_files(tmp_path / odd)
    someone.ask(COLOUR)
    with someone.requests() as asked:
        answer = someone.ask(question)
    someone.turn.get_by_role("button", name="As code").click()

    def run(*command: str) -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert program("curl")
    source = someone.page.locator("#source").inner_text()
    assert json.loads(run("bash", "-c", f"curl() {{ cat; }}\n{source}"))["messages"] == asked[0]["messages"]
    assert json.loads(run("bash", "-c", source))["choices"][0]["message"]["content"] == answer
    someone.page.get_by_label("Python").check()
    source = someone.page.locator("#source").inner_text()
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    assert {question, odd, COLOUR} <= set(texts)
    assert run(sys.executable, "-c", source).rstrip("\n") == answer


def test_a_conversation_is_saved_and_begun_anew(someone: Person) -> None:
    page = someone.page
    someone.bring("browser.png")
    answer = someone.ask(COLOUR)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    saved = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    assert saved["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert saved["messages"][1]["content"] == saved["turns"][0]["answer"] == answer
    assert saved["turns"][0]["attention"]["pictures"][0]["grid"] == list(
        attention("browser.png", COLOUR).saliency.shape[1:]
    )
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_role("heading", name="Ask about a picture")).to_be_visible()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".turn .answer")).to_have_text(answer)


def test_keys_of_a_keyboard(browser: Browser, someone: Person, address: str) -> None:
    question = someone.question
    someone.page.keyboard.press("Tab")
    expect(someone.page.get_by_role("link", name="Skip to the question")).to_be_focused()
    someone.page.keyboard.press("Enter")
    expect(question).to_be_focused()
    question.fill("one")
    question.press("Shift+Enter")
    question.press_sequentially("two")
    assert question.input_value() == "one\ntwo"
    expect(someone.page.locator(".turn")).to_have_count(0)
    with person(browser, address, PHONE) as mobile:
        mobile.question.fill("one")
        mobile.question.press("Enter")
        assert mobile.question.input_value() == "one\n"
        mobile.page.get_by_role("button", name="Ask", exact=True).click()
        assert mobile.answer()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nobody_is_kept_out(browser: Browser, address: str, size: tuple[int, int], theme: str) -> None:
    with person(browser, address, size, color_scheme=theme) as someone:
        assert someone.findings() == []
        someone.bring("browser.png", "word.png")
        assert someone.findings() == []
        someone.page.get_by_role("group", name="Ideas").get_by_role("button").first.click()
        someone.answer()
        someone.turn.get_by_role("button", name="Where it looked").click()
        someone.page.get_by_role("application").press("ArrowUp")
        assert someone.findings() == []
        assert someone.width() <= size[0]
        someone.turn.get_by_role("button", name="As code").click()
        assert someone.findings() == []
        someone.page.keyboard.press("Escape")
        someone.page.get_by_role("button", name="Theme").click()
        other = "dark" if theme == "light" else "light"
        for _ in range(2):
            if someone.page.evaluate("document.documentElement.dataset.theme") != other:
                someone.page.get_by_role("button", name="Theme").click()
        assert someone.findings() == []
        someone.page.reload()
        assert someone.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == other
