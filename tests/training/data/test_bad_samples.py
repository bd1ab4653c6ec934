"""Bad samples: written down once, whoever meets them; the same ones stand in always; too many stop the run."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from llava_files import picture, record, texts_of, write_jsonl
from torch.utils.data import DataLoader

from flashsloth.training.data import (
    BadSampleError,
    BadSamples,
    DataError,
    GoodSamples,
    Sample,
    TooManyBadSamplesError,
    Where,
    conversations,
)
from flashsloth.training.dataloader import SampleEncoder, training_conversations
from flashsloth.training.recipe import StageRun
from flashsloth.training.recipe_fields import DataSource
from flashsloth.training.stages import STAGES


def bad(number: int, reason: str = "is odd") -> BadSampleError:
    return BadSampleError(reason, "broken_turns", Where("data.json", number, f"s{number}"))


def write_all(path: Path, numbers: list[int]) -> None:
    bad_samples = BadSamples(path, 1000, 1.0)
    for number in numbers:
        bad_samples.add(bad(number))


def test_several_processes_write_each_sample_once(tmp_path: Path) -> None:
    path = tmp_path / "run" / "bad_samples.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_all, args=(path, list(range(start, 60)))) for start in (0, 10, 20, 30)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    bad_samples = BadSamples(path, 1000, 1.0)
    assert bad_samples.count() == 60
    assert [entry["index"] for entry in bad_samples.entries()] == list(range(60))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 60
    assert bad_samples.entries()[7] == {
        "source": "data.json",
        "index": 7,
        "id": "s7",
        "kind": "broken_turns",
        "reason": "is odd",
    }


def test_a_line_that_was_cut_by_a_kill_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "bad_samples.jsonl"
    write_all(path, [1, 2])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    bad_samples = BadSamples(path, 1000, 1.0)
    assert bad_samples.count() == 2
    bad_samples.add(bad(3, "é"))
    assert [json.loads(line)["index"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2, 3]
    assert bad_samples.count() == BadSamples(path, 1000, 1.0).count() == 3


def test_more_than_may_be_stop_the_run_with_the_list(tmp_path: Path) -> None:
    bad_samples = BadSamples(tmp_path / "bad_samples.jsonl", 200, 0.01)
    bad_samples.add(bad(4))
    bad_samples.add(bad(3))
    bad_samples.add(bad(4))
    with pytest.raises(TooManyBadSamplesError) as error:
        bad_samples.add(bad(9))
    message = str(error.value)
    assert "3 of 200 samples are bad (1.50%" in message
    assert "data.json 3 (s3): is odd; data.json 4 (s4): is odd" in message
    assert str(tmp_path / "bad_samples.jsonl") in message
    assert "\n" not in message


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """20 samples: the picture of 3 is missing, that of 4 damaged; 5 is too long, 11 unanswered, line 12 broken."""
    records: list[dict[str, Any]] = [record(number) for number in range(20)]
    for number in range(20):
        picture(number).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").unlink()
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    records[5]["conversations"][1]["value"] = "long " * 400
    records[11]["conversations"] = records[11]["conversations"][:1]
    file = write_jsonl(tmp_path / "data.jsonl", records)
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[12] = lines[12][:-9]
    file.write_text("\n".join(lines), encoding="utf-8")
    return DataSource(jsonl=str(file))


def good_samples(source: DataSource, processor: Any, path: Path, most: float = 0.5) -> GoodSamples:
    data = conversations([source])
    stage = STAGES["instruction"]
    short = type(stage)(**{**stage.__dict__, "max_length": 200})
    return GoodSamples(data, SampleEncoder(processor, short), BadSamples(path, len(data), most))


def test_bad_samples_are_stood_in_for_by_the_next_good_one(
    source: DataSource, tiny_processor: Any, tmp_path: Path
) -> None:
    data = good_samples(source, tiny_processor, tmp_path / "bad.jsonl")
    stand_ins = {index: data[index].where.index for index in (19, 12, 11, 10, 5, 4, 3, 2)}
    assert stand_ins == {19: 19, 12: 13, 11: 13, 10: 10, 5: 6, 4: 6, 3: 6, 2: 2}
    assert {entry["index"]: entry["kind"] for entry in data.bad_samples.entries()} == {
        3: "missing_picture",
        4: "unreadable_picture",
        5: "too_long",
        11: "broken_turns",
        12: "unreadable_record",
    }
    assert all("\n" not in entry["reason"] for entry in data.bad_samples.entries())


def test_samples_may_be_left_out_by_number(source: DataSource, tiny_processor: Any, tmp_path: Path) -> None:
    """The next good one stands in, as for a bad one, and they are not counted as bad."""
    left_out = source.model_copy(update={"leave_out": [2, 19]})
    run = StageRun(stage="instruction", **STAGES["instruction"].model_dump(), data=[left_out], max_bad_fraction=0.5)
    data = training_conversations(run, tiny_processor, tmp_path)
    assert [data[index].where.index for index in (1, 2, 18, 19)] == [1, 5, 18, 0]
    assert data.bad_samples.count() == 2
    too_many = run.model_copy(update={"data": [source.model_copy(update={"leave_out": [20]})]})
    with pytest.raises(DataError, match=r"leave_out names sample 20 of .*data\.jsonl, whose last is 19"):
        training_conversations(too_many, tiny_processor, tmp_path)


def first_of(samples: list[Any]) -> list[int]:
    return [sample.where.index for sample in samples]


def test_workers_meet_the_same_samples_and_write_one_ledger(
    source: DataSource, tiny_processor: Any, tmp_path: Path
) -> None:
    seen = {}
    for workers in (0, 2):
        data = good_samples(source, tiny_processor, tmp_path / f"{workers}.jsonl")
        loader = DataLoader(data, batch_size=3, num_workers=workers, collate_fn=first_of)
        seen[workers] = list(loader)
        seen[workers] += list(loader)
    assert seen[0] == seen[2]
    entries = [BadSamples(tmp_path / f"{workers}.jsonl", 20, 1.0).entries() for workers in (0, 2)]
    assert entries[0] == entries[1]
    assert len(entries[0]) == 5


def test_too_many_in_a_worker_is_still_one_line(source: DataSource, tiny_processor: Any, tmp_path: Path) -> None:
    data = good_samples(source, tiny_processor, tmp_path / "bad.jsonl", most=0.1)
    with pytest.raises(TooManyBadSamplesError) as error:
        list(DataLoader(data, batch_size=4, num_workers=1, collate_fn=first_of))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("3 of 20 samples are bad (15.00%")


def test_a_source_of_bad_samples_alone_ends(tiny_processor: Any, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "data.jsonl", [{"id": 1}, {"id": 2}])
    data = good_samples(DataSource(jsonl=str(file)), tiny_processor, tmp_path / "bad.jsonl", most=1.0)
    with pytest.raises(DataError, match=r"every sample of .*data\.jsonl is bad"):
        data[0]


def test_our_own_mistakes_are_not_counted_as_bad_samples(source: DataSource, tmp_path: Path) -> None:
    def broken(sample: Sample) -> Any:
        raise ValueError(f"no way to write {texts_of(sample)}")

    data = GoodSamples(conversations([source]), broken, BadSamples(tmp_path / "bad.jsonl", 20, 1.0))
    with pytest.raises(ValueError, match="no way"):
        data[0]
    assert data.bad_samples.count() == 0
