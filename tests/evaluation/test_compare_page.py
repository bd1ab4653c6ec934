"""The page of a comparison: everything in one file, no network, nothing of a model's obeyed, what changed first."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pope_runs import draw_pope, right, write_run, wrong

from flashsloth.evaluation.compare import Comparison, compare
from flashsloth.evaluation.compare_page import THUMBNAIL, printable, verdict, write_page
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task
from flashsloth.evaluation.tasks.pope import PICTURES

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</dd></style><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}&amp;",
    "a\u202eb\x00c\ud800d\x1b[31m",
)
VOID = {"meta", "img", "input", "br", "line", "circle"}
ADDRESSES = {"src", "href", "action", "srcset", "data", "poster", "formaction", "background", "style"}


class Reader(HTMLParser):
    """Elements with attributes, and the texts of some of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []  # every element that was begun has ended

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts[tag][-1] += data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pope") / "data"
    draw_pope(folder)
    return folder


@pytest.fixture
def items(data: Path) -> list[Item]:
    return list(make_task("pope").read(data))


@pytest.fixture
def comparison(tmp_path: Path, items: list[Item]) -> Comparison:
    def second(place: int, item: Item) -> str:
        return HOSTILE[place] if place < len(HOSTILE) else wrong(place, item) if place % 9 == 8 else right(place, item)

    a = write_run(tmp_path / "a", items, lambda place, item: right(place, item) if place else wrong(place, item))
    return compare(a, write_run(tmp_path / "b", items, second, "<b>mine</b>"))


def test_nothing_of_a_models_is_obeyed(tmp_path: Path, comparison: Comparison, items: list[Item]) -> None:
    write_page(tmp_path / "page.html", comparison, items, 200)
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in page.elements]
    assert (tags.count("script"), tags.count("style"), tags.count("b")) == (1, 1, 8)  # 3 numbers, 5 filters
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ADDRESSES & set(attributes):
            assert attributes[name].startswith(("data:image/jpeg;base64,", "#"))
    answers = "\n".join(page.texts["dd"])
    for text in HOSTILE[:-1]:
        assert text in answers
    assert "a\ufffdb\ufffdc\ufffdd\ufffd[31m" in answers
    assert "<b>mine</b>" in page.texts["h1"][0]


def test_the_policy_lets_only_the_pages_own_script_and_style_be(tmp_path: Path, comparison: Comparison) -> None:
    write_page(tmp_path / "page.html", comparison, None, 200)
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    [policy] = [one["content"] for tag, one in page.elements if one.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("script", "style"):
        [text] = page.texts[tag]
        assert rules[f"{tag}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_each_picture_is_there_once_and_small(tmp_path: Path, comparison: Comparison, items: list[Item]) -> None:
    assert write_page(tmp_path / "page.html", comparison, items, 200) == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Reader(text)
    shown = [one for tag, one in page.elements if tag == "img"]
    assert len(shown) == len({item.picture for item in items}) == 4
    for one in shown:
        with Image.open(io.BytesIO(base64.b64decode(one["src"].partition(",")[2]))) as picture:
            assert max(picture.size) == THUMBNAIL
            assert picture.size == (int(one["width"]), int(one["height"]))
        assert one["alt"].startswith("picture COCO_val2014_")
    assert len(text) < 100_000


def test_what_changed_comes_first_and_the_rest_is_left_out(tmp_path: Path, comparison: Comparison) -> None:
    changes = sum(count for outcome, count in comparison.counts.items() if outcome != "same")
    write_page(tmp_path / "page.html", comparison, None, changes)
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    outcomes = [one["data-outcome"] for tag, one in page.elements if tag == "section"]
    assert len(outcomes) == changes < len(comparison.pairs)
    assert "same" not in outcomes
    assert f"Here are {changes} of {len(comparison.pairs)}" in page.texts["main"][0]
    filters = [(one["data-outcome"], one["aria-pressed"]) for tag, one in page.elements if tag == "button"]
    assert filters == [("all", "true"), *((name, "false") for name in ("lost", "won", "changed", "same"))]


def test_all_of_it_can_be_read_and_reached(tmp_path: Path, comparison: Comparison, items: list[Item]) -> None:
    write_page(tmp_path / "page.html", comparison, items, 200)
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    attributes = [one for _, one in page.elements]
    ids = [one["id"] for one in attributes if "id" in one]
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "for"):
        assert {one[name] for one in attributes if name in one} <= set(ids)
    assert {one["href"].removeprefix("#") for tag, one in page.elements if tag == "a"} <= set(ids)
    assert dict(page.elements)["html"]["lang"] == "en"
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    words = " ".join(page.texts["dd"])
    assert "right: " in words
    assert "wrong: " in words


def test_a_picture_that_cannot_be_opened_says_why(tmp_path: Path, comparison: Comparison) -> None:
    draw_pope(tmp_path / "data")
    broken = sorted((tmp_path / "data" / PICTURES).iterdir())[0]
    broken.write_bytes(b"no picture")
    items = list(make_task("pope").read(tmp_path / "data"))
    assert write_page(tmp_path / "page.html", comparison, items, 200) == 1
    page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert sum(tag == "img" for tag, _ in page.elements) == 3
    assert "begins 'no pic" in page.texts["article"][0]


def test_other_data_is_refused(tmp_path: Path, comparison: Comparison, items: list[Item]) -> None:
    with pytest.raises(EvaluationError, match="the data has no question 'random/"):
        write_page(tmp_path / "page.html", comparison, items[-3:], 200)
    assert not (tmp_path / "page.html").exists()


def test_the_verdict(tmp_path: Path, items: list[Item], comparison: Comparison) -> None:
    assert re.fullmatch(r"<b>mine</b> scores \d+\.\d\d less, .*\. It won 0 and lost \d+ of 36\.", verdict(comparison))
    a = write_run(tmp_path / "c", items, right)
    b = write_run(tmp_path / "d", items, wrong, "other")
    assert verdict(compare(a, a)) == "Both scored the same on each of 36."
    assert verdict(compare(b, a)) == "nano scores 100.00 more, more than chance explains. It won 36 and lost 0 of 36."


def test_printable() -> None:
    assert printable("Ünïcode 漢字 😀\tnbsp\u00a0\r\nnext \u200d") == "Ünïcode 漢字 😀\tnbsp\u00a0\nnext \u200d"
    assert printable("\x00\x0b\u202e\u2028\ud800") == "\ufffd" * 5
