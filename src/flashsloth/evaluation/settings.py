"""Every setting of the paper's 14 benchmarks, in one table, from which everything else is made.

In: a task's name and a preset. Out: :class:`TaskSettings`. The runner, the prompts, `eval drift` and the docs read them
here and nowhere else.

    paper        the published copy of lmms-eval (codefanw/FlashSloth 881445a, `lmms_eval/tasks`)
    lmms-0.7.3   lmms-eval 0.7.3, from PyPI
    llava        LLaVA's scripts as the published code has them (`scripts/eval`, `flashsloth/eval`), for five tasks

The paper does not say which of the two harnesses gave which figure. Figures are the paper's, table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from flashsloth.errors import FlashSlothError

Preset = Literal["paper", "lmms-0.7.3", "llava"]
PRESETS: tuple[str, ...] = get_args(Preset)
PAPER, LMMS, LLAVA = PRESETS
SOURCES: dict[str, str] = {
    PAPER: "codefanw/FlashSloth 881445a, lmms_eval/tasks",
    LMMS: "lmms-eval 0.7.3",
    LLAVA: "codefanw/FlashSloth 881445a, scripts/eval",
}
"""Where each preset's settings stand."""
WHICH_HARNESS = "which of the two harnesses gave the paper's figure"

WORD_OR_PHRASE = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
SINGLE_WORD = "\nAnswer the question with a single word."
STEP_BY_STEP = (
    "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"
)
NOT_SET = 2000
"""What the published adapter took where a task sets no limit, and `model_vqa_loader.py` where its scripts set none."""


class SettingsError(FlashSlothError, ValueError):
    """There is no such task, or not in such a preset."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """A row of the table.

    Attributes:
        task, title: what is typed, and what the paper calls it.
        preset: whose settings these are.
        lmms_task: its name in lmms-eval.
        lmms_metrics: its score's name in lmms-eval; of several, their sum is the score.
        dataset, config, split: where the hub has it.
        size: questions of that split that count.
        groups: what they are counted in, where several questions count as one.
        ids: digest of their ids (see `predictions.ids_digest`); None where they are not known.
        style: how the parts of a question become its text, where there are several ways; the task knows them.
        before, after: what stands before and after the question in the prompt.
        after_open: the same after, for questions without options; None where all have, or none.
        max_tokens, temperature, top_p: of an answer.
        pictures_first: whether a prompt's pictures all come before its text, or each where `<image 1>` names it.
        scorer: which rules say what is right.
        judge: the model that the publishers had judge; None where rules do.
        metric: which of the task's figures is its score.
        paper, paper_hd: that figure of FlashSloth and FlashSloth-HD in the paper.
        not_known: what the paper does not say.
    """

    task: str
    title: str
    preset: str = PAPER
    lmms_task: str
    lmms_metrics: tuple[str, ...]
    dataset: str
    config: str | None = None
    split: str
    size: int
    groups: int | None = None
    ids: str | None = None
    style: str = ""
    before: str = ""
    after: str = ""
    after_open: str | None = None
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    pictures_first: bool = True
    scorer: str
    judge: str | None = None
    metric: str
    paper: float
    paper_hd: float
    not_known: tuple[str, ...] = ()

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval at the paper's score, in points; None where the score is no share of questions."""
        return self.half_width_of(self.size)

    def half_width_of(self, questions: int) -> float | None:
        """The same for another number of questions."""
        if self.paper > 100 or not questions:
            return None
        share, counted = self.paper / 100, questions * (self.groups or self.size) / self.size
        return 100 * 1.96 * math.sqrt(share * (1 - share) / counted)


