"""A tiny file of every layout that people have: two samples about pictures 0 and 1, written as its publisher writes it.

Each writer gets a folder in which `0.png` and `1.png` lie, and returns the file. Both samples ask `What is it?` and are
answered `dog` and `cat`, unless the layout has no question.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llava_files import encoded, picture, write_json, write_jsonl, write_shard

QUESTION, ANSWERS = "What is it?", ("dog", "cat")


class Written(NamedTuple):
    """How a layout is written, and what is to be said of it.

    Attributes:
        write: the file.
        layout: what it is read as.
        question: what is asked, with the system text before it where there is one.
        pictures: how many each sample has.
    """

    write: Callable[[Path], Path]
    layout: str
    question: str = QUESTION
    pictures: int = 1
    system: str | None = None


def pictures_into(folder: Path) -> None:
    for number in range(2):
        picture(number).save(folder / f"{number}.png")


def data_url(number: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(encoded(number)).decode()}"


def messages(content: Callable[[int], Any], number: int, **fields: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": content(number)}, {"role": "assistant", "content": ANSWERS[number]}]
    return {"messages": turns, **fields}


def from_value(number: int, text: str, **fields: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": ANSWERS[number]}]
    return {"conversations": turns, **fields}


def _jsonl(record: Callable[[int], Any]) -> Callable[[Path], Path]:
    return lambda folder: write_jsonl(folder / "data.jsonl", [record(0), record(1)])


def _json(record: Callable[[int], Any]) -> Callable[[Path], Path]:
    return lambda folder: write_json(folder / "data.json", [record(0), record(1)])


def _parquet(record: Callable[[int], Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([record(0), record(1)]), folder / "data.parquet")
        return folder / "data.parquet"

    return write


def image(number: int) -> dict[str, Any]:
    """As the `datasets` library keeps a picture."""
    return {"bytes": encoded(number), "path": None}


def text_part(text: str = QUESTION) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _shards(text: bool, with_json: bool) -> Callable[[Path], Path]:
    """img2dataset's, with the members of a sample apart as in a tar of a folder."""

    def write(folder: Path) -> Path:
        members = [(f"{number:05d}.png", encoded(number)) for number in range(2)]
        for number, caption in enumerate(ANSWERS):
            said = {"key": f"{number:05d}", "url": "http://x/y.jpg", "status": "success"}
            if text:
                members.append((f"{number:05d}.txt", caption.encode()))
            if with_json:
                members.append((f"{number:05d}.json", json.dumps({**said, "caption": caption}).encode()))
        with tarfile.open(folder / "00000.tar", "w") as shard:
            for name, data in members:
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
        return folder / "00000.tar"

    return write


def _llava_shards(folder: Path) -> Path:
    samples = [
        (f"{number}", from_value(number, f"<image>\n{QUESTION}", image=f"{number}.jpg"), [encoded(number)])
        for number in range(2)
    ]
    return write_shard(folder / "00000.tar", samples)


def coco(folder: Path) -> Path:
    images = [{"id": 900 + number, "file_name": f"{number}.png", "height": 16, "width": 20} for number in range(2)]
    annotations = [
        {"id": number, "image_id": 900 + number, "caption": caption} for number, caption in enumerate(ANSWERS)
    ]
    held = {"info": {"year": 2017}, "licenses": [{"id": 1}], "images": images, "annotations": annotations}
    return write_json(folder / "captions_train2017.json", held)  # type: ignore[arg-type]


def vqa(folder: Path) -> Path:
    """Both files; the pictures have COCO's names."""
    questions, annotations = [], []
    for number, answer in enumerate(ANSWERS):
        picture(number).save(folder / f"COCO_train2014_{number:012d}.png")
        questions.append({"image_id": number, "question": QUESTION, "question_id": 10 + number})
        answers = [{"answer": "bird", "answer_confidence": "no"}] * 3 + [{"answer": answer}] * 7
        annotations.append({"image_id": number, "answers": answers, "question_id": 10 + number})
    held = {"info": {}, "data_subtype": "train2014", "task_type": "Open-Ended", "questions": questions}
    write_json(folder / "v2_OpenEnded_mscoco_train2014_questions.json", held)  # type: ignore[arg-type]
    held = {"info": {}, "data_subtype": "train2014", "annotations": annotations[::-1]}
    write_json(folder / "v2_mscoco_train2014_annotations.json", held)  # type: ignore[arg-type]
    return folder / "v2_OpenEnded_mscoco_train2014_questions.json"


def table(folder: Path) -> Path:
    with open(folder / "answers.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Image", "Question", "Answer"])
        writer.writerows([[f"{number}.png", QUESTION, answer] for number, answer in enumerate(ANSWERS)])
    return folder / "answers.csv"


def printed_lines(folder: Path) -> Path:
    held = [from_value(number, f"<image>\n{QUESTION}", image=f"{number}.png") for number in range(2)]
    text = "\n".join(json.dumps(record, indent=2) for record in held) + "\n"
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    return folder / "data.jsonl"


SHAREGPT, MESSAGES = "conversations of from and value", "messages of role and content"
PARTS = "messages with content in parts"
REQUEST = "Provide a brief description of the given image."

