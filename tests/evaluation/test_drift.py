"""What differs from the published settings is named: in presets, runs, an lmms-eval read as text, and data."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from drawn_benchmarks import LAYOUTS

from flashsloth.cli.app import main
from flashsloth.evaluation.drift import (
    DIFFERS,
    LMMS_RULES,
    NOT_KNOWN,
    SAME,
    Comparison,
    Line,
    compare_data,
    compare_lmms_eval,
    compare_preset,
    compare_run,
    make_drift,
)
from flashsloth.evaluation.item import Prediction
from flashsloth.evaluation.lmms_eval_files import LmmsEval, find_lmms_eval
from flashsloth.evaluation.predictions import JUDGE, data_digest, write_predictions
from flashsloth.evaluation.runner import header_of, read_items
from flashsloth.evaluation.server_answerer import ServerAnswerer
from flashsloth.evaluation.setting_words import effect_of
from flashsloth.evaluation.settings import LLAVA, LMMS, PAPER, TABLE, TASKS, settings_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.evaluation.tasks import make_task

YAML = """
include: _shared_yaml
task: gqa
test_split: testdev
doc_to_text: !function utils.ask
process_results: !function utils.count
generation_kwargs: {max_new_tokens: 32, temperature: 0, top_p: 1.0, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean}
lmms_eval_specific_kwargs:
  default: {pre_prompt: "Look. ", post_prompt: "\\nAnswer the question using a single word or phrase."}
  other: {pre_prompt: "x"}
"""
SHARED = """
dataset_path: someone/GQA
dataset_name: testdev_balanced_instructions
dataset_path: lmms-lab-encoder/GQA
test_split: train
odd: !another [1, 2]
doc_to_messages: !function shown.in_place
"""
UTILS = """
from lmms_eval.tasks.shared.words import clean
raise SystemExit("this must not run")
def count(doc, results):
    import lmms_eval.tasks.shared.judge
