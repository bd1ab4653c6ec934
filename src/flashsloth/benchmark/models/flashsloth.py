"""FlashSloth as it is measured: through its own engine, `flashsloth.inference.engine`.

In: a model, an image processor and the standard job. Out: a :class:`BenchmarkModel`; and models of the published size
with random weights, or the small one that ships with the package.

What a run does is what `FlashSloth.answer` does, but for the tokenizer: open the picture and make its views, then step
the engine until the answer is there. It is stepped by hand, so that what is watched happens in one thread. Nothing of a
picture is known beforehand, since every run brings a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import nn

from flashsloth.benchmark.models.random_weights import make_random
from flashsloth.benchmark.timing import ENCODER, LANGUAGE, POOLING, PREPARE, PROJECTOR, QUERY, Parts, StageClock
from flashsloth.benchmark.workload import BenchmarkModel, StandardJob, Text
from flashsloth.errors import BenchmarkError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.graph_runner import GraphRunner
from flashsloth.inference.kv_cache import round_columns
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import Prompt
from flashsloth.inference.request import Request, RequestOutput
from flashsloth.inference.sampling import Sampler
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import ImageEncoder, PreparedPictures
from flashsloth.kernels import Quantization
from flashsloth.kernels.optimize import speed_up
from flashsloth.media import ImagePolicy
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil
from flashsloth.model.loading import load_processor
from flashsloth.model.loading.folders import shipped_folder
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.prompt_layout import PromptLayout
from flashsloth.planning.flops import Cost, Precision

POLICY: ImagePolicy = "careful"
"""How pictures are opened by default."""
MOST_ROWS = 64
"""Answers at once, at most."""
MOST_TOKENS = 512
"""Of an answer, at most."""
AHEAD = 16
"""Pictures that are prepared before they are needed."""


class BenchmarkedFlashSloth(BenchmarkModel):
    """A FlashSloth that does the standard job.

    Args:
        model: on its device, in its precision, not sped up yet.
        processor: makes its views.
        tokenizer: its own, or whatever has the ids of the end and of padding: random weights speak no language.
        job: the standard job.
    """

    model: FlashSlothForConditionalGeneration

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        processor: FlashSlothImageProcessorPil,
        tokenizer: Any,
        job: StandardJob,
    ) -> None:
        self.model = model
        self._job, self._processor, self._tokenizer = job, processor, tokenizer
        self._quantize: Quantization | None = None
        self._pictures = PictureCache()
        self._make_engine()
        self._everyone = nn.Identity()  # called whenever all rows of a batch have one more token
        self.visual_tokens = model.config.num_image_tokens
        self.positions = len(self._prompt(question=0))

    def _make_engine(self, fast: bool = False) -> None:
        """An engine for the model as it is now; nothing ends its answers but their length."""
        self._pictures.clear()
        self._image_encoder = ImageEncoder(self.model, self._processor, self._pictures)
        columns = round_columns(len(self._prompt(question=0)) + MOST_TOKENS)
        config = EngineConfig(
            max_rows=MOST_ROWS, cache_bytes=MOST_ROWS * columns * self.key_value_bytes, cuda_graphs=fast
        )
        self._engine = Engine(self.model, self._tokenizer, self._image_encoder, self._pictures, config)
        self._engine.end_ids = []

    def speed_up(self, quantize: Quantization | None) -> None:
        """Make the model faster, as `load(..., optimize=True, quantize=...)` does."""
        speed_up(self.model, quantize=quantize)
        self._quantize = quantize
        self._make_engine(fast=True)
        prompts = [self._prompt(question) for question in (0, 1)]
        self._engine.runner.warm_up(MOST_ROWS, self.positions + self._job.new_tokens, prompts)

    @property
    def parts(self) -> Parts:
        runner = self._engine.runner
        if isinstance(runner, GraphRunner):  # SAP and the projector are inside the first, EmbQ inside the second
            encoder, language_model = runner.watchable
            return {ENCODER: (encoder,), LANGUAGE: (language_model,)}
        body = self.model.model
        return {
            ENCODER: (body.vision_tower,),
            POOLING: (body.spatial_attention_pooling,),
            PROJECTOR: (body.projector,),
            QUERY: (body.embedded_query,),
            LANGUAGE: (body.language_model, self.model.lm_head),
        }

    @property
    def head(self) -> nn.Module:
        return self._everyone

    @property
    def recorded(self) -> int:
        counts = self._engine.runner.counts
        if counts.degraded:
            raise BenchmarkError(f"passes run slower than they should, since they could not be recorded: {counts}")
        return counts.captured

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
        with clock.stage(PREPARE):
            shown = self._prepare(picture)
        self._step([self._request(shown, question, new_tokens)], clock.token)

    def answer_as(self, sampler: Sampler, picture: Image.Image, new_tokens: int) -> None:
        """As :meth:`answer`, with tokens chosen by another."""
        own, self._engine.sampler = self._engine.sampler, sampler
        self._step([self._request(self._prepare(picture), 0, new_tokens)])
        self._engine.sampler = own

    def cast(self, dtype: torch.dtype) -> None:
        """The same model in another precision; before it is sped up."""
        self.model.to(dtype)
        self._make_engine()

    def answer_batch(self, pictures: Sequence[Image.Image], new_tokens: int) -> None:
        shown = [self._prepare(picture) for picture in pictures]
        self._step(
            [self._request(one, number, new_tokens, keeps_prefix=False) for number, one in enumerate(shown)],
            lambda: self._everyone(None),
        )

    def answer_all(self, pictures: Sequence[Image.Image], new_tokens: int, rows: int) -> None:
        """A question about each of many pictures, so many at once; pictures are prepared in threads meanwhile."""
        coming = iter(enumerate(pictures))
        waiting: deque[tuple[int, Future[PreparedPictures]]] = deque()
        running = 0
        with ThreadPoolExecutor(self._engine.config.workers) as threads:
            while True:
                for number, picture in islice(coming, rows + AHEAD - running - len(waiting)):
                    waiting.append((number, threads.submit(self._prepare, picture)))
                while waiting and running < rows and (waiting[0][1].done() or not running):
                    number, shown = waiting.popleft()
                    self._engine.add_request(
                        self._request(shown.result(), number, new_tokens, streams=False, keeps_prefix=False)
                    )
                    running += 1
                if not running:
                    return
                running -= len(self._outputs())

    def _prepare(self, picture: Image.Image) -> PreparedPictures:
        return self._image_encoder.prepare(self._image_encoder.open(picture, POLICY))

    def _request(
        self,
        shown: PreparedPictures,
        question: int,
        new_tokens: int,
        *,
        streams: bool = True,
        keeps_prefix: bool = True,
    ) -> Request:
        params = SamplingParams(max_tokens=new_tokens)
        return Request(self._prompt(question), shown, params, streams=streams, keeps_prefix=keeps_prefix)

    def _step(self, requests: Sequence[Request], everyone: Callable[[], Any] = lambda: None) -> None:
        """Answer requests; `everyone` is called whenever each of them has one more token."""
        progress = {self._engine.add_request(one): 0 for one in requests}
        least = 0
        while self._engine.has_work:
            for output in self._outputs():
                progress[output.request_id] += len(output.tokens)
            while least < min(progress.values()):
                least += 1
                everyone()

    def _outputs(self) -> list[RequestOutput]:
        """What a step of the engine brings.

        Raises:
            Exception: what an answer ended in.
        """
        outputs = self._engine.step()
        for output in outputs:
            if output.error is not None:
                raise output.error
        return outputs

    def forget(self) -> None:
        self._pictures.clear()

    def _prompt(self, question: int) -> Prompt:
        config = self.model.config
        placeholders = {config.image_token_id, config.query_token_id}
        return make_prompt(config, self._job.text(config.text_config.vocab_size, placeholders, question))


def make_prompt(config: FlashSlothConfig, text: Text) -> Prompt:
    """The row that the processor would write: opening, picture, question, queries, closing."""
    layout = PromptLayout(config)
    layout.add_text(text.opening)
    layout.add_picture(config.num_image_tokens)
    question_start = len(layout.input_ids)
    layout.add_text(text.question)
    layout.add_queries(question_start)
    layout.add_text(text.closing)
    return Prompt(**layout.lists())


def make_published_size(
    grid: int, dtype: torch.dtype, device: torch.device, job: StandardJob, config: FlashSlothConfig | None = None
) -> BenchmarkedFlashSloth:
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
    return BenchmarkedFlashSloth(model, processor, sizes.text_config, job)


def load_shipped(dtype: torch.dtype, device: torch.device, job: StandardJob) -> BenchmarkedFlashSloth:
    """The small model inside the package, with its own weights."""
    folder = shipped_folder()
    model = FlashSlothForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(device).eval()
    processor = load_processor(folder)
    return BenchmarkedFlashSloth(model, processor.image_processor, processor.tokenizer, job)