TABLE: tuple[TaskSettings, ...] = (
    TaskSettings(
        task="pope", title="POPE", lmms_task="pope", lmms_metrics=("pope_accuracy",), dataset="lmms-lab/POPE",
        split="test", size=9000, ids="5755beca960a8bed", after=WORD_OR_PHRASE, max_tokens=128, scorer="is yes or no",
        metric="accuracy", paper=86.3, paper_hd=87.2, not_known=("whether its figure is accuracy or F1", WHICH_HARNESS),
    ),
    TaskSettings(
        task="mme", title="MME", lmms_task="mme", lmms_metrics=("mme_percetion_score", "mme_cognition_score"),
        dataset="lmms-lab/MME", split="test", size=2374, ids="2e514dd208f5ebe5", style="as stored",
        after=WORD_OR_PHRASE, max_tokens=16, scorer="yes or no in four characters", metric="total", paper=1702.0,
        paper_hd=1745.0, not_known=("whether its figure is perception + cognition", WHICH_HARNESS),
    ),
    TaskSettings(
        task="mmbench", title="MMBench", lmms_task="mmbench_en_dev", lmms_metrics=("gpt_eval_score",),
        dataset="lmms-lab/MMBench", config="en", split="dev", size=4329, groups=1164, style="several options",
        after=LETTER, max_tokens=1024, scorer="circular", judge="gpt-3.5-turbo", metric="circular", paper=73.0,
        paper_hd=75.7, not_known=(WHICH_HARNESS,),
    ),
    TaskSettings(
        task="mmvet", title="MM-Vet", lmms_task="mmvet", lmms_metrics=("gpt_eval_score",), dataset="lmms-lab/MMVet",
        split="test", size=218, ids="9df29fc209387081", before=STEP_BY_STEP, max_tokens=1024, temperature=0.2,
        scorer="graded 0 to 1", judge="gpt-4", metric="total", paper=41.9, paper_hd=49.0,
    ),
    TaskSettings(
        task="seedbench", title="SEED-Bench, images", lmms_task="seedbench", lmms_metrics=("seed_image",),
        dataset="lmms-lab/SEED-Bench", split="test", size=14233, ids="c17b5e7174ffb1f5", after=LETTER,
        max_tokens=NOT_SET, scorer="first character", metric="image", paper=68.0, paper_hd=71.2,
    ),
    TaskSettings(
        task="mmmu", title="MMMU", lmms_task="mmmu_val", lmms_metrics=("mmmu_acc",), dataset="lmms-lab/MMMU",
        split="validation", size=900, ids="40c4dc6f55979bf5", after="\n" + LETTER, after_open="\n" + WORD_OR_PHRASE,
        max_tokens=16, scorer="MMMU's parser", metric="accuracy", paper=39.7, paper_hd=37.8,
    ),
    TaskSettings(
        task="mathvista", title="MathVista", lmms_task="mathvista_testmini_format", lmms_metrics=("gpt_eval_score",),
        dataset="AI4Math/MathVista", split="testmini", size=1000, ids="373e2a01f75e0191", style="format",
        max_tokens=1024, scorer="extracted, then equal", judge="gpt-3.5-turbo", metric="accuracy", paper=42.5,
        paper_hd=40.6, not_known=("which of three prompts it used",),
    ),
    TaskSettings(
        task="gqa", title="GQA", lmms_task="gqa", lmms_metrics=("exact_match",), dataset="lmms-lab/GQA",
        config="testdev_balanced_instructions", split="testdev", size=12578, after=WORD_OR_PHRASE, max_tokens=16,
        scorer="exact match", metric="exact_match", paper=61.1, paper_hd=62.5, not_known=(WHICH_HARNESS,),
    ),
    TaskSettings(
        task="scienceqa", title="ScienceQA, pictures", lmms_task="scienceqa_img", lmms_metrics=("exact_match",),
        dataset="lmms-lab/ScienceQA", config="ScienceQA-IMG", split="test", size=2017, after=LETTER, max_tokens=16,
        scorer="is the letter", metric="image", paper=88.6, paper_hd=91.1,
    ),
    TaskSettings(
        task="textvqa", title="TextVQA", lmms_task="textvqa_val", lmms_metrics=("exact_match",),
        dataset="lmms-lab/textvqa", split="validation", size=5000, style="question", after=WORD_OR_PHRASE,
        max_tokens=NOT_SET, scorer="VQA accuracy", metric="accuracy", paper=64.6, paper_hd=71.0,
        not_known=("whether OCR tokens stood in its prompts (likely they did)", WHICH_HARNESS),
    ),
    TaskSettings(
        task="ai2d", title="AI2D", lmms_task="ai2d", lmms_metrics=("exact_match",), dataset="lmms-lab/ai2d",
        split="test", size=3088, after=LETTER, max_tokens=16, scorer="letter and a dot", metric="accuracy", paper=72.5,
        paper_hd=75.3,
    ),
    TaskSettings(
        task="chartqa", title="ChartQA", lmms_task="chartqa", lmms_metrics=("relaxed_overall",),
        dataset="lmms-lab/ChartQA", split="test", size=2500, after=SINGLE_WORD, max_tokens=16, scorer="relaxed, 5 %",
        metric="relaxed", paper=51.0, paper_hd=69.8,
    ),
    TaskSettings(
        task="docvqa", title="DocVQA", lmms_task="docvqa_val", lmms_metrics=("anls",), dataset="lmms-lab/DocVQA",
        config="DocVQA", split="validation", size=5349, after=WORD_OR_PHRASE, max_tokens=32, scorer="ANLS 0.5",
        metric="anls", paper=48.6, paper_hd=74.8,
    ),
    TaskSettings(
        task="realworldqa", title="RealWorldQA", lmms_task="realworldqa", lmms_metrics=("exact_match",),
        dataset="lmms-lab/RealWorldQA", split="test", size=765, max_tokens=16, scorer="number words and option texts",
        metric="exact_match", paper=54.8, paper_hd=59.9,
    ),
)  # fmt: skip
"""The paper's benchmarks in its order, as the published copy of lmms-eval has them."""
TASKS: dict[str, TaskSettings] = {row.task: row for row in TABLE}

