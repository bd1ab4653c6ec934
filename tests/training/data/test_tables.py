"""Parquet: a row group at a time, pictures inside or beside it."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from llava_files import encoded, picture, pictures_in, record, texts_of

from flashsloth.media import open_picture
from flashsloth.training.data import BadSampleError, DataError, ParquetData, tables

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def write(path: Path, records: list[dict], rows: int = 3) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=rows)
    return path


def test_rows_are_samples_and_row_groups_are_blocks(tmp_path: Path) -> None:
    for number in range(10):
        picture(number).save(tmp_path / f"{number}.png")
    write(tmp_path / "part-0.parquet", [record(number) for number in range(7)])
    write(tmp_path / "part-1.parquet", [record(number) for number in range(7, 10)])
    for files in (tmp_path, tmp_path / "part-*.parquet", tmp_path / "part-{0..1}.parquet"):
        data = ParquetData(str(files), str(tmp_path))
        assert data.blocks.tolist() == [3, 3, 1, 3]
        assert [texts_of(data[index])[0] for index in range(10)] == [f"What is in {number}?" for number in range(10)]
        assert pictures_in(data[8]) == [tmp_path / "8.png"]
        assert data.sizes().pictures.tolist() == [1] * 10
    assert texts_of(pickle.loads(pickle.dumps(data))[9]) == texts_of(data[9])


def test_pictures_may_be_in_the_file(tmp_path: Path) -> None:
    structs = [{"bytes": encoded(number), "path": None} for number in range(2)]
    for number, image in enumerate(([structs[0]], [encoded(1)], structs)):
        found = record(0, pictures=len(image), image=image)
        data = ParquetData(str(write(tmp_path / f"{number}.parquet", [found])))
        opened = [open_picture(source) for source in pictures_in(data[0])]
        assert len(opened) == len(image)
        assert opened[-1].tobytes() == picture(1 if number else 0).tobytes()
        assert data.sizes().pictures.tolist() == [len(image)]


def test_sizes_leave_the_bytes_of_pictures_unread(tmp_path: Path) -> None:
    rows = [record(0, image={"bytes": encoded(0), "path": "0.png"}), record(1, pictures=0, image=None)]
    path = write(tmp_path / "data.parquet", rows)
    data = ParquetData(str(path))
    leaves = tables._small(parquet.ParquetFile(path), data.columns[0])
    assert "image.path" in leaves
    assert "image.bytes" not in leaves
    assert data.sizes().pictures.tolist() == [1, 0]


def test_a_process_keeps_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [record(number, image={"bytes": encoded(number), "path": None}) for number in range(30)]
    data = ParquetData(str(write(tmp_path / "data.parquet", rows)))
    monkeypatch.setattr(tables, "KEPT_BYTES", 2 * data._group(0).nbytes + 100)
    for index in range(30):
        assert data.record(index)["id"] == f"s{index}"
    assert len(data._kept) == 2


def test_what_is_no_parquet_of_ours_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        ParquetData(str(tmp_path / "absent.parquet"))
    with pytest.raises(DataError, match=r"expected files \*\.parquet"):
        ParquetData(str(tmp_path))
    (tmp_path / "text.parquet").write_text("hello", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as Parquet") as error:
        ParquetData(str(tmp_path / "text.parquet"))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="expected conversations or messages among them"):
        ParquetData(str(write(tmp_path / "other.parquet", [{"id": 1, "text": "x"}])))
    data = ParquetData(str(write(tmp_path / "bad.parquet", [record(0, conversations=None), record(1)])))
    with pytest.raises(BadSampleError, match="has no conversations"):
        data[0]


def test_columns_may_be_in_capitals_and_those_of_no_layout_stay_unread(tmp_path: Path) -> None:
    rows = [
        {"Image": {"bytes": encoded(0), "path": None}, "Question": "What?", "Answer": "dog", "embedding": [0.0] * 9}
    ]
    data = ParquetData(str(write(tmp_path / "data.parquet", rows)))
    assert texts_of(data[0]) == ["What?", "dog"]
    assert len(pictures_in(data[0])) == 1
    assert data._group(0).column_names == ["Image", "Question", "Answer"]


def test_a_damaged_row_group_is_bad_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "data.parquet", [record(number, pictures=0) for number in range(9)])
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    whole = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + 16] = b"\xff" * 16
    path.write_bytes(whole)
    data = ParquetData(str(path))
    for index in (3, 4, 5):
        with pytest.raises(BadSampleError, match="its row group 1 cannot be read") as error:
            data[index]
        assert "\n" not in str(error.value)
    assert [texts_of(data[index])[0] for index in (0, 8)] == ["What is in 0?", "What is in 8?"]
    assert (data.sizes().text_bytes > 0).tolist() == [True] * 3 + [False] * 3 + [True] * 3


def test_a_struct_of_nothing_is_no_picture(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": data, "path": None}, "question": "Hi", "answer": "Ho"} for data in (encoded(0), None)]
    data = ParquetData(str(write(tmp_path / "data.parquet", rows)))
    assert [len(pictures_in(data[index])) for index in range(2)] == [1, 0]


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "data.parquet", [record(0, pictures=0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"Parquet needs pyarrow: pip install 'flashsloth\[parquet\]'"):
        ParquetData(str(path))
