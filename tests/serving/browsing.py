"""A browser before the page of a real server, and what a person does there."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from running import running
from served import EXAMPLES, PATIENCE, nano

from flashsloth.inference.engine.engine import Engine
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.service import Service

DESK, PHONE = (1280, 800), (390, 844)
THEMES = ("light", "dark")
GRAVE = ("serious", "critical")
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
expect.set_options(timeout=1000 * PATIENCE)


def program(name: str) -> str:
    """Where a program lies; without it, a test is left out, or fails where everything has to be there."""
    return shutil.which(name) or lacking(f"{name} is not on PATH")


def lacking(what: str) -> Any:
    """Leave a test out; in CI, fail."""
    what = f"{what}: .ci/install_programs brings it"
    return pytest.fail(what) if os.environ.get("CI") == "true" else pytest.skip(what)


@cache
def axe() -> str:
    """The script that looks for what keeps people with a screen reader, or none, out."""
    found = subprocess.run([program("npm"), "root", "--global"], capture_output=True, text=True, check=True)
    script = Path(found.stdout.strip()) / "axe-core" / "axe.min.js"
    return script.read_text(encoding="utf-8") if script.is_file() else lacking("npm has no axe-core")


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser, with a camera that shows a drawn picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@contextmanager
def page_of(**limits: Any) -> Iterator[str]:
    """The page's address at a server of the shipped model, with guards."""
    with running(create_app(Service(nano(), ServeConfig(**{"port": 0, **limits}))), **limits) as server:
        yield f"http://127.0.0.1:{server.port}/"


class Pace:
    """Lets the engine make its steps one by one, while it is held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._allowed, self._is_held, real = threading.Semaphore(0), False, Engine.step

        def step(engine: Engine) -> Any:
            if self._is_held:
                self._allowed.acquire()
            return real(engine)

        monkeypatch.setattr(Engine, "step", step)

    def hold(self) -> None:
        """From now on."""
        self._is_held = True

    def allow(self) -> None:
        """One step more."""
        self._allowed.release()

    def free(self) -> None:
        """No longer hold it."""
        self._is_held = False
        self._allowed.release()


class Person:
    """Somebody before the page."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)

    @property
    def question(self) -> Locator:
        return self.page.get_by_label("Question", exact=True)

    @property
    def turn(self) -> Locator:
        """The last question with its answer."""
        return self.page.locator(".turn").last

    def bring(self, *names: str, by: str = "drop") -> None:
        """Drop or paste pictures of `examples/`."""
        files = [(name, base64.b64encode((EXAMPLES / name).read_bytes()).decode()) for name in names]
        self.page.evaluate(
            """([by, files]) => {
              const data = new DataTransfer();
              for (const [name, text] of files) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                data.items.add(new File([bytes], name, { type: "image/png" }));
              }
              const more = { bubbles: true, cancelable: true }, target = document.querySelector("main");
              if (by === "paste") {
                target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...more }));
              } else {
                for (const kind of ["dragover", "drop"]) {
                  target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, ...more }));
                }
              }
            }""",
            [by, files],
        )
        self.page.locator("#pending .thumb").nth(len(names) - 1).wait_for()

    def ask(self, question: str) -> str:
        """Type a question; the answer, once it has ended."""
        self.question.fill(question)
        self.question.press("Enter")
        return self.answer()

    def answer(self) -> str:
        """The last answer, once it has ended."""
        expect(self.turn).not_to_have_attribute("data-status", "running")
        assert self.turn.get_attribute("data-status") == "done", self.turn.inner_text()
        return self.turn.locator(".answer").inner_text()

    def number(self) -> str:
        """The number beside the patch that is pointed at."""
        return self.page.locator("#number").inner_text()

    @contextmanager
    def requests(self) -> Iterator[list[Any]]:
        """Bodies of what is asked while the block runs."""
        found: list[Any] = []

        def note(request: Any) -> None:
            if request.url.endswith("/chat/completions"):
                found.append(json.loads(request.post_data))

        self.page.on("request", note)
        yield found
        self.page.remove_listener("request", note)

    def findings(self) -> list[str]:
        """What axe finds that is serious or worse, anywhere in the page as it is now."""
        self.page.evaluate(axe())
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found["violations"] if one["impact"] in GRAVE]

    def width(self) -> int:
        """Pixels that the page takes across."""
        return self.page.evaluate("document.documentElement.scrollWidth")


@contextmanager
def person(browser: Browser, address: str, size: tuple[int, int] = DESK, **more: Any) -> Iterator[Person]:
    """Somebody, until the block ends; nothing may have gone wrong in the page meanwhile."""
    is_phone = size == PHONE
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, has_touch=is_phone, is_mobile=is_phone, **more
    )
    found = Person(context.new_page(), address)
    try:
        yield found
        assert found.complaints == []
    finally:
        with suppress(Exception):
            context.close()
