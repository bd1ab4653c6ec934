"""Files that are not the data they are called, and folders that are not one split: said in a line when opened."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from llava_files import encoded, record, write_json, write_jsonl, write_shard

from flashsloth.training.data import DataError, open_source
from flashsloth.training.data.records import several_files, source_of

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
LINE = json.dumps(record(0, pictures=0)).encode() + b"\n"


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as error:
        open_source(source_of(str(file)))
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet", "a.tar"])
def test_a_pointer_of_git_lfs_says_what_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    assert "a Git LFS pointer, not the file itself (`git lfs pull` fetches that)" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", gzip.compress(LINE), "is compressed: unpack it first"),
        ("a.jsonl.gz", gzip.compress(LINE), "is compressed: unpack it first"),
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", "is compressed: unpack it first"),
        ("a.json", "[]".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.csv", "image,question,answer\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
        ("a.json", b"PK\x03\x04...", "is a ZIP archive"),
        ("a.jsonl", b"", "holds no samples"),
        ("a.jsonl", b"\n\r\n", "holds no samples"),
        ("a.csv", b"", "has the columns []"),
        ("a.csv", b"image,question,answer\n", "holds no samples"),
        ("a.tar", b"", "cannot be read as a tar"),
    ],
)
def test_what_is_something_else_says_so(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_a_folder_that_datasets_saved_says_how_to_write_parquet(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    (saved / "train").mkdir(parents=True)
    (saved / "dataset_dict.json").write_text("{}", encoding="utf-8")
    (saved / "train" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    assert "to_parquet(" in refusal(saved)
    with pytest.raises(DataError, match="was saved by `datasets`"):
        several_files(str(saved), ".parquet")


def test_shards_may_lie_in_folders_of_one_split(tmp_path: Path) -> None:
    for name in ("train-0/b.tar", "train-0/a.tar", "train-1/a.tar", ".cache/c.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / name, [("0", record(0), [encoded(0)])])
    assert [str(file.relative_to(tmp_path)) for file in several_files(str(tmp_path), ".tar")] == [
        "train-0/a.tar",
        "train-0/b.tar",
        "train-1/a.tar",
    ]
    assert len(open_source(source_of(str(tmp_path)))) == 3
    write_shard(tmp_path / "train-1" / "z.tar", [("0", record(0), [encoded(0)])])
    (tmp_path / "test").mkdir()
    write_shard(tmp_path / "test" / "a.tar", [("0", record(0), [encoded(0)])])
    with pytest.raises(DataError, match="holds the splits test, train: name the files of one of them"):
        several_files(str(tmp_path), ".tar")


def test_no_folder_of_pictures_is_one_error(tmp_path: Path) -> None:
    file = write_json(tmp_path / "data.json", [record(number) for number in range(40)])
    with pytest.raises(DataError, match=r"there is no folder of pictures at .*/absent: say where they are"):
        open_source(source_of(str(file), str(tmp_path / "absent")))
    said = refusal(file)
    assert "none of 16 samples with pictures has them in" in said
    assert "0.png" in said


def test_a_layout_that_nobody_knows_is_one_error(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "data.jsonl", [{"prompt_text": "x", "label": 1}] * 5)
    assert "none of 5 samples can be learned from" in refusal(file)
    assert "its fields are ['prompt_text', 'label']" in refusal(file)


def test_a_file_that_begins_with_bad_samples_is_still_read(tmp_path: Path) -> None:
    records = [{"x": 1}] * 300 + [record(0, pictures=0)] * 300
    assert len(open_source(source_of(str(write_jsonl(tmp_path / "data.jsonl", records))))) == 600


def test_some_samples_without_pictures_or_layout_are_bad_ones(tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(encoded(3))
    records = [{"x": 1}, *(record(number) for number in range(5))]
    assert len(open_source(source_of(str(write_jsonl(tmp_path / "data.jsonl", records))))) == 6


def test_samples_that_are_all_bad_for_one_reason_are_one_error(tmp_path: Path) -> None:
    records = [record(number, conversations=[{"from": "robot", "value": "x"}]) for number in range(9)]
    said = refusal(write_jsonl(tmp_path / "data.jsonl", records))
    assert "none of 9 samples can be learned from; the first turn 0 is from 'robot'" in said


def test_a_range_that_no_disk_holds_is_refused_before_it_is_written_out() -> None:
    with pytest.raises(DataError, match=r"the range \{0\.\.99999999999\} has more than 1,000,000 numbers"):
        several_files("cc-{0..99999999999}.tar", ".tar")