MODEL = os.getenv("MODEL_VERSION", "judge-7")
"""
NOT_FOUND = "no_such_folder"


@pytest.fixture
def lmms(tmp_path: Path) -> Path:
    """A package of one task, whose code ends whoever imports it."""
    package = tmp_path / "lmms_eval"
    for name, text in {
        "__init__.py": "raise SystemExit('this must not be imported')\n",
        "tasks/gqa/gqa.yaml": YAML,
        "tasks/gqa/_shared_yaml": SHARED,
        "tasks/gqa/utils.py": UTILS,
        "tasks/gqa/shown.py": "def in_place(): ...\n",
        "tasks/shared/words.py": "def clean(): ...\n",
        "tasks/shared/judge.py": "",
        "tasks/shared/others.py": "",
    }.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    about = tmp_path / "lmms_eval-9.8.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lmms_eval\nVersion: 9.8\n", encoding="utf-8")
    return package


def lines_of(comparison: Comparison) -> dict[str, Line]:
    return {line.what: line for line in comparison.lines}


def digest(package: Path) -> str:
    found = LmmsEval(package, None).read_task("gqa", "gqa")
    assert found is not None
    return found.digest


def test_an_lmms_eval_is_read_as_text(lmms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(lmms.parent)
    found = find_lmms_eval()
    assert found == LmmsEval(lmms, "9.8")
    assert found == find_lmms_eval(lmms) == find_lmms_eval(lmms.parent)
    comparison = compare_lmms_eval("gqa", found)
    assert comparison.name == "lmms-eval 9.8"
    lines = lines_of(comparison)
    shown = {what: (line.state, line.published, line.found) for what, line in lines.items()}
    assert shown["data set"] == (DIFFERS, "lmms-lab/GQA", "lmms-lab-encoder/GQA")
    assert "owner was renamed" in lines["data set"].effect
    assert shown["its split"] == (SAME, "testdev", "testdev")
    assert shown["its configuration"][0] == SAME
    assert shown["prompt before it"] == (DIFFERS, "none", "'Look. '")
    assert shown["prompt after it"][0] == SAME
    assert shown["pictures before the text"] == (DIFFERS, "yes", "no")
    assert shown["new tokens at most"] == (DIFFERS, "16", "32")
    assert "go on here" in lines["new tokens at most"].effect
    assert shown["temperature"] == (SAME, "0", "0")
    assert shown["what is right"][0] == NOT_KNOWN
    assert shown["score's name"] == (SAME, "exact_match", "exact_match")
    assert shown["its code"] == (DIFFERS, "of lmms-eval 0.7.3", digest(lmms))
    assert "lmms_eval" not in sys.modules


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("tasks/gqa/utils.py", True),
        ("tasks/gqa/shown.py", True),
        ("tasks/shared/words.py", True),
        ("tasks/shared/judge.py", True),
        ("tasks/shared/others.py", False),
        ("__init__.py", False),
    ],
)
def test_what_the_digest_of_rules_is_made_of(file: str, counts: bool, lmms: Path) -> None:
    before = digest(lmms)
    path = lmms / file
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert digest(lmms) == before
    path.write_bytes(path.read_bytes() + b"# changed\n")
    assert (digest(lmms) != before) == counts


def test_an_included_rule_is_in_the_digest_too(lmms: Path) -> None:
    before = digest(lmms)
    path = lmms / "tasks" / "gqa" / "_shared_yaml"
    path.write_text(f"{SHARED}\nunrelated: 1\n", encoding="utf-8")
    assert digest(lmms) == before
    path.write_text(f"{SHARED}\nfilter_list: [{{name: first}}]\n", encoding="utf-8")
    assert digest(lmms) != before


def test_the_judge_of_its_code(lmms: Path) -> None:
    found = LmmsEval(lmms, None).read_task("gqa", "gqa")
    assert found is not None
    assert found.judge == "judge-7"
    (lmms / "tasks" / "mmvet").mkdir()
    (lmms / "tasks" / "mmvet" / "utils.py").write_text(UTILS, encoding="utf-8")
    (lmms / "tasks" / "mmvet" / "mmvet.yaml").write_text(YAML.replace("include: _shared_yaml", ""), encoding="utf-8")
    lines = lines_of(compare_lmms_eval("mmvet", find_lmms_eval(lmms)))
    assert (lines["judge"].state, lines["judge"].found) == (DIFFERS, "judge-7")
    assert (lines["draws"].state, lines["draws"].found) == (DIFFERS, "do_sample: false")
    assert (lines["score's name"].state, lines["score's name"].found) == (DIFFERS, "exact_match")
    assert (lines["temperature"].state, lines["temperature"].found) == (DIFFERS, "0")


def test_what_is_not_set_or_not_there_is_not_known(lmms: Path) -> None:
    path = lmms / "tasks" / "gqa" / "gqa.yaml"
    path.write_text("task: gqa\nmetric_list: 7\ngeneration_kwargs: none\n", encoding="utf-8")
    lines = lines_of(compare_lmms_eval("gqa", find_lmms_eval(lmms)))
    assert lines["temperature"].state == NOT_KNOWN
    assert lines["prompt after it"].state == NOT_KNOWN
    assert lines["wording of a question"].state == NOT_KNOWN
    assert (lines["new tokens at most"].state, lines["new tokens at most"].found) == (DIFFERS, "2,000 (not set)")
    [line] = compare_lmms_eval("pope", find_lmms_eval(lmms)).lines
    assert (line.state, line.found) == (NOT_KNOWN, "no such task")
    [line] = compare_lmms_eval("pope", None).lines
    assert line.state == NOT_KNOWN
    assert "not installed" in line.effect


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("gqa.yaml", "task: [", "is not YAML"),
        ("gqa.yaml", "- 1", "holds list, expected a task's keys"),
        ("gqa.yaml", "include: {a: 1}", "expected names of files"),
        ("gqa.yaml", "include: gqa.yaml", "expected an end to that"),
        ("gqa.yaml", "include: no_such_file", "cannot be read"),
        ("utils.py", "def (", "is not Python that can be read"),
        ("utils.py", "\0", "is not Python that can be read"),
    ],
)
def test_broken_files_are_named(
    file: str, text: str, said: str, lmms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (lmms / "tasks" / "gqa" / file).write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=said):
        LmmsEval(lmms, None).read_task("gqa", "gqa")
    assert main(["eval", "drift", "gqa", "--lmms-eval", str(lmms)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_presets() -> None:
    for task in TASKS:
        assert {line.state for line in compare_preset(task, PAPER).lines} == {SAME}
    changed = {
        line.what: (line.published, line.found) for line in compare_preset("mmmu", LMMS).lines if line.state == DIFFERS
    }
    assert changed == {
        "data set": ("lmms-lab/MMMU", "lmms-lab-encoder/MMMU"),
        "new tokens at most": ("16", "128"),
        "pictures before the text": ("yes", "no"),
    }
    for row in TABLE:
        for line in compare_preset(row.task, LMMS).lines:
            assert bool(line.effect) == (line.state == DIFFERS)
    [line] = compare_preset("mmvet", LLAVA).lines
    assert line.state == NOT_KNOWN


def run_file(path: Path, *, preset: str = PAPER, judged_by: str | None = None, task: str = "pope") -> Path:
    """A run of drawn questions, as it is kept."""
    layout = next(iter(LAYOUTS[task]))
    LAYOUTS[task][layout](path.parent / "data")
    items = read_items(make_task(task, preset), path.parent / "data", None, 0)
    header = header_of(settings_of(task, preset), ServerAnswerer("http://127.0.0.1:9/v1", "m"), items, None, 0)
    if judged_by is not None:
        header[JUDGE] = {"model": judged_by}
    answers = [
        Prediction(one.id, one.prompt, one.truth, one.group, one.picture, "yes", place=place)
        for place, one in enumerate(items)
    ]
    assert header["data"]["digest"] == data_digest(answers)
    write_predictions(path, header, answers)
    return path


def test_a_run_is_compared_by_its_header(tmp_path: Path) -> None:
    task, settings, data = compare_run(run_file(tmp_path / "predictions.jsonl", preset=LLAVA))
    assert task == "pope"
    lines = lines_of(settings)
    assert {line.what for line in lines.values() if line.state == DIFFERS} == {
        "new tokens at most",
        "what is right",
        "score",
    }
    assert lines["precision"].state == NOT_KNOWN
    questions = lines_of(data)["questions"]
    assert (questions.state, questions.published, questions.found) == (DIFFERS, "8,910", "12")
    _, settings, _ = compare_run(run_file(tmp_path / "b" / "predictions.jsonl", task="mmbench", judged_by="judge-7"))
    assert (lines_of(settings)["who judged"].state, lines_of(settings)["who judged"].found) == (DIFFERS, "judge-7")


def test_a_run_of_another_program_has_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, {"task": "pope", "preset": PAPER}, [])
    _, settings, _ = compare_run(path)
    assert [(line.state, line.what) for line in settings.lines] == [(NOT_KNOWN, "settings")]


def test_the_command(tmp_path: Path, lmms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_file(tmp_path / "run" / "predictions.jsonl")
    assert main(["eval", "drift", "--run", str(file), "--lmms-eval", str(lmms)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "POPE: the paper has 86.3, and 87.2 for HD; 95 % half width 0.7 points" in shown
    assert "not known whether its figure is accuracy or F1" in shown
    assert "same temperature 0" in shown
    assert "differs questions 9,000 -> 12" in shown
    data = str(tmp_path / "run" / "data")
    assert main(["eval", "drift", "pope", "--data", data, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["half_width"] == pytest.approx(0.71, abs=0.005)
    assert report["comparisons"][-1]["lines"][0]["found"] == "12"
    assert main(["eval", "drift", "pope", "--data", data, "--strict"]) == 1
    assert main(["eval", "drift", "pope", "--strict"]) == 0
    capsys.readouterr()
    assert main(["eval", "drift", "--data", str(tmp_path / NOT_FOUND)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(row.title in shown for row in TABLE)
    assert "13 settings data set, its split" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["gqa", "--run", "FILE"], "is of pope, not of gqa"),
        (["--run", "FILE", "--preset", LMMS], "--preset is not for --run"),
        (["--run", NOT_FOUND], "cannot be read"),
        (["gqa", "--lmms-eval", NOT_FOUND], "has no lmms_eval/tasks"),
        (["vqav2"], "there is no task"),
        (["gqa", "--preset", "today"], "preset is 'today'"),
    ],
)
def test_mistakes(options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_file(tmp_path / "predictions.jsonl")
    assert main(["eval", "drift", *(str(file) if one == "FILE" else one for one in options)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lmms-eval 0.7.3, downloaded and not installed."""
    folder = tmp_path_factory.mktemp("lmms")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "lmms-eval==0.7.3"]
    subprocess.run(command, check=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


IN_LINES: dict[str, Callable[[str], object]] = {
    "data set": lambda task: settings_of(task, LMMS).dataset,
    "its configuration": lambda task: settings_of(task, LMMS).config,
    "its split": lambda task: settings_of(task, LMMS).split,
    "new tokens at most": lambda task: f"{settings_of(task, LMMS).max_tokens:,}",
    "pictures before the text": lambda task: "yes" if settings_of(task, LMMS).pictures_first else "no",
    "what is right": lambda task: settings_of(task, LMMS).scorer,
    "judge": lambda task: settings_of(task, LMMS).judge,
    "score's name": lambda task: " + ".join(settings_of(task, LMMS).lmms_metrics),
    "its code": lambda task: "of lmms-eval 0.7.3",
}
"""What a line about the real package says, by the table."""


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.task)
def test_the_published_package_is_preset_lmms(row, published: Path) -> None:
    lmms = find_lmms_eval(published)
    assert lmms is not None
    assert lmms.version == "0.7.3"
    found = lmms.read_task(row.task, row.lmms_task)
    assert found is not None
    assert found.digest == LMMS_RULES[row.task]
    for what, line in lines_of(compare_lmms_eval(row.task, lmms)).items():
        if what in IN_LINES:
            assert line.found.removesuffix(" (not set)") == IN_LINES[what](row.task), what
        elif what.startswith(("prompt", "wording")):
            assert line.state == SAME, what


