"""What the baselines have in common: transformers' `generate`, fed with ids in place of words.

In: a baseline's shape, its picture preparation, and which ids stand for a picture. Out: a :class:`BenchmarkModel`.

    input_ids   opening | what stands for the picture, its markers included | question | closing

Legend: B batch, T positions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import GenerationMixin
from transformers.generation.streamers import BaseStreamer

from flashsloth.benchmark.models.random_weights import make_random
from flashsloth.benchmark.timing import ENCODER, LANGUAGE, PREPARE, PROJECTOR, Parts, StageClock
from flashsloth.benchmark.workload import BenchmarkModel, StandardJob, step_weights
from flashsloth.model.loss import IGNORED_LABEL
from flashsloth.planning.model_shape import key_value_numbers

MAX_CHANNEL = 255
PAD_ID = 0
"""Fills nothing: all rows have the same length."""
ATTENTION = "sdpa"
"""Transformers' default."""

Prepared = dict[str, torch.Tensor]
"""A prepared picture: the model's inputs; several pictures are joined along the first dimension."""


class Baseline(ABC):
    """A model's shape and how its pictures are prepared.

    Args:
        config: other sizes than the true ones.

    Attributes:
        model_class: of transformers.
        part_names: where its `model` has the encoder, the projector and the language model.
    """

    model_class: ClassVar[Any]
    part_names: ClassVar[tuple[str, str, str]] = ("vision_tower", "multi_modal_projector", "language_model")

    def __init__(self, config: Any = None) -> None:
        self.config = self.true_config() if config is None else config

    @staticmethod
    @abstractmethod
    def true_config() -> Any:
        """The published sizes."""

    @property
    def image_id(self) -> int:
        """The placeholder of a visual token."""
        return self.config.image_token_id

    @property
    @abstractmethod
    def marker_ids(self) -> tuple[int, ...]:
        """Other ids that belong to pictures, and never to a text: what stands before a picture and after it first."""

    def make_model(self, dtype: torch.dtype) -> nn.Module:
        """Construct the model; it has a `generate` as transformers' models have."""
        return self.model_class._from_config(self.config, dtype=dtype, attn_implementation=ATTENTION)

    def parts(self, model: Any) -> Parts:
        """Stage -> the modules that are run in it; the language model first, then its head."""
        encoder, projector, language_model = (model.model.get_submodule(name) for name in self.part_names)
        return {ENCODER: (encoder,), PROJECTOR: (projector,), LANGUAGE: (language_model, model.lm_head)}

    @abstractmethod
    def prepare(self, picture: Image.Image) -> Prepared:
        """What the model's own processor makes of a picture."""

    def visual_tokens(self, prepared: Prepared) -> int:
        """How many a prepared picture has, where they all stand together."""
        raise NotImplementedError

    def picture_ids(self, prepared: Prepared) -> list[int]:
        """The ids that stand for a prepared picture, markers included."""
        before, after, *_ = self.marker_ids
        return [before, *[self.image_id] * self.visual_tokens(prepared), after]

    def more_inputs(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What else the model wants to know of the prompt's ids, int64 [B, T]."""
        return {}

    def embeddings(self, model: Any) -> nn.Module:
        """The language model's input embeddings."""
        return model.get_input_embeddings()


class BaselineModel(BenchmarkModel):
    """A baseline that does the standard job.

    Args:
        baseline: its shape.
        model: made by it, with weights.
        job: the standard job.
    """

    def __init__(self, baseline: Baseline, model: nn.Module, job: StandardJob) -> None:
        self.model = model
        self._baseline, self._job = baseline, job
        for module in model.modules():
            if isinstance(module, GenerationMixin):
                module.generation_config.eos_token_id = None  # nothing ends an answer but its length
        prepared = baseline.prepare(job.picture(0))
        self.visual_tokens = baseline.picture_ids(prepared).count(baseline.image_id)
        self.positions = len(self._ids(prepared, question=0))

    @property
    def parts(self) -> Parts:
        return self._baseline.parts(self.model)

    @property
    def head(self) -> nn.Module:
        return self.parts[LANGUAGE][-1]

    @property
    def step_bytes(self) -> int:
        return step_weights(self.parts, self._baseline.embeddings(self.model)) * self._dtype.itemsize

    @property
    def key_value_bytes(self) -> int:
        return key_value_numbers(self._baseline.config.text_config) * self._dtype.itemsize

    def answer(self, picture: Image.Image, question: int, new_tokens: int, clock: StageClock) -> None:
        with clock.stage(PREPARE):
            prepared = self._baseline.prepare(picture)
        self._generate([prepared], [question], new_tokens, _Stamps(clock))

    def answer_batch(self, pictures: Sequence[Image.Image], new_tokens: int) -> None:
        prepared = [self._baseline.prepare(picture) for picture in pictures]
        self._generate(prepared, list(range(len(pictures))), new_tokens, None)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _generate(
        self, prepared: list[Prepared], questions: list[int], new_tokens: int, streamer: BaseStreamer | None
    ) -> None:
        model: Any = self.model
        model.generate(
            **self.inputs(prepared, questions),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=PAD_ID,
            streamer=streamer,
        )

    def inputs(self, prepared: list[Prepared], questions: list[int]) -> dict[str, torch.Tensor]:
        """The model's inputs: a prepared picture and a question a row."""
        device = next(self.model.parameters()).device
        rows = [self._ids(one, question) for one, question in zip(prepared, questions, strict=True)]
        input_ids = torch.tensor(rows, device=device)  # [B, T]
        pictures = {name: torch.cat([one[name] for one in prepared]).to(device) for name in prepared[0]}
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            **{name: one.to(self._dtype) if one.is_floating_point() else one for name, one in pictures.items()},
            **self._baseline.more_inputs(input_ids),
        }

    def training_inputs(self, rows: int) -> dict[str, torch.Tensor]:
        """As :meth:`inputs`, of `rows` pictures and texts, with labels int64 [B, T] over all of the text."""
        baseline = self._baseline
        inputs = self.inputs([baseline.prepare(self._job.picture(row)) for row in range(rows)], list(range(rows)))
        ids = inputs["input_ids"]
        shown = torch.isin(ids, torch.tensor([baseline.image_id, *baseline.marker_ids], device=ids.device))
        return {**inputs, "labels": ids.masked_fill(shown, IGNORED_LABEL)}

    def _ids(self, prepared: Prepared, question: int) -> list[int]:
        """One prompt."""
        baseline = self._baseline
        vocabulary = baseline.config.text_config.vocab_size
        text = self._job.text(vocabulary, {baseline.image_id, *baseline.marker_ids}, question)
        return [*text.opening, *baseline.picture_ids(prepared), *text.question, *text.closing]


class _Stamps(BaseStreamer):
    """Stamps every token of a one-row generation; the prompt, which comes first, is none."""

    def __init__(self, clock: StageClock) -> None:
        self._clock = clock
        self._prompt_passed = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_passed:
            self._clock.token()
        self._prompt_passed = True

    def end(self) -> None:
        """Nothing."""


def make_baseline(baseline: Baseline, dtype: torch.dtype, device: torch.device, job: StandardJob) -> BaselineModel:
    """A baseline with random weights; the job's seed is theirs."""
    return BaselineModel(baseline, make_random(lambda: baseline.make_model(dtype), device, job.seed), job)


def normalized(picture: Image.Image, mean: Sequence[float], deviation: Sequence[float]) -> torch.Tensor:
    """(pixel / 255 - mean) / deviation, float32 [height, width, 3], of an RGB picture."""
    scaled = np.asarray(picture, dtype=np.float32) / MAX_CHANNEL
    normal = (scaled - np.array(mean, dtype=np.float32)) / np.array(deviation, dtype=np.float32)
    return torch.from_numpy(normal)
