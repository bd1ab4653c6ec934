"""FlashSloth as it is measured: through its own door, `flashsloth.inference`.

In: a model, an image processor and the standard job. Out: a :class:`Subject`; and models of the published size with
random weights, or the small one that ships with the package.

What a run does is what `FlashSloth.answer` does, but for the tokenizer: open the picture, look at it, run the prompt,
generate. Nothing of a picture is known beforehand, since every run brings a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from flashsloth.benchmark.cost import Cost
from flashsloth.benchmark.job import StandardJob, Text
from flashsloth.benchmark.random_weights import make_random
from flashsloth.benchmark.stage_clock import (
    ENCODER,
    LANGUAGE,
    POOLING,
    PREPARE,
    PROJECTOR,
    QUERY,
    Parts,
    StageClock,
)
from flashsloth.benchmark.subject import Subject
from flashsloth.benchmark.weights import Precision
from flashsloth.inference.accelerator import AcceleratorSettings, Engine, accelerate
from flashsloth.inference.accelerator.engine import Queue
from flashsloth.inference.accelerator.entrance import run_queue
from flashsloth.inference.accelerator.feeding import Feeder, Listed
from flashsloth.inference.accelerator.slots import Answering, Told
from flashsloth.inference.decoding import Chooser
from flashsloth.inference.generator import Generator, Job
from flashsloth.inference.load import shipped_folder
from flashsloth.inference.options import Options
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import Prompt
from flashsloth.inference.vision import ImageEncoder
from flashsloth.media import ImagePolicy
from flashsloth.model.checkpoint import load_processor
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.speed import Quantization, speed_up

POLICY: ImagePolicy = "careful"
"""How pictures are opened by default."""
TURN = 1


@dataclass(frozen=True)
class SpecialIds:
    """What a generator asks of a tokenizer, for models that have none: random weights speak no language."""

    eos_token_id: int | None
    pad_token_id: int | None


class ClockedProcessor:
    """An image processor whose calls are stamped as picture preparation."""

    def __init__(self, processor: FlashSlothImageProcessorPil) -> None:
        self._processor = processor
        self.clock: StageClock | None = None

    def __call__(self, images: list[Image.Image], return_tensors: str) -> Any:
        """What the processor makes of pictures."""
        if self.clock is None:
            return self._processor(images=images, return_tensors=return_tensors)
        with self.clock.stage(PREPARE):
            return self._processor(images=images, return_tensors=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The processor's settings."""
        return self._processor.to_dict()


