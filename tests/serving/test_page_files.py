"""The page's files: small, whole, from nowhere else, with nothing in them that its policy forbids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from served import serving

import flashsloth.serving.page_files as page_files

MOST_BYTES = 60_000
MOST_FIGURE_BYTES = 150_000
FIGURES = Path(__file__).parents[2] / "docs" / "figures" / "page"
FILES = sorted(page_files.PAGE.iterdir())
CODE = [one for one in FILES if one.suffix in (".js", ".html", ".css")]
MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser")
"""Ways by which a text could become more than text."""
SVG = "http://www.w3.org/2000/svg"


def test_it_is_small() -> None:
    assert sum(one.stat().st_size for one in FILES) <= MOST_BYTES


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_is_served(file: Path, address: str) -> None:
    path = "/" if file.name == page_files.INDEX else f"/{file.name}"
    reply = httpx2.get(address + path)
    assert reply.status_code == 200
    assert reply.content == file.read_bytes()
    assert reply.headers["content-type"] == page_files.MEDIA_TYPES[file.suffix]
    assert httpx2.head(address + path).headers["content-length"] == str(len(reply.content))


@pytest.mark.parametrize("path", ["/page_files.py", "/%2e%2e/page_files.py", "/..%2fpage_files.py", "/page/page.js"])
def test_no_other_file_is(path: str, address: str) -> None:
    assert httpx2.get(address + path).status_code == 404


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"https?://|//[a-z]+\.", text.replace(SVG, ""))
    assert not [way for way in MARKUP if way in text]


def test_all_that_the_page_names_is_there() -> None:
    page = (page_files.PAGE / page_files.INDEX).read_text(encoding="utf-8")
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    for script in page_files.PAGE.glob("*.js"):
        named |= set(re.findall(r'(?:from "\./|^\t")([\w.-]+\.(?:js|png))"', script.read_text(encoding="utf-8"), re.M))
    assert named | {page_files.INDEX} == {one.name for one in FILES}
    assert set(re.findall(r'href="#(i-[a-z]+)"', page)) <= set(re.findall(r'id="(i-[a-z]+)"', page))


def test_no_script_or_style_stands_in_the_markup() -> None:
    page = (page_files.PAGE / page_files.INDEX).read_text(encoding="utf-8")
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize("state", ["welcome", "answer", "map", "trouble"])
def test_the_docs_have_it_at_both_widths_in_both_themes(state: str) -> None:
    for size in ("desk", "phone"):
        for theme in ("light", "dark"):
            shown = FIGURES / f"{state}-{size}-{theme}.webp"
            assert 0 < shown.stat().st_size <= MOST_FIGURE_BYTES
