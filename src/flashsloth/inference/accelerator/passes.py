"""The three passes on an accelerator, as functions of tensors alone: nothing in them depends on what a tensor holds.

    look    pixels -> features and visual tokens
    read    rows of prompts, or the rest of them -> logits after each row's last position; EmbQ acts here, and only here
    step    a token a row -> logits of the next

What positions hold was worked out on the processor (`prompt_rows.py`), so that the accelerator is asked nothing. The
model's own `forward` checks its inputs, which asks; these passes run the same modules on inputs that are known.

Legend: n rows, T columns of the pass, C columns of the cache, W columns seen, N pictures, v views a picture, M pictures
a row, P patches and R visual tokens a picture, V and D widths of encoder and language model, Q query tokens, K
vocabulary.
"""

from __future__ import annotations

import torch

from flashsloth.inference.accelerator.slot_cache import PassCache
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import _EMBQ_KWARG, FlashSlothForConditionalGeneration

IDS, VISUAL_PLACE, QUERY_PLACE, IN_QUESTION = range(4)
"""Rows of a reading pass's marks."""
SLOT, START, LAST = range(3)
"""Rows of a reading pass's limits."""
NOWHERE = -1
"""The place of what is no visual token, or no query token."""

LayerTensors = list[torch.Tensor]


class Passes:
    """A model's passes. For answering: no gradients."""

    def __init__(self, model: FlashSlothForConditionalGeneration) -> None:
        self._model = model
        self._anchor = torch.tensor(model.config.anchor_token_id, device=model.device)
        self._cache_argument = model.model.cache_argument

    def look(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [N, P, V] and visual tokens [N, R, D] of pixels float [N, v, 3, size, size]."""
        seen = self._model.get_image_features(pixels)
        return seen.last_hidden_state, seen.pooler_output

    def step(
        self, keys: LayerTensors, values: LayerTensors, tokens: torch.Tensor, positions: torch.Tensor, width: int
    ) -> torch.Tensor:
        """Logits [n, K] after `tokens` int64 [n], which stand at `positions` int64 [n] of the first n rows."""
        count = tokens.shape[0]
        rows = torch.arange(count, device=tokens.device)
        place = rows * keys[0].shape[1] + positions
        columns = torch.arange(width, device=tokens.device)
        mask = (columns[None] <= positions[:, None])[:, None, None]  # bool [n, 1, 1, W]
        output = self._model.model.language_model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=positions[:, None],
            use_cache=True,
            **{self._cache_argument: PassCache(keys, values, place, None, count, width)},
        )
        return self._model.lm_head(output.last_hidden_state[:, -1])

    def read(
        self,
        keys: LayerTensors,
        values: LayerTensors,
        marks: torch.Tensor,
        limits: torch.Tensor,
        query_index: torch.Tensor,
        features: torch.Tensor | None,
        visual: torch.Tensor | None,
        visible: torch.Tensor | None,
        width: int,
    ) -> torch.Tensor:
        """Logits [n, K] after the last position of each row.

        Args:
            keys, values: float [rows, C, heads, width] of each layer.
            marks: int64 [4, n, T]: ids, places of visual tokens and of query tokens, and what is the question.
            limits: int64 [3, n]: each row's row in the cache, first position, and last column of the pass.
            query_index: int64 [n, Q], columns of the row's query tokens; any Q columns where it has none.
            features: float [n, M * P, V], or None where no row needs any.
            visual: float [n, M * R, D], with `features`.
            visible: bool [n, M], which pictures a row's queries may look at, with `features`.
            width: W.
        """
        slot, start, last = limits[SLOT], limits[START], limits[LAST]
        count, length = marks.shape[1:]
        device = marks.device
        row = torch.arange(count, device=device)
        positions = start[:, None] + torch.arange(length, device=device)  # [n, T]
        held = keys[0].shape[1]
        place = slot[:, None] * held + positions.clamp(max=held - 1)  # the last column takes what stands beyond
        columns = torch.arange(width, device=device)
        mask = (columns[None, None] <= positions[:, :, None])[:, None]  # bool [n, 1, T, W]
        states = self._states(marks, row, visual)  # [n, T, D]
        asked = {}
        if features is not None and visible is not None:
            asked[_EMBQ_KWARG] = _queries(marks[IN_QUESTION], row, query_index, features, visible)
        output = self._model.model.language_model(
            inputs_embeds=states,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **{self._cache_argument: PassCache(keys, values, place.flatten(), slot, count, width)},
            **asked,
        )
        return self._model.lm_head(output.last_hidden_state[row, last])

    def _states(self, marks: torch.Tensor, row: torch.Tensor, visual: torch.Tensor | None) -> torch.Tensor:
        """What enters the language model, float [n, T, D]: embeddings, and visual and query tokens in their places."""
        core = self._model.model
        embeddings = core.get_input_embeddings()
        states = embeddings(marks[IDS])
        queries = core.query_tokens(embeddings(self._anchor)).to(states.dtype)  # [Q, D]
        where = marks[QUERY_PLACE]
        states = torch.where(where[..., None] == NOWHERE, states, queries[where.clamp(min=0)])
        if visual is None:
            return states
        where = marks[VISUAL_PLACE]
        tokens = visual.to(states.dtype)[row[:, None], where.clamp(min=0)]  # [n, T, D]
        return torch.where(where[..., None] == NOWHERE, states, tokens)


def _queries(
    in_question: torch.Tensor,
    row: torch.Tensor,
    query_index: torch.Tensor,
    features: torch.Tensor,
    visible: torch.Tensor,
) -> EmbeddedQueryInputs:
    """One turn a row, its question sought in all columns; a row that may look at nothing stays as it is."""
    length = in_question.shape[1]
    first = row[:, None] * length  # of each row in the flattened batch
    patches = features.shape[1] // visible.shape[1]
    return EmbeddedQueryInputs(
        query_index=first + query_index,
        question_index=first + torch.arange(length, device=row.device),
        question_mask=in_question > 0,
        features=features,
        feature_row=row,
        feature_mask=visible[:, :, None].expand(-1, -1, patches).flatten(1),  # [n, M * P]
    )


__all__ = ["IDS", "IN_QUESTION", "LAST", "NOWHERE", "QUERY_PLACE", "SLOT", "START", "VISUAL_PLACE", "Passes"]
