"""What differs from the published settings, line by line: in a run, in an installed lmms-eval, and in the data.

In: a task, and what its row of the table (`settings.py`, preset paper) is compared with. Out: a :class:`Drift`. Each of
its lines says same, differs, or not known; and of what differs, which effect is to be expected. An effect smaller than
half of the score's 95 % interval is not to be seen at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flashsloth.evaluation.lmms_eval_files import LmmsEval, LmmsTask
from flashsloth.evaluation.predictions import DATA, JUDGE, ids_digest, read_predictions
from flashsloth.evaluation.report import PUBLISHED_DTYPE
from flashsloth.evaluation.setting_words import COMPARED, EFFECTS, effect_of, in_words
from flashsloth.evaluation.settings import (
    LMMS,
    NOT_SET,
    PAPER,
    PRESETS,
    SOURCES,
    TASKS,
    SettingsError,
    TaskSettings,
    settings_of,
)

SAME, DIFFERS, NOT_KNOWN = STATES = ("same", "differs", "not known")
STYLES_IN_LMMS = {"format-prompt": "format", "step-by-step": "cot", "solution": "solution"}
"""MathVista's prompts, by their names there."""
LMMS_RULES: dict[str, str] = {
    "pope": "3b4d8bbc0f79dd5e",
    "mme": "1e19b88ad14e553d",
    "mmbench": "d860ed51d28215a2",
    "mmvet": "7ea933dfd036d61b",
    "seedbench": "bc2e56f8699ba28a",
    "mmmu": "3078460d53f3e7d7",
    "mathvista": "18401686f420588a",
    "gqa": "efbe99e63e0e89c1",
    "scienceqa": "95a271b59a0c0b3e",
    "textvqa": "48eea18917cc7447",
    "ai2d": "69562ca80fbb9aa0",
    "chartqa": "de127dc1c4540e77",
    "docvqa": "66863011868fd8fc",
    "realworldqa": "04f40f97d26e5ea3",
}
"""Digest of each task's rules in lmms-eval 0.7.3."""


@dataclass(frozen=True)
class Line:
    """One thing that was compared.

    Attributes:
        state: one of `STATES`.
        what: was compared.
        published, found: what it is there and here, in words.
        effect: to be expected of what differs, or what would tell.
        half_width: of what differs: half of the score's 95 % interval, in points.
    """

    state: str
    what: str
    published: str
    found: str
    effect: str = ""
    half_width: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The lines about one thing: a run, an lmms-eval, or data; `is_there` where there was something to compare with."""

    name: str
    lines: tuple[Line, ...]
    is_there: bool = True


@dataclass(frozen=True)
class Drift:
    """All that a task was compared with.

    Attributes:
        task, title, source: which, and where the published settings stand.
        paper, paper_hd, half_width: the paper's figures, and half of the score's 95 % interval, in points.
        not_known: what the paper does not say.
        comparisons: with a run, an lmms-eval, and data.
    """

    task: str
    title: str
    source: str
    paper: float
    paper_hd: float
    half_width: float | None
    not_known: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = field(default=())

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return any(line.state == DIFFERS for one in self.comparisons for line in one.lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        return asdict(self)


def make_drift(task: str, comparisons: Iterable[Comparison]) -> Drift:
    """A task's report."""
    row = settings_of(task)
    known = row.paper, row.paper_hd, row.half_width, row.not_known
    return Drift(task, row.title, SOURCES[PAPER], *known, tuple(_with_half_widths(one, row) for one in comparisons))


def _with_half_widths(comparison: Comparison, row: TaskSettings) -> Comparison:
    def with_it(line: Line) -> Line:
        is_open = line.state == DIFFERS and line.half_width is None
        return replace(line, half_width=row.half_width) if is_open else line

    return replace(comparison, lines=tuple(map(with_it, comparison.lines)))


def compare_preset(task: str, preset: str) -> Comparison:
    """A task as a preset has it; of a preset that does not have the task, one line that says so.

    Raises:
        SettingsError: for an unknown task or preset.
    """
    name = f"preset {preset}"
    try:
        settings = settings_of(task, preset)
    except SettingsError as error:
        if preset not in PRESETS or task not in TASKS:
            raise
        return Comparison(name, (Line(NOT_KNOWN, "settings", PAPER, "none", str(error)),))
    published = settings_of(task)
    lines = [*_settings_lines(published, asdict(settings))]
    lines.append(_questions_line(published, settings.size))
    return Comparison(name, tuple(lines))


