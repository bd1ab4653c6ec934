"""Links in the README, the docs and other texts: the file is there, and so is the heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = "docs", "examples", "src", "tests"
FOUND = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
TEXTS = sorted(str(path.relative_to(ROOT)) for path in FOUND)
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")


def anchors(text: str) -> set[str]:
    """Names of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_links(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for target, heading in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if heading:
            assert heading in anchors(linked.read_text(encoding="utf-8")), f"{target}#{heading}"
