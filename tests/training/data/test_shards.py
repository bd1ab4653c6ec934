"""WebDataset shards: members side by side in tar files, read where they stand."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
from llava_files import encoded, picture, pictures_in, record, texts_of, write_shard

from flashsloth.media import open_picture
from flashsloth.training.data import BadSampleError, DataError, ShardData, Where


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of 4, 3 and 3 samples; a picture each, but the last has two, as PNG called jpg."""
    numbers = iter(range(10))
    for shard, count in enumerate((4, 3, 3)):
        samples = []
        for number in [next(numbers) for _ in range(count)]:
            several = 2 if number == 9 else 1
            pictures = [encoded(number + extra) for extra in range(several)]
            samples.append((f"{number:06d}", record(number, pictures=several), pictures))
        write_shard(tmp_path / f"cc-{shard:03d}.tar", samples)
    return tmp_path


def test_samples_are_read_where_they_stand(shards: Path) -> None:
    data = ShardData(str(shards / "cc-{000..002}.tar"))
    assert data.blocks.tolist() == [4, 3, 3]
    for index in (9, 0, 5, 4, 8):
        sample = data[index]
        assert texts_of(sample)[0] == f"What is in {index}?"
        opened = [open_picture(source) for source in pictures_in(sample)]
        assert opened[0].tobytes() == picture(index).tobytes()
        assert len(opened) == (2 if index == 9 else 1)
    assert data[5].where == Where(str(shards / "cc-001.tar"), 1, "s5")
    assert data.sizes().pictures.tolist() == [1] * 9 + [2]
    again = pickle.loads(pickle.dumps(data))
    assert texts_of(again[7]) == texts_of(data[7])


def test_memory_is_a_few_numbers_a_sample(shards: Path) -> None:
    data = ShardData(str(shards))
    held = data.records.nbytes + data.picture_places.nbytes + data.picture_ends.nbytes
    assert held == 10 * 16 + 11 * 16 + 10 * 8


def test_a_sample_that_lacks_a_part_is_bad(tmp_path: Path) -> None:
    samples = [
        ("a", None, [encoded(0)]),
        ("b", record(1), []),
        ("c", record(2, pictures=0), []),
        ("d.e", record(3, id=None), [encoded(3)]),
    ]
    data = ShardData(str(write_shard(tmp_path / "odd.tar", samples)))
    assert len(data) == 4
    with pytest.raises(BadSampleError, match=r"has no \.json beside its pictures"):
        data[0]
    with pytest.raises(BadSampleError, match="names 1 pictures, but 0 lie beside it") as error:
        data[1]
    assert error.value.kind == "missing_picture"
    assert data[2].where is not None
    assert data[3].where == Where(str(tmp_path / "odd.tar"), 3, "odd/3")


def test_a_shard_that_is_no_whole_tar_is_named(shards: Path) -> None:
    whole = (shards / "cc-000.tar").read_bytes()
    (shards / "cut.tar").write_bytes(whole[:1500])
    with pytest.raises(DataError, match=r"cut\.tar cannot be read as a tar"):
        ShardData(str(shards / "cut.tar"))
    (shards / "packed.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="expected a whole one, not compressed"):
        ShardData(str(shards / "packed.tar"))
    with tarfile.open(shards / "empty.tar", "w"):
        pass
    with pytest.raises(DataError, match="holds no samples"):
        ShardData(str(shards / "empty.tar"))
    with pytest.raises(DataError, match=r"cc-003\.tar: no such file"):
        ShardData(str(shards / "cc-{000..003}.tar"))
    with pytest.raises(DataError, match="goes down"):
        ShardData(str(shards / "cc-{003..000}.tar"))
    with pytest.raises(DataError, match="no file is called like that"):
        ShardData(str(shards / "dd-*.tar"))


def test_members_of_a_sample_may_stand_apart_and_pictures_go_by_number(tmp_path: Path) -> None:
    found = record(0, pictures=11)
    members = [(f"k.{number}.png", encoded(number)) for number in (10, 2, 0, 1, *range(3, 10))]
    members.insert(4, ("other.jpg", encoded(20)))
    members += [("._k.json", b"junk"), ("k.json", json.dumps(found).encode()), ("other.txt", b"a dog")]
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    data = ShardData(str(tmp_path / "a.tar"))
    assert len(data) == 2
    opened = [open_picture(source) for source in pictures_in(data[0])]
    assert [image.tobytes() for image in opened] == [picture(number).tobytes() for number in range(11)]
    assert texts_of(data[1])[1] == "a dog"


def test_video_beside_a_text_is_bad(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name in ("a.mp4", "a.txt", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            shard.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(BadSampleError, match="has video or sound beside it") as error:
        ShardData(str(tmp_path / "a.tar"))[0]
    assert error.value.kind == "unseen_medium"