def test_fewer_questions_have_a_wider_interval(tmp_path: Path) -> None:
    _, settings, data = compare_run(run_file(tmp_path / "predictions.jsonl", task="mmbench"))
    lines = {line.what: line for one in make_drift("mmbench", [settings, data]).comparisons for line in one.lines}
    assert lines["questions"].half_width == pytest.approx(1.96 * (0.73 * 0.27 / (4 * 1164 / 4329)) ** 0.5 * 100)
    assert all(line.half_width is None for line in lines.values() if line.state != DIFFERS)
    [differs] = compare_preset("gqa", LMMS).lines[:1]
    assert make_drift("gqa", [Comparison("", (differs,))]).comparisons[0].lines[0].half_width == pytest.approx(
        settings_of("gqa").half_width
    )


STRANGE: tuple[Any, ...] = (None, "", "many", 7, -1.5, True, [1], {"a": 1}, float("nan"))


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_strange_values_are_shown_and_stop_nothing(value: Any, tmp_path: Path, lmms: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    settings = dict.fromkeys(asdict(settings_of("mmvet")), value)
    header = {"task": "mmvet", "preset": PAPER, "settings": settings, "model": {"dtype": value}, "limit": value}
    for one in (header, {**header, "settings": value}, {**header, "model": value}):
        write_predictions(path, one, [])
        assert main(["eval", "drift", "--run", str(path)]) == 0
    keys = ("dataset_path", "test_split", "generation_kwargs", "metric_list", "lmms_eval_specific_kwargs")
    inner = {"generation_kwargs": dict.fromkeys(("max_new_tokens", "temperature", "top_p", "do_sample"), value)}
    inner["lmms_eval_specific_kwargs"] = {"default": dict.fromkeys(("pre_prompt", "post_prompt", "shot_type"), value)}
    inner["metric_list"] = [{"metric": value}]  # type: ignore[assignment]
    for config in (dict.fromkeys(keys, value), inner):
        (lmms / "tasks" / "gqa" / "gqa.yaml").write_text(json.dumps(config), encoding="utf-8")
        assert main(["eval", "drift", "gqa", "--lmms-eval", str(lmms)]) == 0


def add_task(package: Path, task: str, text: str) -> Comparison:
    folder = package / "tasks" / task
    folder.mkdir(exist_ok=True)
    (folder / f"{TASKS[task].lmms_task}.yaml").write_text(text, encoding="utf-8")
    return compare_lmms_eval(task, find_lmms_eval(package))


def test_prompts_by_their_other_names(lmms: Path) -> None:
    lines = lines_of(
        add_task(
            lmms,
            "mmmu",
            """
lmms_eval_specific_kwargs:
  default:
    multiple_choice_prompt: "Answer with the option's letter from the given choices directly."
    open_ended_prompt: "Answer in a word."
metric_list: [{metric: other_acc}, {metric: submission}]
""",
        )
    )
    assert lines["prompt after it"].state == SAME
    assert (lines["prompt after an open one"].state, lines["prompt after an open one"].found) == (
        DIFFERS,
        "'Answer in a word.'",
    )
    assert lines["score's name"].found == "other_acc"
    assert "draws" not in lines_of(add_task(lmms, "mmmu", "generation_kwargs: {do_sample: false}"))
    shot = "lmms_eval_specific_kwargs: {{default: {{shot_type: {}}}}}"
    for name, state, found in (("format-prompt", SAME, "format"), ("step-by-step", DIFFERS, "cot")):
        line = lines_of(add_task(lmms, "mathvista", shot.format(name)))["wording of a question"]
        assert (line.state, line.found) == (state, found)


def test_of_several_included_files_the_first_counts(lmms: Path) -> None:
    folder = lmms / "tasks" / "gqa"
    (folder / "one").write_text("test_split: first", encoding="utf-8")
    (folder / "two").write_text("test_split: second\ndataset_path: two", encoding="utf-8")
    lines = lines_of(add_task(lmms, "gqa", "include: [one, two]"))
    assert (lines["its split"].found, lines["data set"].found) == ("first", "two")


def test_the_order_of_keys_is_not_in_the_digest(lmms: Path) -> None:
    texts = ("doc_to_text: a\nprocess_results: b\n", "process_results: b\ndoc_to_text: a\n")
    found = []
    for text in texts:
        add_task(lmms, "gqa", text)
        found.append(digest(lmms))
    assert found[0] == found[1]


def test_which_questions(tmp_path: Path) -> None:
    ids = [f"v1_{number}" for number in range(218)]

    def which(task: str, ids: list[str]) -> Line | None:
        return lines_of(compare_data(task, PAPER, ids, tmp_path)).get("which")

    same, other, unknown = which("mmvet", ids[::-1]), which("mmvet", [*ids[1:], "v1_300"]), which("gqa", ids)
    assert same is not None
    assert same.state == SAME
    assert other is not None
    assert other.state == DIFFERS
    assert unknown is not None
    assert unknown.state == NOT_KNOWN
    assert which("mmvet", ids[1:]) is None  # how many differs already
    file = run_file(tmp_path / "predictions.jsonl", task="mmbench")
    file.write_text("\n".join(file.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    assert lines_of(compare_run(file)[2])["which"].found == "not all are answered yet"


def test_how_a_flashsloth_answered(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    model = {"kind": "flashsloth", "dtype": "float16", "quantize": "int8", "resolution": "standard"}
    write_predictions(path, {"task": "pope", "preset": PAPER, "model": model}, [])
    lines = lines_of(compare_run(path)[1])
    assert lines["precision"].state == SAME
    assert (lines["quantized weights"].state, lines["quantized weights"].found) == (DIFFERS, "int8")
    assert (lines["resolution"].state, lines["resolution"].found) == (DIFFERS, "standard")


@pytest.mark.parametrize(
    ("name", "published", "found", "effect"),
    [
        ("max_tokens", 16, 128, "go on here"),
        ("max_tokens", 128, 16, "are cut here"),
        ("temperature", 0.0, 0.2, "answers are drawn"),
        ("temperature", 0.2, 0.0, "no draws"),
        ("dataset", "lmms-lab/GQA", "lmms-lab-encoder/GQA", "owner was renamed"),
        ("dataset", "lmms-lab/GQA", "lmms-lab/GQA2", "cannot be compared"),
        ("scorer", "is the letter", "begins with the letter", '"B." and "B. text" are right too'),
        ("scorer", "is the letter", "of another kind", "count otherwise"),
        ("judge", "gpt-4", "gpt-5", "two judges"),
    ],
)
def test_what_to_expect(name: str, published: object, found: object, effect: str) -> None:
    assert effect in effect_of(name, published, found)


def test_every_rule_of_another_preset_has_its_effect() -> None:
    for preset in (LMMS, LLAVA):
        for row in TABLE:
            for line in compare_preset(row.task, preset).lines:
                if (line.state, line.what) == (DIFFERS, "what is right"):
                    assert "count otherwise" not in line.effect, (row.task, preset)


def test_all_tasks_in_short(tmp_path: Path, lmms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUTS["gqa"]["own"](tmp_path / "data" / "gqa")
    assert main(["eval", "drift", "all", "--data", str(tmp_path / "data")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "same temperature 0" not in shown
    assert "lmms-eval of all: not installed here" in shown
    assert "differs questions 12,578 -> 3" in shown
    assert "data of pope, mme, mmbench," in shown
    assert "not looked at" not in shown


def test_known_rules_tell_what_is_right(lmms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = "lmms_eval_specific_kwargs: {default: {shot_type: step-by-step}}"
    for task, text in (("scienceqa", "test_split: test"), ("mathvista", shot)):
        add_task(lmms, task, text)
        found = LmmsEval(lmms, None).read_task(task, TASKS[task].lmms_task)
        assert found is not None
        monkeypatch.setitem(LMMS_RULES, task, found.digest)
    lines = lines_of(compare_lmms_eval("scienceqa", find_lmms_eval(lmms)))
    assert (lines["what is right"].state, lines["what is right"].found) == (DIFFERS, "begins with the letter")
    assert lines["prompt after it"].state == SAME
    assert lines["its code"].state == SAME
    assert lines_of(compare_lmms_eval("mathvista", find_lmms_eval(lmms)))["wording of a question"].found == "cot"