def compare_run(path: Path) -> tuple[str, Comparison, Comparison]:
    """(task, its settings, its questions) of a predictions.jsonl.

    Raises:
        EvaluationError: where it is none.
    """
    header, predictions = read_predictions(path)
    task, model = header["task"], header.get("model", {})
    row = settings_of(task)
    settings = header.get("settings")
    if isinstance(settings, dict):
        lines = [*_settings_lines(row, settings)]
    else:
        lines = [Line(NOT_KNOWN, "settings", row.preset, "not in the file", "it was made by another program")]
    if isinstance(model, dict) and model:
        lines += _model_lines(model)
    if row.judge is not None:
        said = header.get(JUDGE)
        judge = said.get("model") if isinstance(said, dict) else None
        if judge is None:
            lines.append(Line(NOT_KNOWN, "who judged", row.judge, "nobody yet", "`flashsloth eval score --judge-url`"))
        else:
            lines.append(_line("who judged", row.judge, str(judge), EFFECTS["judge"]))
    asked = header[DATA]["items"] if DATA in header else len(predictions)
    data = _data_lines(settings_of(task, header["preset"]), [one.id for one in predictions], asked)
    return task, Comparison(f"run {path}", tuple(lines)), Comparison(f"questions of {path}", tuple(data))


def _settings_lines(published: TaskSettings, found: Mapping[str, Any]) -> Iterator[Line]:
    for name in COMPARED:
        there = getattr(published, name)
        if name not in found:
            yield Line(NOT_KNOWN, COMPARED[name], in_words(name, there), "not said")
        elif there is not None or found[name] is not None:
            yield _setting_line(name, there, found[name])


def _setting_line(name: str, published: Any, found: Any) -> Line:
    effect = effect_of(name, published, found)
    return _line(COMPARED[name], in_words(name, published), in_words(name, found), effect)


def _line(what: str, published: str, found: str, effect: str) -> Line:
    if published == found:
        return Line(SAME, what, published, found)
    return Line(DIFFERS, what, published, found, effect)


def _model_lines(model: Mapping[str, Any]) -> Iterator[Line]:
    dtype = model.get("dtype")
    if dtype is None:
        yield Line(NOT_KNOWN, "precision", PUBLISHED_DTYPE, "not said", "the server knows")
    else:
        yield _line("precision", PUBLISHED_DTYPE, str(dtype), "single answers, where two tokens are about as likely")
    if model.get("kind") == "flashsloth":
        quantized = str(model.get("quantize") or "no")
        yield _line("quantized weights", "no", quantized, "lower, by how much is for `eval compare` to say")
        resolution = str(model.get("resolution") or "the model's own")
        yield _line("resolution", "the model's own", resolution, "small print is read worse at less, better at more")


def compare_data(task: str, preset: str, ids: Sequence[str], where: Path) -> Comparison:
    """The questions of a folder."""
    return Comparison(f"data {where}", tuple(_data_lines(settings_of(task, preset), ids, len(ids))))


def no_data(task: str, why: str) -> Comparison:
    """What stands for data that are not there."""
    return Comparison(
        "data", (Line(NOT_KNOWN, "questions", f"{settings_of(task).size:,}", "not looked at", why),), is_there=False
    )


def _data_lines(row: TaskSettings, ids: Sequence[str], asked: int) -> Iterator[Line]:
    yield _questions_line(row, asked)
    if len(ids) < asked:
        yield Line(NOT_KNOWN, "which", row.ids or NOT_KNOWN, "not all are answered yet")
    elif row.ids is None:
        yield Line(
            NOT_KNOWN, "which", "no digest is known", ids_digest(ids), "the digest of the same files is the same"
        )
    elif row.size == asked:
        yield _line(
            "which", row.ids, ids_digest(ids), "other questions, or another version: figures cannot be compared"
        )


def _questions_line(row: TaskSettings, count: int) -> Line:
    line = _line("questions", f"{row.size:,}", f"{count:,}", "other questions, or a part of them")
    return line if line.state == SAME else replace(line, half_width=row.half_width_of(count))


