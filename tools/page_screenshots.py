"""What the page looks like, as docs/serving.md shows it: at a desk and on a phone, light and dark.

In: nothing; Debian's chromium, and playwright. Out: `docs/figures/page/STATE-SIZE-THEME.webp`, or in another folder.
`python tools/page_screenshots.py` writes them.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import flashsloth
from flashsloth.serving.app import create_app
from flashsloth.serving.config import ServeConfig
from flashsloth.serving.listening import bind
from flashsloth.serving.server import Server
from flashsloth.serving.service import Service

ROOT = Path(__file__).parents[1]
PICTURE, QUESTION = ROOT / "examples" / "browser.png", "What color is the square?"
PEAK = 0.7, 0.66
"""Of its map: how far from the left, and from the top."""
SIZES = {"desk": (1280, 800), "phone": (390, 844)}
THEMES = ("light", "dark")
SHARPNESS = 1.5
"""Pixels of a picture for each of the page's."""
QUALITY = 82
"""Of WebP."""


def main(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                context = browser.new_context(
                    viewport={"width": width, "height": height},
                    device_scale_factor=SHARPNESS,
                    color_scheme=theme,  # type: ignore[arg-type]
                    has_touch=size == "phone",
                    is_mobile=size == "phone",
                )
                for state in states(context.new_page(), address):
                    shot = context.pages[0].screenshot()
                    name = f"{state}-{size}-{theme}.webp"
                    Image.open(io.BytesIO(shot)).save(folder / name, quality=QUALITY, method=6)
                    print(f"{name}  {(folder / name).stat().st_size / 1000:.0f} kB")
                context.close()
        browser.close()


def states(page: Page, address: str) -> Iterator[str]:
    """Bring the page into one state after the other; the name of each."""
    page.goto(address)
    page.locator("#model:not(:empty)").wait_for()
    yield "welcome"
    page.locator("#files").set_input_files(PICTURE)
    page.locator("#pending .thumb").wait_for()
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name="Where it looked").wait_for()
    yield "answer"
    page.get_by_role("button", name="Where it looked").click()
    frame = page.locator("#frame")
    box = frame.bounding_box()
    assert box
    frame.hover(position={"x": PEAK[0] * box["width"], "y": PEAK[1] * box["height"]})
    yield "map"
    page.route("**/chat/completions", lambda route: route.abort())
    page.get_by_label("Question", exact=True).fill("And how many shapes are there?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("alert").wait_for()
    yield "trouble"


@contextmanager
def served() -> Iterator[str]:
    """The address of a server of the small model, until the block ends."""
    config, ready = ServeConfig(port=0), threading.Event()
    sockets = bind(config)
    server = Server(create_app(Service(flashsloth.load(), config)), config, on_ready=lambda address: ready.set())
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    ready.wait()
    yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}/"
    server.stop()
    thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "figures" / "page")
