"""The page where something is in the way: keys, queues, limits, models with more than one resolution, hostile texts."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Pace, Person, browsing, page_of, person
from PIL import Image
from playwright.sync_api import Browser, Route, expect
from served import EXAMPLES, MODEL, nano, post
from talkative import save_talkative

import flashsloth

COLOUR = "What color is the square?"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script> &lt;b&gt;"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pace]:
    pace = Pace(monkeypatch)
    yield pace
    pace.free()


def expect_refusals(someone: Person, *statuses: int) -> None:
    """What the browser itself says of replies that refuse something."""
    found = [int(re.findall(r"status of (\d+)", one)[0]) for one in someone.complaints]
    assert found == list(statuses)
    someone.complaints.clear()


def test_a_key_is_asked_for_and_kept_in_memory_alone(browser: Browser) -> None:
    with page_of(api_keys=("the-right-one",)) as address, person(browser, address) as someone:
        page = someone.page
        key, use = page.get_by_label("API key"), page.get_by_role("button", name="Use key")
        expect(key).to_be_focused()
        key.fill("a-wrong-one")
        use.click()
        expect(page.locator("#key-why")).to_contain_text("does not take this key")
        key.fill("the-right-one")
        use.click()
        expect(page.locator("#model")).to_have_text(MODEL)
        expect(key).to_be_hidden()
        someone.bring("browser.png")
        assert someone.ask(COLOUR) == nano().answer(str(EXAMPLES / "browser.png"), COLOUR)
        someone.turn.get_by_role("button", name="As code").click()
        kept = page.evaluate(
            "[location.href, JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie]"
        )
        everything = [*kept, page.content()]
        assert not [one for one in everything if "the-right-one" in one]
        assert "$FLASHSLOTH_API_KEY" in page.locator("#source").inner_text()
        expect_refusals(someone, 401, 401)


def test_a_key_that_is_asked_for_later_does_not_lose_the_question(browser: Browser) -> None:
    with page_of(api_keys=("one",)) as address, person(browser, address) as someone:
        someone.bring("browser.png")
        someone.question.fill(COLOUR)
        someone.question.press("Enter")
        expect(someone.turn.get_by_role("alert")).to_contain_text("names no key of this server")
        someone.page.get_by_label("API key").fill("one")
        someone.page.keyboard.press("Enter")
        assert someone.answer()
        expect_refusals(someone, 401, 401)


def test_who_has_to_wait_is_told_how_long(browser: Browser, pace: Pace) -> None:
    with page_of(max_running=1, max_waiting=0) as address, person(browser, address) as someone:
        pace.hold()
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        other = threading.Thread(target=post, args=(f"{address}v1/chat/completions", body))
        other.start()
        pace.allow()  # so it runs
        someone.bring("browser.png")
        again = someone.turn.get_by_role("alert").get_by_role("button")
        someone.question.fill(COLOUR)
        someone.question.press("Enter")
        expect(someone.turn.get_by_role("alert")).to_contain_text("ask again in")
        expect(again).to_be_disabled()
        assert re.fullmatch(r"Ask again in \d+ s", again.inner_text())
        pace.free()
        other.join()
        expect(again).to_be_enabled()
        expect(again).to_have_text("Ask again")
        again.click()
        assert someone.answer()
        expect_refusals(someone, 429)


def noise(side: int) -> bytes:
    """A picture that cannot be made smaller without loss."""
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(held, "PNG")
    return held.getvalue()


def test_large_pictures_are_made_smaller_and_it_says_so(browser: Browser) -> None:
    files = [
        {"name": name, "mimeType": "image/png", "buffer": noise(side)} for name, side in (("a.png", 500), ("b.png", 60))
    ]
    limit = 300_000
    with page_of(max_body_bytes=limit) as address, person(browser, address) as someone, someone.requests() as asked:
        someone.page.locator("#files").set_input_files(files)  # type: ignore[arg-type]
        someone.ask("How many shapes are there?")
        expect(someone.page.locator("#note")).to_contain_text(re.compile(r"Sent smaller.*: a\.png, \d+ × \d+\.$"))
        sent = [part["image_url"]["url"] for part in asked[0]["messages"][0]["content"][:-1]]
        assert [one.partition(";")[0] for one in sent] == [
            "data:image/jpeg",
            "data:image/png",
        ]  # the small one as it is
        assert limit / 4 < len(json.dumps(asked[0])) <= limit


def test_more_than_the_server_takes(browser: Browser) -> None:
    with page_of(max_body_bytes=20_000) as address, person(browser, address) as someone:
        someone.question.fill("Hello " * 4000)
        someone.page.get_by_role("button", name="Ask", exact=True).click()
        expect(someone.turn.get_by_role("alert")).to_contain_text("larger than 20,000 bytes")
        expect_refusals(someone, 413)


def test_what_the_server_says_of_a_bad_picture(browser: Browser) -> None:
    with page_of() as address, person(browser, address) as someone:
        someone.page.locator("#files").set_input_files(
            [{"name": HOSTILE.replace("/", "") + ".heic", "mimeType": "", "buffer": b"not a picture"}]  # type: ignore[list-item]
        )
        expect(someone.page.locator("#unseen")).to_be_visible()
        someone.question.fill(HOSTILE)
        someone.question.press("Enter")
        expect(someone.turn.get_by_role("alert")).to_contain_text("picture")
        expect(someone.turn.get_by_role("heading")).to_have_text(HOSTILE)
        assert someone.page.title() == "FlashSloth"
        expect_refusals(someone, 400)


def test_answers_are_text_whatever_they_hold(browser: Browser) -> None:
    """The one place where no real server answers: our model does not say such things."""

    def reply(route: Route) -> None:
        chunks: list[Any] = [
            {"choices": [{"delta": {"content": piece}}]} for piece in (HOSTILE, " One. Two", " and three.")
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        end = "data: [DONE]\n\n" if "Hello" in str(route.request.post_data) else ""
        route.fulfill(content_type="text/event-stream", body="".join([": ping\n\n", *lines, end]))

    with page_of() as address, person(browser, address) as someone:
        someone.page.route("**/chat/completions", reply)
        assert someone.ask("Hello") == f"{HOSTILE} One. Two and three."
        assert someone.page.title() == "FlashSloth"
        assert someone.page.locator("#live p").all_inner_texts() == [f"{HOSTILE} One.", "Two and three."]
        someone.page.get_by_role("button", name="Start over").click()
        someone.question.fill("A stream that ends too early")
        someone.question.press("Enter")
        expect(someone.turn.get_by_role("alert")).to_contain_text("went away in mid-answer")


def test_resolution_where_a_model_has_several(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with page_of() as address, person(browser, address) as someone:
        expect(someone.page.get_by_label("HD")).to_be_hidden()
    several = flashsloth.load(save_talkative(tmp_path, image_grid=2))
    monkeypatch.setattr("browsing.nano", lambda: several)
    with page_of(max_tokens=8) as address, person(browser, address) as someone, someone.requests() as asked:
        someone.bring("browser.png")
        for name in ("Auto", "HD", "Standard"):
            someone.page.get_by_label(name, exact=True).check()
            someone.ask(f"{name}?")
            if name != "Auto":
                assert ("HD" in someone.turn.locator(".figures").inner_text().split(" · ")) == (name == "HD")
        assert [one["flashsloth"]["resolution"] for one in asked] == ["auto", "hd", "standard"]
        assert someone.findings() == []
