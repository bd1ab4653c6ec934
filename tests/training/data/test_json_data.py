"""JSON lists and JSONL, read by place."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from llava_files import picture, pictures_in, record, texts_of, write_json, write_jsonl

from flashsloth.training.data import BadSampleError, DataError, JsonData, JsonlData, json_spans


@pytest.fixture
def records() -> list[dict]:
    return [record(number, pictures=number % 3, note='a "quote", a [ and a \\ and 漢') for number in range(40)]


@pytest.fixture(autouse=True)
def _pictures(tmp_path: Path) -> None:
    for number in range(42):
        picture(number).save(tmp_path / f"{number}.png")


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_found_whole_whatever_the_blocks(
    tmp_path: Path, records: list[dict], monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
) -> None:
    file = write_json(tmp_path / "data.json", records, indent=indent)
    monkeypatch.setattr(json_spans, "BLOCK_BYTES", block)
    data = JsonData(str(file))
    assert [data.record(index) for index in range(len(data))] == records
    assert data.sizes().pictures.tolist() == [number % 3 for number in range(40)]


def test_lines_are_found_whole_with_blank_ones_between(tmp_path: Path, records: list[dict]) -> None:
    lines = [json.dumps(found, ensure_ascii=False) for found in records]
    for text in (
        "\n".join(lines),
        "\n".join(lines) + "\n",
        "\r\n".join(lines) + "\r\n\r\n",
        "\n\n" + "\n\n".join(lines),
    ):
        (tmp_path / "data.jsonl").write_bytes(text.encode())
        data = JsonlData(str(tmp_path / "data.jsonl"))
        assert [data.record(index) for index in range(len(data))] == records


def test_a_byte_order_mark_is_no_sample(tmp_path: Path, records: list[dict]) -> None:
    lines = "\n".join(json.dumps(found) for found in records)
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8-sig")
    assert JsonlData(str(tmp_path / "data.jsonl")).record(0) == records[0]
    (tmp_path / "data.json").write_text(json.dumps(records), encoding="utf-8-sig")
    assert JsonData(str(tmp_path / "data.json")).record(39) == records[39]


def test_both_give_the_same_samples(tmp_path: Path, records: list[dict]) -> None:
    as_list = JsonData(str(write_json(tmp_path / "data.json", records)))
    as_lines = JsonlData(str(write_jsonl(tmp_path / "data.jsonl", records)))
    assert len(as_list) == len(as_lines) == 40
    for index in range(40):
        one, other = as_list[index], as_lines[index]
        assert texts_of(one) == texts_of(other)
        assert pictures_in(one) == pictures_in(other)
        assert one.where is not None
        assert one.where.id == f"s{index}"
    assert as_list.sizes().pictures.tolist() == as_lines.sizes().pictures.tolist()
    assert (abs(as_list.sizes().text_bytes - as_lines.sizes().text_bytes) <= 8).all()


def test_a_picture_with_another_ending_is_found(tmp_path: Path) -> None:
    (tmp_path / "0.png").rename(tmp_path / "0.gif")  # a png that is called gif, named as jpg
    data = JsonData(str(write_json(tmp_path / "data.json", [record(0, image="0.jpg")])))
    assert pictures_in(data[0]) == [tmp_path / "0.gif"]


def test_pictures_lie_where_images_says(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = write_json(tmp_path / "sub" / "data.json", [record(3)])
    assert pictures_in(JsonData(str(file), str(tmp_path))[0]) == [tmp_path / "3.png"]
    with pytest.raises(BadSampleError, match="no such file, nor with another ending"):
        JsonData(str(file))[0]


@pytest.mark.parametrize("name", [7, "", None, "a\0b", {"path": "x"}])
def test_a_picture_that_is_no_name(tmp_path: Path, name: object) -> None:
    data = JsonData(str(write_json(tmp_path / "data.json", [record(0, image=[name])])))
    with pytest.raises(BadSampleError, match="as a picture, expected a path") as error:
        data[0]
    assert error.value.kind == "missing_picture"


def test_a_bad_line_is_a_bad_sample(tmp_path: Path) -> None:
    good = json.dumps(record(0)).encode()
    (tmp_path / "data.jsonl").write_bytes(b"\n".join([good, b'{"id": ', b"[1]", b'"\xff"', good]))
    data = JsonlData(str(tmp_path / "data.jsonl"))
    assert len(data) == 5
    for index in (1, 2, 3):
        with pytest.raises(BadSampleError, match=f"data.jsonl, sample {index}") as error:
            data[index]
        assert error.value.kind == "unreadable_record"
        assert "\n" not in str(error.value)
    assert texts_of(data[4]) == texts_of(data[0])
    assert data.sizes().pictures.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a non-empty list"),
        ("[]", "expected a non-empty list of samples"),
        ('{"a": 1}', "one object a line is for jsonl:"),
        ("hello", "is not JSON: it begins with 'h'"),
        ("[", "is not JSON"),
        ('[{"a": 1}', "is not JSON: expected , or ] after sample 0"),
        ('[{"a": 1}, {"b" 2}]', "is not JSON: Expecting ':' delimiter at byte 16, in sample 1"),
        ('[{"a": 1}, {"b": "unended', "in sample 1"),
        ('[{"a": 1},]', "in sample 1"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_file_that_is_no_list_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.json") as error:
        JsonData(str(tmp_path / "data.json"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a LLaVA JSON file"):
        JsonData(str(tmp_path / "absent.json"))
    with pytest.raises(DataError, match="expected a JSONL file"):
        JsonlData(str(tmp_path / "absent.jsonl"))


def test_it_travels_to_workers_and_a_file_that_shrinks_is_named(tmp_path: Path, records: list[dict]) -> None:
    file = write_jsonl(tmp_path / "data.jsonl", records)
    data = JsonlData(str(file))
    assert data.record(5) == records[5]
    again = pickle.loads(pickle.dumps(data))
    assert again.record(5) == records[5]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="has become shorter"):
        again.record(30)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [0, 2])
def test_samples_may_be_printed_over_several_lines(
    tmp_path: Path, records: list[dict], monkeypatch: pytest.MonkeyPatch, block: int, indent: int
) -> None:
    text = "\n".join(json.dumps(found, indent=indent, ensure_ascii=False) for found in records)
    (tmp_path / "data.jsonl").write_text(text, encoding="utf-8-sig")
    data = JsonlData(str(tmp_path / "data.jsonl"))
    monkeypatch.setattr(json_spans, "BLOCK_BYTES", block)
    assert json_spans.printed_spans(tmp_path / "data.jsonl").tolist() == data.spans.tolist()
    assert [data.record(index) for index in range(len(data))] == records


def test_a_broken_one_among_printed_samples_is_one_bad_sample(tmp_path: Path, records: list[dict]) -> None:
    printed = [json.dumps(found, indent=2) for found in records[:4]]
    printed[1] = printed[1].replace('"model":', '"model"')
    printed[2] = printed[2][: len(printed[2]) // 2]
    (tmp_path / "data.jsonl").write_text("\n".join(printed), encoding="utf-8")
    data = JsonlData(str(tmp_path / "data.jsonl"))
    assert len(data) == 4
    for index in (1, 2):
        with pytest.raises(BadSampleError, match="cannot be read as JSON"):
            data[index]
    assert [data.record(index) for index in (0, 3)] == [records[0], records[3]]


def test_a_key_that_stands_twice_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('[{"id": "a", "image": "a.png", "image": "b.png"}]', encoding="utf-8")
    with pytest.raises(BadSampleError, match=r"sample 0 .* cannot be read as JSON: 'image' is there twice"):
        JsonData(str(tmp_path / "data.json"))[0]


def test_content_tells_a_list_from_lines_whatever_the_ending(tmp_path: Path, records: list[dict]) -> None:
    lines = JsonData(str(write_jsonl(tmp_path / "lines.json", records)))
    printed = tmp_path / "printed.json"
    printed.write_text("\n".join(json.dumps(found, indent=2) for found in records), encoding="utf-8")
    listed = JsonlData(str(write_json(tmp_path / "list.jsonl", records, indent=2)))
    on_a_line = JsonlData(str(write_json(tmp_path / "line.jsonl", records)))
    for data in (lines, JsonData(str(printed)), listed, on_a_line):
        assert [data.record(index) for index in range(len(data))] == records
        assert data.sizes().pictures.tolist() == [number % 3 for number in range(40)]


def test_a_row_may_be_huge(tmp_path: Path) -> None:
    huge = json.dumps(record(0, pictures=0, note="x" * (9 << 20)))
    (tmp_path / "data.jsonl").write_text(f"{huge}\n", encoding="utf-8")
    assert JsonlData(str(tmp_path / "data.jsonl"))[0].where.id == "s0"  # type: ignore[union-attr]


def test_an_id_is_short_and_can_be_written_anywhere(tmp_path: Path) -> None:
    data = JsonlData(
        str(write_jsonl_ascii(tmp_path / "data.jsonl", [record(0, id="x" * 9999), record(1, id="a\ud83d")]))
    )
    ids = [data.where(index, data.record(index)).id for index in range(2)]
    assert len(ids[0]) == 200
    assert ids[1].encode("utf-8") == b"a\\ud83d"


def write_jsonl_ascii(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(found) + "\n" for found in records), encoding="ascii")
    return path
