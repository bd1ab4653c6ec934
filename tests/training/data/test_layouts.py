"""Every layout that people have is read as what it is, found by its fields; what cannot be read says why."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import ANSWERS, LAYOUTS, PARTS, QUESTION, data_url, from_value, messages, pictures_into, text_part
from llava_files import encoded, picture, pictures_in, record, texts_of, turns, write_json, write_jsonl

from flashsloth.media import open_picture
from flashsloth.training.data import BadSampleError, DataError, open_source
from flashsloth.training.data.conversation import messages_of
from flashsloth.training.data.layouts import read_record
from flashsloth.training.data.records import RecordData, source_of
from flashsloth.training.dataloader import SampleEncoder
from flashsloth.training.inspect_data import Examiner, check
from flashsloth.training.stages import STAGES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures_into(tmp_path)
    return tmp_path


def opened(file: Path) -> RecordData:
    return open_source(source_of(str(file)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(folder: Path, name: str, tiny_processor: Any) -> None:
    layout = LAYOUTS[name]
    if "parquet" in layout.write.__qualname__:
        pytest.importorskip("pyarrow")
    data = opened(layout.write(folder))
    assert len(data) == 2
    for index in (1, 0):
        sample = data[index]
        roles = [message["role"] for message in sample.messages]
        assert roles == ["system", "user", "assistant"][layout.system is None :]
        assert texts_of(sample)[-2:] == [layout.question, ANSWERS[index]]
        if layout.system is not None:
            assert sample.messages[0]["content"] == layout.system
        found = [open_picture(source) for source in pictures_in(sample)]
        assert len(found) == layout.pictures
        assert found[0].tobytes() == picture(index).tobytes()
    assert data.sizes().pictures.tolist() == [layout.pictures] * 2
    assert (data.sizes().text_bytes > 0).all()
    assert texts_of(pickle.loads(pickle.dumps(data))[1]) == texts_of(data[1])
    report = check(Examiner(data, SampleEncoder(tiny_processor, STAGES["instruction"])), workers=0)
    assert (report.layouts, report.bad, report.pictures) == ({layout.layout: 2}, 0, 2 * layout.pictures)


def test_layouts_may_be_mixed_in_one_file(folder: Path, tiny_processor: Any) -> None:
    records = [
        from_value(0, f"<image>\n{QUESTION}", image="0.png"),
        messages(lambda _: [{"type": "image", "image": "1.png"}, text_part()], 1),
        {"Image": "0.png", "Question": QUESTION, "Answer": 3},
        {"image": "1.png", "caption": ["a cat", "an animal"]},
    ]
    data = opened(write_jsonl(folder / "data.jsonl", records))
    assert [texts_of(data[index])[1] for index in range(4)] == ["dog", "cat", "3", "a cat"]
    assert all(len(pictures_in(data[index])) == 1 for index in range(4))
    found = check(Examiner(data, SampleEncoder(tiny_processor, STAGES["instruction"])), workers=0)
    assert sum(found.layouts.values()) == 4
    assert len(found.layouts) == 4


def said(held: dict[str, Any]) -> list[Any]:
    """Each message as text, or as its parts: a picture in brackets, or words."""
    return [
        m["content"]
        if isinstance(m["content"], str)
        else [f"[{p['image']}]" if p["type"] == "image" else p["text"] for p in m["content"]]
        for m in messages_of(read_record(held))
    ]


def test_parts_say_where_several_pictures_stand() -> None:
    def asked(_: int) -> list[Any]:
        return [text_part("Is"), {"image": "a"}, text_part("like"), {"type": "image_url", "image_url": "b"}, "?"]

    assert said(messages(asked, 0)) == [["Is", "[a]", "like", "[b]", "?"], "dog"]
    by_index = messages(lambda _: [{"type": "image", "index": 1}, text_part("Or"), {"type": "image", "index": 0}], 0)
    assert said({**by_index, "images": ["a", "b"]}) == [["[b]", "Or", "[a]"], "dog"]
    one = messages(lambda _: [text_part("Look"), {"image": "a"}, text_part("What is it?")], 0)
    assert said(one) == [
        ["[a]", "Look\nWhat is it?"],
        "dog",
    ]  # a single picture stands in front, as in the published code
    literal = messages(lambda _: [{"image": "a"}, text_part("Is <image> a tag?")], 0)
    assert said(literal) == [["[a]", "Is <image> a tag?"], "dog"]


def test_messages_of_the_user_in_a_row_are_one_turn_where_one_has_parts() -> None:
    """OpenAI's own examples put the question and the picture into a message each."""
    shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}
    asked, answered = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dog."}
    assert said({"messages": [asked, shown, answered]}) == [["[a]", "What?"], "A dog."]
    assert said({"messages": [shown, asked, answered, asked, answered]}) == [
        ["[a]", "What?"],
        "A dog.",
        ["What?"],
        "A dog.",
    ]
    with pytest.raises(BadSampleError, match="turn 1 is the user's"):
        said({"messages": [asked, asked, answered]})


