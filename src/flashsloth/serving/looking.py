"""Where the model looked, and at which resolution: what a request may ask beside OpenAI's interface, and the reply.

    {"attention": "sap" | "embq" | true, "resolution": "standard" | "hd" | "auto", "raw_text": true}

Maps are base64 of little-endian float16, row by row: as JSON numbers, those of one picture would take 60 kB.

    sap    [g, g], what each visual token takes of the patches of its window
    embq   [Q, g, g], what each query takes of each patch

They lie on the model's square view; `box` says where the picture lies in it: left, top, right, bottom from 0 to 1.
Of an HD model they are those of the whole view, and with `"tiles": true` those of the tiles follow.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from flashsloth.inference.answer import Answer
from flashsloth.inference.visual_attention import Attention
from flashsloth.serving.generation import Generation
from flashsloth.serving.openai_schema import FlashSlothOptions

SAP, EMBQ = "sap", "embq"
DIGITS = 4
"""Of a second."""


def looked_options(asked: FlashSlothOptions | None) -> dict[str, Any]:
    """Options of an answer."""
    if asked is None:
        return {}
    given: dict[str, Any] = {"attention": bool(asked.attention), "resolution": asked.resolution}
    if asked.resolution_threshold is not None:
        given["resolution_threshold"] = asked.resolution_threshold
    return given


def described_looking(asked: FlashSlothOptions, generation: Generation, answer: Answer) -> dict[str, Any]:
    """The reply to what was asked."""
    times = {name: round(value, DIGITS) for name, value in vars(generation.times).items() if value is not None}
    found: dict[str, Any] = {"resolution": answer.resolution, "times": times}
    if asked.raw_text:
        found["raw_text"] = generation.raw_text(answer)
    if asked.attention:
        found["attention"] = {"pictures": [_described(one, asked) for one in answer.attention]}
    return found


def _described(attention: Attention, asked: FlashSlothOptions) -> dict[str, Any]:
    found = {"box": list(attention.box), "share": attention.share, **_maps(attention, 0, asked)}
    if asked.tiles:
        width, height = attention.size
        found["tiles"] = [
            {"box": [left / width, top / height, right / width, bottom / height], **_maps(attention, view + 1, asked)}
            for view, (left, top, right, bottom) in enumerate(attention.boxes[1:].tolist())
        ]
    return found


def _maps(attention: Attention, view: int, asked: FlashSlothOptions) -> dict[str, Any]:
    saliency, queries = attention.saliency[view], attention.queries[:, view]
    found: dict[str, Any] = {"grid": list(saliency.shape)}
    if asked.attention != EMBQ:
        found[SAP] = _base64(saliency)
    if asked.attention != SAP:
        found[EMBQ] = _base64(queries)
    return found


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<f2").tobytes()).decode("ascii")
