"""Tables: rows read by place, cells by the names of their columns."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from llava_files import encoded, picture, pictures_in, texts_of

from flashsloth.media import open_picture
from flashsloth.training.data import BadSampleError, DataError, conversations
from flashsloth.training.data.tables import CsvData
from flashsloth.training.recipe_fields import DataSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(0).save(tmp_path / "0.png")
    return tmp_path


def table(folder: Path, text: str, encoding: str = "utf-8") -> CsvData:
    (folder / "a.csv").write_bytes(text.encode(encoding))
    return CsvData(str(folder / "a.csv"))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_cells_may_hold_anything(folder: Path, line_end: str, delimiter: str, encoding: str) -> None:
    rows = [
        ["IMAGE", " Question", "Answer"],
        ["0.png", f'"Wh{delimiter}at?{line_end}Which ""one""?"', "é 漢\u2028x"],
        ["", "Hi", "Ho"],
    ]
    data = table(folder, line_end.join(delimiter.join(row) for row in rows) + line_end * 2, encoding)
    assert len(data) == 2
    assert texts_of(data[0]) == [f'Wh{delimiter}at?{line_end}Which "one"?', "é 漢\u2028x"]
    assert pictures_in(data[0]) == [folder / "0.png"]
    assert texts_of(data[1]) == ["Hi", "Ho"]
    assert data.sizes().pictures.tolist() == [1, 0]
    joined = conversations([DataSource(csv=str(folder / "a.csv"))])
    assert len(joined) == 2


def test_a_picture_may_stand_in_its_cell(folder: Path) -> None:
    noise = base64.b64encode(encoded(1) + bytes(200_000)).decode()  # longer than csv's own limit
    data = table(folder, f"image,question,answer\n{noise},What?,dog\n")
    assert open_picture(pictures_in(data[0])[0]).tobytes() == picture(1).tobytes()


def test_a_row_that_cannot_be_read_is_a_bad_sample(folder: Path) -> None:
    data = table(folder, "image,question,answer\n,a,b,c\n,\udcff,b\n,,b\n,a,b\n".replace("\udcff", "é"), "latin-1")
    for index, message in ((0, "has 4 cells, the header 3"), (1, "is not UTF-8"), (2, "has no conversations")):
        with pytest.raises(BadSampleError, match=message) as error:
            data[index]
        assert error.value.where is not None
        assert error.value.where.index == index
    assert texts_of(data[3]) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has the columns .'a', 'b'., expected image, question, answer"),
        ("question,Question,answer\n1,2,3\n", "two columns of the same name"),
        ('question,answer\n"a,b\n', "line 2: unexpected end of data"),
    ],
)
def test_what_is_no_table_is_named(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(folder, text)
