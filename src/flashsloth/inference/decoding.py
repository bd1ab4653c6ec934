"""From prompts to tokens: one pass over the prompts, then a pass a token; rows that are done leave the batch.

In: a batch as the model takes it, keys and values of its beginning perhaps. Out: the tokens of each step, as they come.
The answers are those of transformers' `generate` with the same options; what is left out is all that a step of ours
does not need (masks of ones, copies of keys and values, float copies of logits, checks for what cannot be asked here).

Legend: B rows still answering, T columns so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from flashsloth.inference.options import Options
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.non_finite import require_finite

DROP_SHARE = 0.25
"""Finished rows leave once they are this share of the batch: leaving copies the keys and values of those that stay."""

Step = list[tuple[int, int]]
"""(row, token) of every row that is still answering."""


class Chooser:
    """Takes the likeliest token, or draws one as the options say; never a placeholder."""

    def __init__(self, options: Options, suppressed: list[int]) -> None:
        self._suppressed = torch.tensor(suppressed, dtype=torch.long)
        self._draws = options.temperature > 0
        self._warpers = LogitsProcessorList()
        if self._draws:
            self._warpers.append(TemperatureLogitsWarper(options.drawing_temperature))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(float(options.top_p)))

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Next tokens int64 [B] of `logits` float [B, V], which are written to."""
        if self._suppressed.device != logits.device:
            self._suppressed = self._suppressed.to(logits.device)  # once: an accelerator would be waited for
        logits.index_fill_(1, self._suppressed, -torch.inf)
        if not self._draws:
            return logits.argmax(dim=-1)
        no_ids = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        scores = self._warpers(no_ids, logits.float())
        return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)


class Decoding:
    """A batch that is being answered.

    Args:
        model: what answers.
        inputs: int64 [B, T]: ids, position tensors and attention mask of whole prompts, padded on the left.
        pictures: the model's inputs for their pictures.
        cache: empty, or with the first columns of `inputs` in it.
        drops_rows: whether the cache can give rows up.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        inputs: dict[str, torch.Tensor],
        pictures: dict[str, Any],
        cache: DynamicCache,
        drops_rows: bool,
    ) -> None:
        self._model, self._inputs, self._pictures = model, inputs, pictures
        self.cache, self._drops_rows = cache, drops_rows
        mask = inputs["attention_mask"]
        self._position = mask.sum(dim=-1, keepdim=True)  # [B, 1], of the next token
        self._mask = None if bool(mask.all()) else mask
        self.rows = list(range(len(mask)))  # which row of `inputs` each row of the batch is

    def steps(self, chooser: Chooser, end_ids: Collection[int], room: int) -> Iterator[Step]:
        """Every row's tokens, its end token last, at most `room` of them; a step for all rows at a time.

        Raises:
            NonFiniteError: where the model computes NaN or infinity.
        """
        logits = self._read()
        answering = [True] * len(self.rows)
        for left in range(room, 0, -1):
            tokens = chooser(logits)  # [B]
            chosen = tokens.tolist()
            yield [(row, token) for row, token, on in zip(self.rows, chosen, answering, strict=True) if on]
            answering = [on and token not in end_ids for token, on in zip(chosen, answering, strict=True)]
            if left == 1 or not any(answering):
                return
            if self._drops_rows and answering.count(False) >= DROP_SHARE * len(answering):
                kept = [place for place, on in enumerate(answering) if on]
                tokens, answering = tokens[kept], [True] * len(kept)
                self._keep(kept)
            logits = self._step(tokens)

    @torch.no_grad()
    def _read(self) -> torch.Tensor:
        """The pass over the prompts, as far as they are not cached: logits [B, V] of what follows."""
        held = self.cache.get_seq_length()
        columns = {name: values[:, held:] for name, values in self._inputs.items() if name != "attention_mask"}
        return self._logits(**columns, **self._pictures)

    @torch.no_grad()
    def _step(self, tokens: torch.Tensor) -> torch.Tensor:
        """The pass over one more token a row, int64 [B]: logits [B, V]."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        logits = self._logits(input_ids=tokens[:, None], position_ids=self._position)
        self._position = self._position + 1
        return logits

    def _logits(self, **inputs: Any) -> torch.Tensor:
        """Logits [B, V] of a pass over columns that are not cached yet.

        Raises:
            NonFiniteError: where they are not finite.
        """

        def run() -> torch.Tensor:
            outputs = self._model(
                **inputs, attention_mask=self._mask, cache=self.cache, use_cache=True, logits_to_keep=1
            )
            logits: torch.Tensor = outputs.logits[:, -1]
            return logits

        def run_again() -> None:
            self.cache.crop(-inputs["input_ids"].shape[1])
            run()

        logits = run()
        require_finite(logits, self._model, run_again)
        return logits

    @torch.no_grad()
    def _keep(self, places: list[int]) -> None:
        """Go on with some rows only."""
        index = torch.tensor(places, device=self._position.device)
        self.cache.batch_select_indices(index)
        self._position = self._position[index]
        self._mask = None if self._mask is None else self._mask[index]
        self.rows = [self.rows[place] for place in places]


__all__ = ["Chooser", "Decoding", "Step"]