@pytest.mark.parametrize("source", [{"type": "base64", "media_type": "image/png", "data": "a"}, {"url": "a"}])
def test_parts_may_keep_their_picture_in_a_source(source: dict[str, str]) -> None:
    asked = [{"type": "image", "source": source}, text_part("What?")]
    assert said(messages(lambda _: asked, 0)) == [["[a]", "What?"], "dog"]
    with pytest.raises(BadSampleError, match="named neither there nor in images"):
        said(messages(lambda _: [{"type": "image"}, text_part("What?")], 0))


def test_a_system_text_is_kept_from_where_it_stands() -> None:
    spoken = [{"from": "system", "value": "Sing."}, *turns("Hi", "Ho")]
    assert said({"conversations": spoken, "system": "Be brief."}) == ["Sing.", ["Hi"], "Ho"]
    assert said({"conversations": turns("Hi", "Ho"), "system": ""}) == [["Hi"], "Ho"]
    assert said({"question": "Hi", "answer": "Ho", "system_prompt": "Sing."}) == ["Sing.", ["Hi"], "Ho"]


def test_a_system_text_stands_in_the_prompt_and_is_never_learned(tiny_processor: Any, folder: Path) -> None:
    held = from_value(0, QUESTION, image="0.png", system="Sing songs.")
    sample = opened(write_json(folder / "data.json", [held]))[0]
    for stage, stands in (("instruction", True), ("alignment", False)):  # alignment writes picture and caption alone
        row = SampleEncoder(tiny_processor, STAGES[stage]).text(sample)
        learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label >= 0]
        assert ("Sing songs." in tiny_processor.tokenizer.decode(row["input_ids"])) is stands
        assert "Sing" not in tiny_processor.tokenizer.decode(learned)


def test_the_most_frequent_answer_counts_and_the_first_of_equals() -> None:
    for answers, expected in ((["a", "b", "b"], "b"), (["b", "a"], "b"), ([{"answer": "x"}], "x"), (2.5, "2.5")):
        assert said({"question": "Q", "answers": answers})[1] == expected