class FlashSlothSubject(Subject):
    """A FlashSloth that does the standard job.

    Args:
        model: on its device, in its precision, not sped up yet.
        processor: makes its views.
        ids: of its tokenizer.
        job: the standard job.
    """

    model: FlashSlothForConditionalGeneration

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        processor: FlashSlothImageProcessorPil,
        ids: SpecialIds,
        job: StandardJob,
    ) -> None:
        self.model = model
        self._job = job
        self._quantize: Quantization | None = None
        self._pictures = PictureCache()
        self._processor = ClockedProcessor(processor)
        self._image_encoder = ImageEncoder(model, self._processor, self._pictures)
        self._generator = Generator(model, ids, self._pictures)
        self._generator.end_ids = []  # nothing ends an answer but its length
        self._engine: Engine | None = None
        self._everyone = nn.Identity()  # called whenever all rows of a batch have one more token
        self.visual_tokens = model.config.num_image_tokens
        self.positions = len(self._prompt(question=0))

    def speed_up(self, quantize: Quantization | None) -> None:
        """Make the model faster, as `load(..., optimize=True, quantize=...)` does."""
        speed_up(self.model, quantize=quantize)
        self._quantize = quantize
        if self.model.device.type == "cuda":
            self.accelerate()

    def accelerate(self, settings: AcceleratorSettings | None = None) -> None:
        """Let an engine answer, as `load(..., optimize=True)` does on an accelerator."""
        self._engine = accelerate(self._generator, self._image_encoder, settings)

    @property
    def parts(self) -> Parts:
        body = self.model.model
        if self._engine is not None:  # what is inside a pass is compiled into one: only the whole can be watched
            return {ENCODER: (self._engine.look,), LANGUAGE: self._engine.language_passes}
        return {
            ENCODER: (body.vision_tower,),
            POOLING: (body.spatial_attention_pooling,),
            PROJECTOR: (body.projector,),
            QUERY: (body.embedded_query,),
            LANGUAGE: (body.language_model, self.head),
        }

    @property
    def head(self) -> nn.Module:
        return self.model.lm_head if self._engine is None else self._everyone

    @property
    def step_bytes(self) -> int:
        return Cost.of(self.model.config).step_bytes(self._precision)

    @property
    def key_value_bytes(self) -> int:
        return Cost.of(self.model.config).key_value_bytes(self._precision)

    @property
    def _precision(self) -> Precision:
        return Precision(self.model.dtype, self._quantize)

    def answer(self, picture: Image.Image, question: int, new_tokens: int, clock: StageClock) -> None:
        self._processor.clock = clock
        with clock.stage(PREPARE):
            opened = self._image_encoder.open(picture, POLICY)
        job = Job(self._prompt(question), self._image_encoder.look(opened))
        for _ in self._generator.tokens(job, Options(max_new_tokens=new_tokens)):
            clock.token()

    def answer_as(self, chooser: Chooser, picture: Image.Image, new_tokens: int) -> None:
        """As :meth:`answer`, with tokens chosen by another."""
        self._processor.clock = None
        job = Job(self._prompt(question=0), self._image_encoder.look(self._image_encoder.open(picture, POLICY)))
        for _ in self._generator.tokens(job, Options(max_new_tokens=new_tokens), chooser=chooser):
            pass

    def cast(self, dtype: torch.dtype) -> None:
        """The same model in another precision; before it is sped up."""
        self.model.to(dtype)

    def answer_batch(self, pictures: Sequence[Image.Image], new_tokens: int) -> None:
        self._processor.clock = None
        seen = self._image_encoder.encode_each([self._image_encoder.open(picture, POLICY) for picture in pictures])
        jobs = [Job(self._prompt(number), one, group=number) for number, one in enumerate(seen)]
        options = Options(max_new_tokens=new_tokens)
        if self._engine is None:
            for _ in self._generator.run(jobs, options):
                pass
            return
        answers = [Answering(place, job, self._generator.room(job.prompt, options)) for place, job in enumerate(jobs)]
        progress, reached = [0] * len(jobs), [0] * (new_tokens + 1)
        for told in self._run(self._engine, Listed(answers), len(jobs), new_tokens):
            place = told.answering.place
            progress[place] += 1
            reached[progress[place]] += 1
            if reached[progress[place]] == len(jobs):
                self._everyone(None)

    def answer_all(self, pictures: Sequence[Image.Image], new_tokens: int, rows: int) -> None:
        """A question about each of many pictures, so many at once; pictures are prepared in threads meanwhile."""
        if self._engine is None:
            super().answer_all(pictures, new_tokens, rows)
            return
        self._processor.clock = None
        options = Options(max_new_tokens=new_tokens)
        feeder = Feeder(
            ((picture, number) for number, picture in enumerate(pictures)),
            lambda picture: self._image_encoder.open(picture, POLICY),
            lambda question, _: self._prompt(question),
            lambda prompt: self._generator.room(prompt, options),
            self._image_encoder,
            self._engine.settings,
        )
        with feeder:
            for _ in self._run(self._engine, feeder, rows, new_tokens):
                pass

    def _run(self, engine: Engine, queue: Queue, rows: int, new_tokens: int) -> Iterator[Told]:
        chooser = self._generator.chooser(Options())
        tokens = run_queue(self._generator, engine, queue, chooser, rows, self.positions + new_tokens)
        assert tokens is not None, "nobody else is answering"
        return tokens

    def forget(self) -> None:
        self._pictures.clear()

    def _prompt(self, question: int) -> Prompt:
        config = self.model.config
        placeholders = {config.image_token_id, config.query_token_id}
        return make_prompt(config, self._job.text(config.text_config.vocab_size, placeholders, question))


def make_prompt(config: FlashSlothConfig, text: Text) -> Prompt:
    """The row that the processor would write: opening, picture, question, queries, closing."""
    segments: list[tuple[list[int], tuple[int, int, int]]] = [  # ids, (image_index, query_turn, question_turn)
        (text.opening, (0, 0, 0)),
        ([config.image_token_id] * config.num_image_tokens, (1, 0, 0)),
        (text.question, (0, 0, TURN)),
        ([config.query_token_id] * config.num_query_tokens, (0, TURN, 0)),
        (text.closing, (0, 0, 0)),
    ]
    marks = [mark for ids, mark in segments for _ in ids]
    image_index, query_turn, question_turn = (list(column) for column in zip(*marks, strict=True))
    return Prompt([token for ids, _ in segments for token in ids], image_index, query_turn, question_turn)


def make_published_size(
    grid: int, dtype: torch.dtype, device: torch.device, job: StandardJob, config: FlashSlothConfig | None = None
) -> FlashSlothSubject:
    """FlashSloth-3.2B's size (or `config`'s) with random weights.

    Args:
        grid: 1 for the standard model, 2 for HD.
        dtype: of weights and computation.
        device: where.
        job: the standard job; its seed is the weights'.
        config: other sizes; its `image_grid` counts then.
    """
    sizes = FlashSlothConfig(image_grid=grid) if config is None else config
    model = make_random(lambda: FlashSlothForConditionalGeneration._from_config(sizes, dtype=dtype), device, job.seed)
    side = sizes.vision_config.image_size
    processor = FlashSlothImageProcessorPil(size={"height": side, "width": side}, image_grid=sizes.image_grid)
    text: Any = sizes.text_config
    return FlashSlothSubject(model, processor, SpecialIds(text.eos_token_id, text.pad_token_id), job)


def load_shipped(dtype: torch.dtype, device: torch.device, job: StandardJob) -> FlashSlothSubject:
    """The small model inside the package, with its own weights."""
    folder = shipped_folder()
    model = FlashSlothForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
    processor = load_processor(folder)
    ids = SpecialIds(processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id)
    return FlashSlothSubject(model, processor.image_processor, ids, job)