LAYOUTS = {
    "llava": Written(_json(lambda n: from_value(n, f"<image>\n{QUESTION}", image=f"{n}.png")), SHAREGPT),
    "sharegpt_system": Written(
        _jsonl(lambda n: from_value(n, QUESTION, images=[f"{n}.png"], system="Be brief.")),
        SHAREGPT,
        system="Be brief.",
    ),
    "llama_factory": Written(
        _json(lambda n: messages(lambda _: f"<image>{QUESTION}", n, images=[f"{n}.png"])), MESSAGES
    ),
    "openai": Written(
        _jsonl(
            lambda n: messages(
                lambda n: [text_part(), {"type": "image_url", "image_url": {"url": data_url(n), "detail": "low"}}], n
            )
        ),
        PARTS,
    ),
    "openai_system": Written(
        _jsonl(
            lambda n: {
                "messages": [
                    {"role": "system", "content": [text_part("Be brief.")]},
                    *messages(lambda n: [{"type": "image_url", "image_url": {"url": f"{n}.png"}}, text_part()], n)[
                        "messages"
                    ],
                ]
            }
        ),
        PARTS,
        system="Be brief.",
    ),
    "trl": Written(
        _parquet(
            lambda n: (
                messages(
                    lambda _: [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}],
                    n,
                    images=[image(n)],
                )
                | {"messages": _all_parts(n)}
            )
        ),
        PARTS,
    ),
    "trl_index": Written(
        _jsonl(
            lambda n: messages(
                lambda _: [
                    {"index": None, "text": QUESTION, "type": "text"},
                    {"index": 0, "text": None, "type": "image"},
                ],
                n,
                images=[f"{n}.png"],
            )
        ),
        PARTS,
    ),
    "trl_prompt": Written(
        _jsonl(
            lambda n: {
                "prompt": [{"role": "user", "content": [{"type": "image"}, text_part()]}],
                "completion": [{"role": "assistant", "content": [text_part(ANSWERS[n])]}],
                "images": [f"{n}.png"],
            }
        ),
        "prompt and completion, of messages",
    ),
    "qwen": Written(
        _jsonl(lambda n: messages(lambda n: [{"type": "image", "image": f"{n}.png"}, text_part()], n)), PARTS
    ),
    "qwen_untyped": Written(
        _jsonl(lambda n: messages(lambda n: [{"image": f"{n}.png"}, {"text": QUESTION}], n)), PARTS
    ),
    "qwen_vl_tags": Written(
        _json(lambda n: from_value(n, f"Picture 1: <img>{n}.png</img>\n{QUESTION}", id=f"identity_{n}")), SHAREGPT
    ),
    "fine_vision": Written(
        _parquet(
            lambda n: {
                "images": [image(n)],
                "texts": [{"user": QUESTION, "assistant": ANSWERS[n]}],
                "source": "x",
                "relevance_ratings": [4],
            }
        ),
        "texts of user and assistant",
    ),
    "the_cauldron": Written(
        _parquet(
            lambda n: {"images": [image(n)], "texts": [{"user": QUESTION, "assistant": ANSWERS[n], "source": "vqa"}]}
        ),
        "texts of user and assistant",
    ),
    "problem_answer": Written(
        _parquet(lambda n: {"images": [image(n)], "problem": f"<image>{QUESTION}", "answer": ANSWERS[n]}),
        "problem and answer",
    ),
    "problem_solution": Written(
        _parquet(lambda n: {"image": image(n), "problem": QUESTION, "solution": ANSWERS[n]}), "problem and solution"
    ),
    "conversations_as_text": Written(
        _parquet(lambda n: {"image": image(n), "conversations": json.dumps(from_value(n, QUESTION)["conversations"])}),
        SHAREGPT,
    ),
    "image_text_shards": Written(_shards(text=True, with_json=False), "picture and caption", REQUEST),
    "img2dataset": Written(_shards(text=True, with_json=True), "picture and caption", REQUEST),
    "shards_with_json": Written(_shards(text=False, with_json=True), "picture and caption", REQUEST),
    "llava_shards": Written(_llava_shards, SHAREGPT),
    "coco": Written(coco, "COCO captions", REQUEST),
    "vqa": Written(vqa, "VQAv2 questions and annotations"),
    "minicpm": Written(
        _json(
            lambda n: {
                "id": str(n),
                "image": {"<image_00>": f"{n}.png", "<image_01>": "1.png"},
                "conversations": [
                    {"role": "user", "content": f"<image_00>{QUESTION}<image_01>"},
                    {"role": "assistant", "content": ANSWERS[n]},
                ],
            }
        ),
        "MiniCPM's conversations",
        pictures=2,
    ),
    "minicpm_single": Written(
        _json(
            lambda n: {
                "id": str(n),
                "image": f"{n}.png",
                "conversations": messages(lambda _: f"<image>\n{QUESTION}", n)["messages"],
            }
        ),
        MESSAGES,
    ),
    "csv": Written(table, "question and answer"),
    "printed_lines": Written(printed_lines, SHAREGPT),
    "image_folder": Written(
        _jsonl(lambda n: {"file_name": f"{n}.png", "text": ANSWERS[n]}), "picture and text", REQUEST
    ),
    "alpaca": Written(
        _json(lambda n: {"instruction": "Look.", "input": QUESTION, "output": ANSWERS[n], "images": [f"{n}.png"]}),
        "instruction and output",
        f"Look.\n{QUESTION}",
    ),
    "wrapped": Written(
        lambda folder: write_json(
            folder / "data.json",
            {  # type: ignore[arg-type]
                "dataset_name": "docvqa",
                "data": [
                    {
                        "questionId": n,
                        "question": QUESTION,
                        "image": f"{n}.png",
                        "answers": [ANSWERS[n], "x", ANSWERS[n]],
                    }
                    for n in range(2)
                ],
            },
        ),
        "question and answers",
    ),
}
"""Name -> how it is written and read."""


def _all_parts(number: int) -> list[dict[str, Any]]:
    """A table's parts, each with every field."""
    asked = [{"type": "image", "text": None}, {"type": "text", "text": QUESTION}]
    answered = [{"type": "text", "text": ANSWERS[number]}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
