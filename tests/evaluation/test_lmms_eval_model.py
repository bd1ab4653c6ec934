"""lmms-eval's own command line on FlashSloth, in an environment of its own: what it records are FlashSloth's answers.

Pictures are drawn, tasks are lmms-eval's own over a local Parquet file, and nothing is fetched but lmms-eval.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import flashsloth
from flashsloth.world import World

LMMS_EVAL = "lmms-eval==0.7.3"
BESIDE = (
    *("datasets", "evaluate", "sacrebleu", "loguru", "numexpr", "tenacity", "python-dotenv", "requests", "pandas"),
    *("pytablewriter", "jsonlines", "openai", "pydantic", "Levenshtein"),
)
"""All that it needs for these tasks, of the fifty packages that it declares."""
REPOSITORY = Path(__file__).resolve().parents[2]
PICTURES = 6
WORD = "\nAnswer the question using a single word or phrase."
TEMPERATURE, SEED, REPEATS = 1.0, 7, 2


class Drawn(NamedTuple):
    """A task over drawn pictures: what is asked, and how answers are made."""

    pairs: list[tuple[list[Image.Image], Any]]
    options: dict[str, Any]


@pytest.fixture(scope="module")
def python_with_lmms_eval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees what this one sees, and lmms-eval with what it needs beside."""
    folder = tmp_path_factory.mktemp("lmms-eval")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    under_test = sysconfig.get_paths()["purelib"]
    (Path(paths["purelib"]) / "under_test.pth").write_text(f"import site; site.addsitedir({under_test!r})\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    for wanted in (["--no-deps", LMMS_EVAL], ["-c", str(REPOSITORY / "constraints.txt"), *BESIDE]):
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip cannot get {LMMS_EVAL}: {done.stderr.strip().splitlines()[-1:]}")
    return python


def environment(home: Path) -> dict[str, str]:
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    return {**os.environ, **offline, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def hub_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as the hub's data sets are stored: pictures encoded, and a note of which columns are pictures."""
    encoded, kinds = [], {}
    for row in rows:
        line = {}
        for name, value in row.items():
            is_picture = name.startswith("image") and not isinstance(value, str)
            kinds[name] = {"_type": "Image"} if is_picture else {"dtype": "string", "_type": "Value"}
            if isinstance(value, Image.Image):
                file = io.BytesIO()
                value.save(file, "PNG")
                line[name] = {"bytes": file.getvalue(), "path": None}
            else:
                line[name] = value
        encoded.append(line)
    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [(name, picture if kind["_type"] == "Image" else pyarrow.string()) for name, kind in kinds.items()]
    note = {"huggingface": json.dumps({"info": {"features": kinds}})}
    table = pyarrow.Table.from_pylist(encoded, schema=pyarrow.schema(fields, metadata=note))
    pyarrow.parquet.write_table(table, path)


def write_task(folder: Path, include: Path, name: str, split: str, more: str = "") -> None:
    """One of lmms-eval's tasks, over a local file."""
    (folder / f"{name}.yaml").write_text(
        f"include: {include}\ntask: {name}\ndataset_path: parquet\n"
        f"dataset_kwargs:\n  data_files:\n    {split}: {folder / name}.parquet\n{more}"
    )


@pytest.fixture(scope="module")
def drawn(python_with_lmms_eval: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Drawn]]:
    """A folder of tasks, and what each asks."""
    folder = tmp_path_factory.mktemp("tasks")
    installed = next(python_with_lmms_eval.parents[1].glob("lib/python*/site-packages/lmms_eval/tasks"))
    world = World(seed=3, split="test", level=3)
    samples = [world.sample(index) for index in range(PICTURES)]
    asked = [
        (sample.image, one) for sample in samples for one in sample.questions if one.answer.lower() in ("yes", "no")
    ]
    pope = [
        {"id": str(number), "question_id": str(number), "question": one.question, "answer": one.answer.lower(),
         "image_source": str(number), "image": image, "category": "random"}
        for number, (image, one) in enumerate(asked)
    ]  # fmt: skip
    write_task(folder, installed / "pope" / "pope.yaml", "drawn_pope", "test")
    hub_parquet(folder / "drawn_pope.parquet", pope)
    settings = f"generation_kwargs:\n  max_new_tokens: 8\n  temperature: {TEMPERATURE}\n  do_sample: true\n"
    sampled = f"repeats: {REPEATS}\n{settings}"
    write_task(folder, installed / "pope" / "pope.yaml", "drawn_sampled", "test", sampled)
    hub_parquet(folder / "drawn_sampled.parquet", pope[:4])
    mmmu = [
        {"id": f"validation_Art_{number}", "question": "In <image 1> and <image 2> what is alike?",
         "options": "['circle', 'square']", "question_type": "multiple-choice", "answer": "A",
         "image_1": samples[number].image, "image_2": samples[number + 1].image}
        for number in range(3)
    ]  # fmt: skip
    write_task(folder, installed / "mmmu" / "mmmu_val.yaml", "drawn_mmmu", "validation")
    hub_parquet(folder / "drawn_mmmu.parquet", mmmu)
    end = "what is alike?\nA. circle\nB. square\n\nAnswer with the option's letter from the given choices directly."
    texts = [{"type": "text", "text": text} for text in ("In", "and", end)]
    parts = [texts[0], {"type": "image"}, texts[1], {"type": "image"}, texts[2]]
    plain = [([row["image"]], row["question"] + WORD) for row in pope]
    draw = {"max_tokens": 8, "temperature": TEMPERATURE, "seed": SEED}
    return folder, {
        "drawn_pope": Drawn(plain, {"max_tokens": 128}),
        "drawn_sampled": Drawn(plain[:4], draw),
        "drawn_mmmu": Drawn([([row["image_1"], row["image_2"]], parts) for row in mmmu], {"max_tokens": 128}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_what_lmms_eval_records_are_the_answers(
    python_with_lmms_eval: Path, drawn: tuple[Path, dict[str, Drawn]], tmp_path: Path, processes: int
) -> None:
    folder, tasks = drawn
    launched = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [
        python_with_lmms_eval, *launched, "-m", "lmms_eval", "--model", "flashsloth",
        "--model_args", f"dtype=float32,seed={SEED}", "--device", "cpu", "--tasks", ",".join(tasks),
        "--include_path", folder, "--log_samples", "--output_path", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sloth = flashsloth.load(device="cpu", dtype="float32")
    for name, task in tasks.items():
        [file] = (tmp_path / "out").rglob(f"*_samples_{name}.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found = {row["doc_id"]: _first(row) for row in rows}
        answers = sloth.answer_batch(task.pairs, image_policy="official", **task.options)
        assert len(rows) == len(task.pairs)
        assert found == dict(enumerate(answers)), done.stdout[-2000:]


def _first(row: dict[str, Any]) -> str:
    """A recorded answer: lmms-eval keeps it once where its filters change nothing, and only the first of repeats."""
    found = row.get("resps", row["filtered_resps"])
    while isinstance(found, list):
        found = found[0]
    return found


OPTIONS = """
from flashsloth.evaluation.lmms_eval_model import FlashSlothModel
for arguments, more in ((TEXT, {"device": "cpu", "batch_size": "3"}), ("", {"batch_size": 1})):
    sloth = FlashSlothModel.create_from_arg_string(arguments, more)._sloth
    print(sloth.name, sloth.dtype, sloth.config.max_rows, len(sloth.answer(None, "Say hello.")) > 0)
for arguments in ("dtype=float8", "quantize=int3", "batch_size=none", "pretrained=a,adapter=b", "color=red"):
    try:
        FlashSlothModel.create_from_arg_string(arguments)
    except (ValueError, TypeError) as error:
        print(error)
"""


@pytest.mark.slow
def test_model_args(python_with_lmms_eval: Path, tmp_path: Path) -> None:
    code = OPTIONS.replace("TEXT", repr("pretrained=nano,dtype=bfloat16,quantize=int8,resolution=standard"))
    done = subprocess.run(
        [python_with_lmms_eval, "-c", code], capture_output=True, text=True, env=environment(tmp_path), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    given, plain, *refused = [line for line in done.stdout.splitlines() if line][-7:]
    assert given == "nano torch.bfloat16 3 True"
    assert plain == "nano torch.float32 32 True"
    for line, said in zip(refused, ("dtype is", "int3", "batch_size is", "expected one", "color"), strict=True):
        assert said in line
