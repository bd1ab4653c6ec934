"""The passes that are recorded: a token of each row, prompts of one shape, and the image encoder.

In: what stands in static memory; for the encoder, views as the processor makes them. Out: logits, and the likeliest
tokens, while keys and values stay in the cache; features, as the model's `get_image_features` gives them.

Nothing here asks the device what a tensor holds, so each pass can be recorded (see `cuda_graph.py`). The model's own
forward checks its inputs, which asks; these passes run the same modules on inputs that are known to be right.

Legend: n rows of a pass, T columns of a pass, W visible columns, M pictures a row, Q query tokens, N
pictures, G views a picture, P patches and R visual tokens a picture, V and D widths of encoder and language model, K
vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch

from flashsloth.inference.engine.cuda_graph import Pass, Recordings, StagedInts, Tensors, Watchable, bucket
from flashsloth.inference.engine.graph_prompts import NOWHERE, PromptInputs, PromptShape, PromptTensors
from flashsloth.inference.kv_cache import PassCache, StaticKVCache, causal_mask
from flashsloth.inference.sampling import sampled_ids
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import _EMBQ_KWARG, FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures

NOT_FINITE = -1
"""In the place of the likeliest token, where some logits are not finite."""
PICTURES = (1, 2, 4, 8)
"""Pictures of one pass are rounded up to one of these."""


class GraphPasses:
    """Both passes, replayed where they are recorded.

    Args:
        model: what answers.
        cache: arranged before a pass.
        recordings: of the model's device.
        pad_token_id: what stands where nothing does.

    Attributes:
        step_inputs: [2, most rows], the last tokens of rows and their positions.
        prompt_inputs: what passes over prompts read.
        watchable: called once a pass.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        cache: StaticKVCache,
        recordings: Recordings,
        pad_token_id: int,
    ) -> None:
        self._model, self._cache, self._recordings = model, cache, recordings
        self.watchable = Watchable()
        self.step_inputs = StagedInts(2 * cache.most_rows, model.device)
        self.prompt_inputs = PromptInputs(model.config, pad_token_id, model.dtype, model.device)
        never, vocabulary = sampled_ids(model)
        self._never = torch.zeros(vocabulary, dtype=torch.bool, device=model.device)
        self._never[never] = True

    def step(self, rows: int, width: int) -> Tensors:
        """A token of each of the first rows: logits float [n, K], and likeliest tokens int64 [n]."""
        return self._run(self._step_key(rows, width), partial(self._step, rows, width))

    def prompts(self, shape: PromptShape) -> Tensors:
        """Prompts of one shape: logits float [n, K] after the last position of each, and likeliest tokens int64 [n]."""
        return self._run(self._prompts_key(shape), partial(self._prompts, shape))

    def has_step(self, rows: int, width: int) -> bool:
        """Whether a step is recorded."""
        return self._step_key(rows, width) in self._recordings

    def has_prompts(self, shape: PromptShape) -> bool:
        """Whether a pass over prompts is recorded."""
        return self._prompts_key(shape) in self._recordings

    def _run(self, key: Hashable, run: Pass) -> Tensors:
        output: Tensors = self.watchable(self._recordings.run, key, run, self._static)
        return output

    def _step_key(self, rows: int, width: int) -> Hashable:
        return "step", rows, width, self._cache.columns

    def _prompts_key(self, shape: PromptShape) -> Hashable:
        return "prompts", *shape, self._cache.columns

    @property
    def _static(self) -> list[torch.Tensor]:
        """All that the passes read and write, weights aside."""
        blocks = [memory for side in self._cache.memory for memory in side]
        return [*blocks, self.step_inputs.held, *self.prompt_inputs.static, self._never]

    def _step(self, rows: int, width: int) -> Tensors:
        tokens, positions = self.step_inputs.held.view(2, -1)[:, :rows, None]  # [n, 1] each
        output = self._model.model.language_model(
            input_ids=tokens,
            attention_mask=causal_mask(positions, width),
            position_ids=positions,
            use_cache=True,
            **{self._model.model.cache_argument: PassCache(self._cache, (0, rows), positions, width)},
        )
        return self._scored(output.last_hidden_state[:, -1])

    def _prompts(self, shape: PromptShape) -> Tensors:
        given = self.prompt_inputs.tensors(shape)
        steps = torch.arange(shape.length, device=given.ids.device)
        columns = given.start[:, None] + steps  # [n, T]
        output = self._model.model.language_model(
            inputs_embeds=self._embedded(given),
            attention_mask=None if shape.begins else causal_mask(columns, shape.width),  # None: causal
            position_ids=given.start[:, None] + torch.minimum(steps, given.last[:, None]),
            use_cache=True,
            **{self._model.model.cache_argument: PassCache(self._cache, given.row, columns, shape.width)},
            **({_EMBQ_KWARG: _queries(given)} if shape.pictures else {}),
        )
        row = torch.arange(shape.rows, device=steps.device)
        return self._scored(output.last_hidden_state[row, given.last])

    def _embedded(self, given: PromptTensors) -> torch.Tensor:
        """What enters the language model, float [n, T, D]: words, and visual and query tokens in their places."""
        core = self._model.model
        embeddings = core.get_input_embeddings()
        states = embeddings(given.ids)
        anchor = embeddings(torch.full((1,), core.config.anchor_token_id, device=given.ids.device))[0]
        queries = core.query_tokens(anchor).to(states.dtype)  # [Q, D]
        place = given.query_place
        states = torch.where(place[..., None] == NOWHERE, states, queries[place.clamp(min=0)])
        if not given.visible.shape[1]:
            return states
        row, place = torch.arange(len(states), device=states.device)[:, None], given.visual_place
        visual = given.visual.to(states.dtype)[row, place.clamp(min=0)]  # [n, T, D]
        return torch.where(place[..., None] == NOWHERE, states, visual)

    def _scored(self, states: torch.Tensor) -> Tensors:
        """Logits float [n, K] of states float [n, D], and int64 [n], the likeliest token that may be generated."""
        logits: torch.Tensor = self._model.lm_head(states)
        likeliest = logits.masked_fill(self._never, -torch.inf).argmax(dim=-1)
        return logits, torch.where(logits.isfinite().all(dim=-1), likeliest, NOT_FINITE)