@pytest.mark.parametrize(
    ("held", "kind", "message"),
    [
        ({**from_value(0, "<video>\nWhat?"), "video": "a.mp4"}, "unseen_medium", "names video in video"),
        (from_value(0, "<video>\nWhat?"), "unseen_medium", "says <video>"),
        ({**from_value(0, "<image>\nWhat?"), "videos": ["a.mp4"]}, "unseen_medium", "names video in videos"),
        ({**from_value(0, "What?"), "audios": ["a.wav"]}, "unseen_medium", "names sound in audios"),
        (from_value(0, "Audio 1: <audio>a.flac</audio>\nWhat?"), "unseen_medium", "says <audio>"),
        (messages(lambda _: [{"type": "video", "video": "a"}], 0), "unseen_medium", "'video'"),
        (messages(lambda _: [{"type": "input_audio", "input_audio": {}}], 0), "unseen_medium", "'input_audio'"),
        (
            messages(lambda _: [{"type": "image"}, text_part()], 0),
            "placeholder_mismatch",
            "named neither there nor in images",
        ),
        (messages(lambda _: [{"type": "table", "x": 1}], 0), "broken_turns", "of type 'table', expected text or image"),
        (from_value(0, "<|vision_start|><|image_pad|>What?"), "placeholder_mismatch", "another model's mark"),
        (from_value(0, "<ImageHere>What?"), "placeholder_mismatch", "another model's mark"),
        ({**from_value(0, "<image 1> What?"), "image": "a"}, "placeholder_mismatch", "'<image 1>'"),
        (
            {**from_value(0, "<image>x <img>b</img>"), "image": "a"},
            "placeholder_mismatch",
            "places 1 pictures and names 2",
        ),
        ({"question": "Q", "answer": 1, "choices": ["a", "b"]}, "broken_turns", "has choices beside its question"),
        ({"question": " ", "answer": "x"}, "broken_turns", "has an empty question"),
        ({"question": "Q", "answers": []}, "broken_turns", "answers is empty"),
        ({"question": "Q", "answer": math.nan}, "broken_turns", "answer is float"),
        ({"image": "a", "caption": []}, "nothing_supervised", "caption is empty"),
        ({"texts": [{"user": "Q"}], "images": []}, "broken_turns", "assistant of text 0 is NoneType"),
        ({"conversations": "[1"}, "unreadable_record", "conversations cannot be read as JSON"),
        ({"conversations": "[]"}, "no_conversation", "an empty list"),
        ({"url": "http://x/y.jpg", "caption": "a dog"}, "no_conversation", "its fields are ['url', 'caption']"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "broken_turns", "turn 0 is from list"),
        (
            {"image": {"<image_00>": "a"}, "conversations": [{"role": "user", "content": "<image_01>"}]},
            "placeholder_mismatch",
            "says '<image_01>', but image has no such picture",
        ),
    ],
)
def test_what_cannot_be_seen_or_read_is_bad(held: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(BadSampleError) as error:
        read_record(held)
    assert message in str(error.value)
    assert error.value.kind == kind
    assert "\n" not in str(error.value)


def test_words_about_tags_are_words() -> None:
    for text in ("How do I use the <video> tag?", "<video>\n<source src='a'>\n</video>\nWhy?", "Is <img> a tag?"):
        assert said(from_value(0, text)) == [[text], "dog"]


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("https://example.com/a.png?" + "x" * 5000, "missing_picture", "is a URL, and nothing is fetched"),
        ("s3://bucket/a.png", "missing_picture", "is a URL"),
        ("data:image/png;base64,@@@" + "A" * 5000, "unreadable_picture", "not base64"),
        ("x" * 100_000, "missing_picture", "no such file"),
        ("/9j/" + "@" * 5000, "unreadable_picture", "not base64"),
    ],
)
def test_a_picture_that_is_no_file_is_said_in_a_short_line(folder: Path, name: str, kind: str, message: str) -> None:
    data = opened(write_json(folder / "data.json", [from_value(0, QUESTION, image=name)]))
    with pytest.raises(BadSampleError, match=message) as error:
        data[0]
    assert error.value.kind == kind
    assert len(error.value.reason) < 400


def test_a_picture_may_be_written_down_or_named_as_a_url_of_a_file(folder: Path) -> None:
    for name in (data_url(1), data_url(1).partition(",")[2], f"file://{folder}/1.png"):
        data = opened(write_json(folder / "data.json", [from_value(1, QUESTION, image=name)]))
        assert open_picture(pictures_in(data[0])[0]).tobytes() == picture(1).tobytes()


NESTED: Any = "x"
for _ in range(400):
    NESTED = [NESTED]
WRONG: list[Any] = [None, True, 0, -1, 1e400, math.nan, "", "x", "\ud83d", "<image>", "<img>x</img>", [], [[]], [None]]
WRONG += [
    [[[]]],
    [{}],
    {},
    {"a": None},
    [{"from": ["human"]}],
    ["x", "y"],
    {"url": 3},
    {"bytes": 1},
    "[" * 3000,
    "https://example.com/a.png",
    "[[1]]",
    NESTED,
]


def _spoiled(held: Any, wrong: Any) -> list[Any]:
    """A record with each of its values, at any depth, replaced by the wrong one."""
    made = []
    items = held.items() if isinstance(held, dict) else enumerate(held) if isinstance(held, list) else ()
    for key, value in items:
        for inner in [wrong, *_spoiled(value, wrong)]:
            copy = dict(held) if isinstance(held, dict) else list(held)
            copy[key] = inner
            made.append(copy)
    return made


