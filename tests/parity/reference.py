"""The recorded cases of the published code, in the shape this project's model takes.

The published code wrote -200 for a picture and one `<learnable>` for all query tokens, and expanded both inside its
forward pass; here the position tensors are written out per token, as the processor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

FOLDER = Path(__file__).parent / "tiny"
IMAGE = -200
LEARNABLE, NEWLINE, END_OF_ANSWER, PAD = 500, 11, 510, 509
ANCHOR, IMAGE_TOKEN = 13, 511
USER_TAG_TOKENS = 2
"""Tokens between the end of an answer and the next turn's question: it begins with the third."""


@dataclass
class Case:
    """One recorded case: `inputs` go to the model, `recorded` is what the published code computed."""

    inputs: dict[str, torch.Tensor]
    recorded: dict[str, torch.Tensor]


@cache
def recorded_cases() -> dict[str, dict[str, torch.Tensor]]:
    """Case name -> field -> tensor."""
    cases: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(FOLDER / "cases.safetensors").items():
        case, field = name.split("/", 1)
        cases.setdefault(case, {})[field] = tensor
    return cases


def expand_row(ids: list[int], labels: list[int] | None, image_tokens: int, queries: int) -> dict[str, list[int]]:
    """Write one row's placeholders out and mark every position: lists of one length, keyed by tensor name."""
    row: dict[str, list[int]] = {name: [] for name in ("input_ids", "image_index", "query_turn", "question_turn")}
    row["labels"] = []
    pictures = turn = 0
    question_from: int | None = None

    def put(token: int, count: int = 1, image: int = 0, query: int = 0, label: int = -100) -> None:
        row["input_ids"] += [token] * count
        row["image_index"] += [image] * count
        row["query_turn"] += [query] * count
        row["question_turn"] += [0] * count
        row["labels"] += [label] * count

    for place, token in enumerate(ids):
        if token == IMAGE:
            pictures += 1
            put(IMAGE_TOKEN, image_tokens, image=pictures)
            question_from = len(row["input_ids"]) + 1  # after the newline
        elif token == LEARNABLE:
            turn += 1
            for position in range(question_from or 0, len(row["input_ids"])):
                row["question_turn"][position] = turn
            put(LEARNABLE, queries, query=turn)
        else:
            put(token, label=-100 if labels is None else labels[place])
            if token == END_OF_ANSWER:
                question_from = len(row["input_ids"]) + USER_TAG_TOKENS
    return row


def load_case(name: str, model: FlashSlothForConditionalGeneration) -> Case:
    """One case, its rows written out and padded on the right."""
    recorded = recorded_cases()[name]
    config = model.config
    rows = []
    labels = recorded.get("labels")
    mask = recorded.get("attention_mask", torch.ones_like(recorded["input_ids"]))
    for index, ids in enumerate(recorded["input_ids"]):
        real = mask[index].bool()
        row_labels = labels[index][real].tolist() if labels is not None else None
        rows.append(expand_row(ids[real].tolist(), row_labels, config.num_image_tokens, config.num_query_tokens))
    longest = max(len(row["input_ids"]) for row in rows)
    filler = {"input_ids": PAD, "labels": -100}
    inputs = {
        key: torch.tensor([row[key] + [filler.get(key, 0)] * (longest - len(row[key])) for row in rows])
        for key in rows[0]
    }
    inputs["attention_mask"] = torch.tensor(
        [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    )
    if labels is None:
        del inputs["labels"]
    has_picture = [IMAGE in row for row in recorded["input_ids"].tolist()]
    images = recorded["images"]
    inputs["pixel_values"] = (images if images.ndim == 5 else images.unsqueeze(1))[torch.tensor(has_picture)]
    inputs["image_row"] = torch.tensor(has_picture).nonzero().flatten()
    return Case(inputs, recorded)