def compare_lmms_eval(task: str, lmms: LmmsEval | None) -> Comparison:
    """A task of an lmms-eval.

    Raises:
        EvaluationError: where one of its files cannot be read.
    """
    if lmms is None:
        why = "not installed here; --lmms-eval FOLDER names one"
        return Comparison(
            "lmms-eval", (Line(NOT_KNOWN, "settings", SOURCES[PAPER], "not looked at", why),), is_there=False
        )
    row = settings_of(task)
    found = lmms.read_task(task, row.lmms_task)
    if found is None:
        path = lmms.folder / "tasks" / task / f"{row.lmms_task}.yaml"
        return Comparison(lmms.name, (Line(NOT_KNOWN, "settings", row.lmms_task, "no such task", f"no {path}"),))
    return Comparison(lmms.name, tuple(_lmms_lines(row, found)))


def _lmms_lines(row: TaskSettings, found: LmmsTask) -> Iterator[Line]:
    config, known = found.config, settings_of(row.task, LMMS)
    is_known = found.digest == LMMS_RULES.get(row.task)
    for name, key in (("dataset", "dataset_path"), ("config", "dataset_name"), ("split", "test_split")):
        if getattr(row, name) is not None or config.get(key) is not None:
            yield _setting_line(name, getattr(row, name), config.get(key))
    yield from _prompt_lines(row, known, config, is_known)
    yield from _generation_lines(row, _group(config, "generation_kwargs"))
    if is_known:
        yield _setting_line("scorer", row.scorer, known.scorer)
    else:
        why = "its code is not 0.7.3's: read its utils.py before you compare figures"
        yield Line(NOT_KNOWN, COMPARED["scorer"], row.scorer, "its code decides", why)
    if row.judge is not None:
        if found.judge is None:
            yield Line(NOT_KNOWN, COMPARED["judge"], row.judge, "its code decides")
        else:
            yield _line(COMPARED["judge"], row.judge, found.judge, f"{EFFECTS['judge']}; $MODEL_VERSION names another")
    listed = config.get("metric_list")
    metrics = [str(one.get("metric")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    is_there = set(row.lmms_metrics) <= set(metrics)
    shown = " + ".join(row.lmms_metrics if is_there else [one for one in metrics if one != "submission"])
    yield _line("score's name", " + ".join(row.lmms_metrics), shown, "only the name, if what is right is the same")
    version = "of lmms-eval 0.7.3"
    shown = version if is_known else found.digest
    yield _line("its code", version, shown, "another version asks or counts otherwise: read both before you compare")


def _prompt_lines(row: TaskSettings, known: TaskSettings, config: Mapping[str, Any], is_known: bool) -> Iterator[Line]:
    specific = _group(_group(config, "lmms_eval_specific_kwargs"), "default")
    style = known.style if is_known else STYLES_IN_LMMS.get(str(specific.get("shot_type")))
    if style is None:
        yield Line(NOT_KNOWN, COMPARED["style"], in_words("style", row.style), "its code decides")
    else:
        yield _setting_line("style", row.style, STYLES_IN_LMMS.get(str(specific.get("shot_type")), style))
    keys = {"before": "pre_prompt", "after": "post_prompt", "after_open": "open_ended_prompt"}
    if "multiple_choice_prompt" in specific:
        keys["after"] = "multiple_choice_prompt"
    for name, key in keys.items():
        there = getattr(row, name)
        if there is None:
            continue
        if key in specific:
            said = str(specific[key])
            is_same = said == there or (
                key in ("multiple_choice_prompt", "open_ended_prompt") and said == there.strip()
            )
            yield _setting_line(name, there, there if is_same else said)
        elif is_known:
            yield _setting_line(name, there, getattr(known, name))
        else:
            yield Line(NOT_KNOWN, COMPARED[name], in_words(name, there), "its code decides")
    yield _setting_line("pictures_first", row.pictures_first, "doc_to_messages" not in config)


def _generation_lines(row: TaskSettings, generation: Mapping[str, Any]) -> Iterator[Line]:
    yield _setting_line("max_tokens", row.max_tokens, generation.get("max_new_tokens", NOT_SET))
    for name in ("temperature", "top_p"):
        there = getattr(row, name)
        if name in generation:
            yield _setting_line(name, float(there), _number(generation[name]))
        elif name == "temperature" or row.temperature:
            yield Line(NOT_KNOWN, COMPARED[name], in_words(name, there), "not set", "the model's adapter there decides")
    if row.temperature and generation.get("do_sample") is False:
        effect = "the published adapter drew in spite of it; others may not, and then give the same figure every time"
        yield Line(DIFFERS, "draws", "yes", "do_sample: false", effect)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) else value


def _group(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}