def test_no_value_of_a_wrong_type_ends_a_run(folder: Path, tiny_processor: Any) -> None:
    """Whatever stands in any field: a sample, or a bad sample, and nothing else; check and train agree which."""
    records: list[Any] = [*WRONG]
    for name, layout in LAYOUTS.items():
        file = layout.write(folder)
        if file.suffix in (".json", ".jsonl") and name not in ("coco", "vqa"):
            held = opened(file).record(0)
            records += [spoiled for wrong in WRONG for spoiled in _spoiled(held, wrong)]
            records += [{**held, field: wrong} for field, wrong in product(("system", "id", "video", "history"), WRONG)]
    assert len(records) > 2000
    data = opened(write_jsonl_loose(folder / "fuzzed.jsonl", [record(0, image="0.png"), *records]))
    encoder = SampleEncoder(tiny_processor, STAGES["instruction"])
    bad: dict[int, str] = {}
    for index in range(len(data)):
        try:
            sample = data[index]
            if index % 7 == 0:  # the others differ from these in the layout alone
                encoder.text(sample)
        except BadSampleError as error:
            bad[index] = error.reason
    assert len(bad) > len(records) / 2
    assert all("\n" not in reason and len(reason) < 500 for reason in bad.values())
    report = check(Examiner(data, encoder, open_pictures=False), workers=0)
    assert set(bad) == {found.index for found in report.findings if found.kind in BAD_BEFORE_ENCODING}
    json.dumps(report.to_dict(), ensure_ascii=False).encode("utf-8")
    assert len(data.sizes().pictures) == len(data)


BAD_BEFORE_ENCODING = {
    "unreadable_record",
    "no_conversation",
    "broken_turns",
    "unseen_medium",
    "placeholder_mismatch",
    "missing_picture",
    "unreadable_picture",
    "nothing_supervised",
}


def write_jsonl_loose(path: Path, records: list[Any]) -> Path:
    """Lines of JSON as Python writes it, NaN, infinities and halves of characters included."""
    path.write_text("".join(json.dumps(found) + "\n" for found in records), encoding="ascii")
    return path


def test_pictures_are_not_held_back_by_their_ending(folder: Path) -> None:
    (folder / "0.jpg").write_bytes(encoded(0))
    data = opened(write_json(folder / "data.json", [from_value(0, QUESTION, image_path="0.jpg")]))
    assert open_picture(pictures_in(data[0])[0]).tobytes() == picture(0).tobytes()


def test_layouts_are_named_as_docs_name_them() -> None:
    docs = Path(__file__).parents[3].joinpath("docs", "data.md").read_text(encoding="utf-8")
    for layout in LAYOUTS.values():
        assert layout.layout in docs
    assert PARTS in docs


def test_fields_may_be_written_down_as_json(folder: Path) -> None:
    held = {"images": '["0.png", "1.png"]', "messages": json.dumps(messages(lambda _: QUESTION, 0)["messages"])}
    data = opened(write_jsonl(folder / "data.jsonl", [held]))
    assert pictures_in(data[0]) == [folder / "0.png", folder / "1.png"]


def test_pictures_by_name_go_in_the_order_of_their_numbers() -> None:
    named = {f"<image_{number}>": str(number) for number in (10, 9, 0)}
    held = {"image": named, "conversations": messages(lambda _: "<image_10>Which?<image_9><image_0>", 0)["messages"]}
    assert said(held) == [["[10]", "Which?", "[9]", "[0]"], "dog"]
    front = {"image": named, "conversations": messages(lambda _: "Which?", 0)["messages"]}
    assert said(front) == [["[0]", "[9]", "[10]", "Which?"], "dog"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_damage_to_a_file_ends_in_anything_but_an_error_of_data(folder: Path, name: str) -> None:
    if "parquet" in LAYOUTS[name].write.__qualname__:
        pytest.importorskip("pyarrow")
    file = LAYOUTS[name].write(folder)
    whole, random = file.read_bytes(), np.random.default_rng(len(name))
    for _ in range(20):
        file.write_bytes(_damaged(whole, random))
        try:
            data = opened(file)
            data.sizes()
        except DataError:
            continue
        for index in range(len(data)):
            with contextlib.suppress(BadSampleError):
                data[index]


def _damaged(whole: bytes, random: np.random.Generator) -> bytes:
    """Some bytes exchanged, left out or put in, or the end cut off."""
    damaged = bytearray(whole)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(damaged) + 1))
        kind = random.integers(4)
        if kind == 0:
            damaged[place : place + 1] = random.bytes(1)
        elif kind == 1:
            del damaged[place : place + int(random.integers(1, 100))]
        elif kind == 2:
            damaged[place:place] = INSERTED[random.integers(len(INSERTED))]
        else:
            del damaged[place:]
    return bytes(damaged)


INSERTED = (b'"', b"{", b"[", b"]", b"}", b",", b"\n", b"null", b"\xff", b"<image>")
