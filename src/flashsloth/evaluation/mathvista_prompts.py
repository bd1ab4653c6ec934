"""How MathVista's questions are asked, in three of lmms-eval's ways, and how a judge is asked what an answer says.

In: a question and its truth (see `tasks/mathvista.py`). Out: a prompt, word for word as published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flashsloth.evaluation.mathvista_answers import CHOICE, FLOAT
from flashsloth.evaluation.settings import LETTER

DIRECT = {
    CHOICE: LETTER.strip(),
    "integer": "Answer the question using a single integer number.",
    "float 1": "Answer the question using a single floating-point number with one decimal place.",
    "float 2": "Answer the question using a single floating-point number with two decimal places.",
    "list": "Answer the question using a Python list.",
}
"""What ends a prompt, by the kind of answer that is asked for."""
HINTS = {
    CHOICE: "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., "
    "1, 2, 3, at the end.",
    "float 1": "Hint: Please answer the question requiring a floating-point number with one decimal place and provide "
    "the final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "float 2": "Hint: Please answer the question requiring a floating-point number with two decimal places and provide "
    "the final value, e.g., 1.23, 1.34, 1.45, at the end.",
    "list": "Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., "
    "[1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}
"""The same, as the publishers have it."""
EXAMPLES = (
    "Please read the following example. Then extract the answer from the model response and type it at the end of "
    "the prompt.\n"
    "\n"
    "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at "
    "the end.\n"
    "Question: Which number is missing?\n"
    "\n"
    "Model response: The number missing in the sequence is 14.\n"
    "\n"
    "Extracted answer: 14\n"
    "\n"
    "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the "
    "final value, e.g., 1.2, 1.3, 1.4, at the end.\n"
    "Question: What is the fraction of females facing the camera?\n"
    "\n"
    "Model response: The fraction of females facing the camera is 0.6, which means that six out of ten females in "
    "the group are facing the camera.\n"
    "\n"
    "Extracted answer: 0.6\n"
    "\n"
    "Hint: Please answer the question requiring a floating-point number with two decimal places and provide the "
    "final value, e.g., 1.23, 1.34, 1.45, at the end.\n"
    "Question: How much money does Luca need to buy a sour apple candy and a butterscotch candy? (Unit: $)\n"
    "\n"
    "Model response: Luca needs $1.45 to buy a sour apple candy and a butterscotch candy.\n"
    "\n"
    "Extracted answer: 1.45\n"
    "\n"
    "Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, "
    "2, 3], [1.2, 1.3, 1.4], at the end.\n"
    "Question: Between which two years does the line  graph saw its maximum peak?\n"
    "\n"
    "Model response: The line graph saw its maximum peak between 2007 and 2008.\n"
    "\n"
    "Extracted answer: [2007, 2008]\n"
    "\n"
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.\n"
    "Question: What fraction of the shape is blue?\n"
    "Choices:\n"
    "(A) 3/11\n"
    "(B) 8/11\n"
    "(C) 6/11\n"
    "(D) 3/5\n"
    "\n"
    "Model response: The correct answer is (B) 8/11.\n"
    "\n"
    "Extracted answer: B"
)


"""Before what a judge is asked; MathVista's `prompts/ext_ans.py`."""


def asked_kind(truth: Mapping[str, Any]) -> str:
    """The kind of answer that is asked for, a key of :data:`HINTS`; another text where it is none of them."""
    if truth["question_type"] == CHOICE:
        return CHOICE
    kind: str = truth["answer_type"]
    return f"{kind} {truth.get('precision')}" if kind == FLOAT else kind


def parts(question: str, truth: Mapping[str, Any]) -> list[str]:
    """The question and its options, as the publishers write them."""
    listed = [f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(truth["choices"])]
    return [f"Question: {question}", *(["Choices:", *listed] if listed else [])]


def format_prompt(question: str, truth: Mapping[str, Any]) -> str:
    """lmms-eval's shortest."""
    listed = [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(truth["choices"])]
    return "\n".join([question, *listed, DIRECT[asked_kind(truth)]])


def hub_query(question: str, truth: Mapping[str, Any]) -> str:
    """The publishers' own, as the hub's column `query` has it: what the judge is shown."""
    return "\n".join([HINTS[asked_kind(truth)], *parts(question, truth)]).strip()


def judge_prompt(query: str, answer: str) -> str:
    """What asks a judge to extract an answer."""
    return f"{EXAMPLES}\n\n{query}\n\n{answer}\n\nExtracted answer: "


def step_by_step(question: str, truth: Mapping[str, Any]) -> str:
    """lmms-eval's `mathvista_testmini_cot`."""
    return "\n".join([*parts(question, truth), HINTS[asked_kind(truth)]])


def solution(question: str, truth: Mapping[str, Any]) -> str:
    """lmms-eval's `mathvista_testmini_solution`."""
    return f"{step_by_step(question, truth)}\nSolution:"


STYLES: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "format": format_prompt,
    "cot": step_by_step,
    "solution": solution,
}