def _queries(given: PromptTensors) -> EmbeddedQueryInputs:
    """One turn a row, its question in any of the columns; a row that may attend to no picture stays as it is."""
    rows, length = given.in_question.shape
    row = torch.arange(rows, device=given.in_question.device)
    first = row[:, None] * length  # of each row in the flattened batch
    patches = given.features.shape[1] // given.visible.shape[1]
    return EmbeddedQueryInputs(
        query_index=first + given.query_index,
        question_index=first + torch.arange(length, device=row.device),
        question_mask=given.in_question > 0,
        features=given.features,
        feature_row=row,
        feature_mask=given.visible[..., None].expand(-1, -1, patches).flatten(1),  # [n, M * P]
    )


class GraphEncoder:
    """In the place of :attr:`flashsloth.inference.vision.ImageEncoder.encode`.

    Args:
        model: whose encoder.
        recordings: of the model's device.

    Attributes:
        watchable: called once a replayed pass.
    """

    def __init__(self, model: FlashSlothForConditionalGeneration, recordings: Recordings) -> None:
        self._model, self._recordings = model, recordings
        self.watchable = Watchable()
        self._pixels: torch.Tensor | None = None  # float32 [8, G, 3, size, size]

    @torch.no_grad()
    def __call__(self, views: torch.Tensor) -> FlashSlothImageFeatures:
        """Features of views float [N, G, 3, size, size], in memory of their own."""
        parts = [self._encode(some) for some in views.split(PICTURES[-1])]
        joined: dict[str, Any] = {
            name: torch.cat([part[name] for part in parts]) if len(parts) > 1 else tensor
            for name, tensor in parts[0].items()
        }
        return FlashSlothImageFeatures(**joined)

    @torch.no_grad()
    def warm_up(self, pictures: int) -> int:
        """Record passes over up to so many pictures; how many are recorded then."""
        if self._pixels is None:
            config = self._model.config
            size = config.vision_config.image_size
            self._pixels = torch.zeros(PICTURES[-1], config.num_views, 3, size, size, device=self._model.device)
        counts = [count for count in PICTURES if count <= bucket(pictures, PICTURES)]
        for count in reversed(counts):
            self._replay(count)
        return sum(self._key(count) in self._recordings for count in counts)

    def _encode(self, views: torch.Tensor) -> FlashSlothImageFeatures:
        """Features of at most 8 pictures: replayed if that is recorded, else plain, as an HD model's whole views."""
        count = bucket(len(views), PICTURES)
        if (
            self._pixels is None
            or views.shape[1:] != self._pixels.shape[1:]
            or self._key(count) not in self._recordings
        ):
            return self._model.get_image_features(_pinned(views, self._model.device).to(self._model.device))
        with self._recordings.lock:
            self._pixels[: len(views)].copy_(_pinned(views, self._model.device), non_blocking=True)
            features, tokens = (tensor[: len(views)].clone() for tensor in self._replay(count))
        return FlashSlothImageFeatures(last_hidden_state=features, pooler_output=tokens)

    def _replay(self, count: int) -> tuple[torch.Tensor, ...]:
        """Features [count, P, V] and visual tokens [count, R, D] of the first pictures of the memory."""
        assert self._pixels is not None
        output: tuple[torch.Tensor, ...] = self.watchable(
            self._recordings.run, self._key(count), partial(self._pass, count), [self._pixels]
        )
        return output

    def _pass(self, count: int) -> tuple[torch.Tensor, ...]:
        assert self._pixels is not None
        features = self._model.get_image_features(self._pixels[:count])
        return features.last_hidden_state, features.pooler_output

    def _key(self, count: int) -> Hashable:
        return "pictures", count


def _pinned(views: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Views from where a CUDA device can fetch them by itself; elsewhere as they are."""
    return views.pin_memory() if device.type == "cuda" and views.device.type == "cpu" else views