LMMS_JUDGE = "gpt-4o-2024-11-20"
"""Of 0.7.3, where $MODEL_VERSION names no other."""
IN_LMMS: dict[str, dict[str, Any]] = {
    "mmmu": {"max_tokens": 128, "pictures_first": False},
    "mme": {"lmms_metrics": ("mme_perception_score", "mme_cognition_score")},
    "mathvista": {"max_tokens": 16384, "judge": LMMS_JUDGE, "lmms_metrics": ("llm_as_judge_eval",)},
    "mmbench": {"judge": LMMS_JUDGE},
    "mmvet": {"judge": LMMS_JUDGE},
    "scienceqa": {"scorer": "begins with the letter"},
    "realworldqa": {"scorer": "letter or equal"},
}
"""What lmms-eval 0.7.3 has otherwise, beside the owner of most data sets."""
LMMS_OWNER = "lmms-lab-encoder/"
"""Owner in 0.7.3 of what was `lmms-lab/`."""
IN_LLAVA: dict[str, dict[str, Any]] = {
    "pope": {
        "size": 8910,
        "ids": "3e178eb255fec1d2",
        "max_tokens": NOT_SET,
        "scorer": "yes or no somewhere",
        "metric": "mean f1",
    },
    "mme": {"max_tokens": NOT_SET, "style": "stripped", "scorer": "MME's own"},
    "mmbench": {"size": 4377, "groups": 1176, "ids": "ae1ab5791778b1e3", "style": "a line each"},
    "gqa": {"max_tokens": NOT_SET, "scorer": "GQA's own"},
    "textvqa": {"max_tokens": NOT_SET, "style": "question and OCR tokens"},
}
"""What LLaVA's scripts have otherwise, for the tasks that they have."""


def settings_of(task: str, preset: str = PAPER) -> TaskSettings:
    """A task's row, as a preset has it.

    Raises:
        SettingsError: where there is none.
    """
    if task not in TASKS:
        raise SettingsError(f"there is no task {task!r}; expected one of {', '.join(TASKS)}")
    row = TASKS[task]
    if preset == PAPER:
        return row
    if preset == LMMS:
        dataset = row.dataset.replace("lmms-lab/", LMMS_OWNER)
        return replace(row, preset=preset, dataset=dataset, **IN_LMMS.get(task, {}))
    if preset != LLAVA:
        raise SettingsError(f"preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    if task not in IN_LLAVA:
        raise SettingsError(f"LLaVA's scripts have no {task}; preset llava is for {', '.join(IN_LLAVA)}")
    return replace(row, preset=preset, **IN_LLAVA[task])
