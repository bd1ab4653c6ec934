"""What is measured: a model that is ready to do the standard job, whoever made it.

In: a picture, a question's number, how many tokens. Out: nothing but stamps on a :class:`StageClock`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import nn

from flashsloth.benchmark.stage_clock import LANGUAGE, Parts, StageClock

KEYS_AND_VALUES = 2
FULL_ATTENTION = "full_attention"
"""Transformers' word (in `layer_types`) for a layer that attends to all keys and values it has kept."""


class Subject(ABC):
    """A model that does the standard job.

    Attributes:
        model: what is run.
        visual_tokens: what the language model reads of one picture.
        positions: of one prompt: its text, its visual tokens, and what else its model puts there.
    """

    model: nn.Module
    visual_tokens: int
    positions: int

    @property
    @abstractmethod
    def parts(self) -> Parts:
        """Stage -> the modules that are run in it; looked up anew each time, since making a model faster changes it."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """What makes logits: called once a step."""

    @property
    @abstractmethod
    def step_bytes(self) -> int:
        """Bytes of weights that one generated token reads."""

    @property
    @abstractmethod
    def key_value_bytes(self) -> int:
        """Bytes of keys and values a position."""

    @property
    def recorded(self) -> int:
        """Passes that were recorded so far: while time is taken, there may be none.

        Raises:
            BenchmarkError: if some that should be could not be, so that no time means anything.
        """
        return 0

    @abstractmethod
    def answer(self, picture: Image.Image, question: int, new_tokens: int, clock: StageClock) -> None:
        """Do the job: `new_tokens` tokens about a picture in memory, each stamped when its id is known."""

    @abstractmethod
    def answer_batch(self, pictures: Sequence[Image.Image], new_tokens: int) -> None:
        """As many jobs at once, each about its own picture."""

    def answer_all(self, pictures: Sequence[Image.Image], new_tokens: int, rows: int) -> None:
        """A question about each of many pictures, as fast as it goes with `rows` at once."""
        for start in range(0, len(pictures), rows):
            self.answer_batch(pictures[start : start + rows], new_tokens)

    def forget(self) -> None:
        """Give up what is remembered of pictures; by itself a model remembers nothing."""
        return

    @property
    def parameters(self) -> int:
        """Numbers in all; those that are shared count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def step_weights(parts: Parts, embeddings: nn.Module) -> int:
    """Numbers that one generated token reads: the language model and its head, of the embeddings one row at most.

    A head that shares its matrix with the embeddings reads it whole.
    """
    language, *head = parts[LANGUAGE]
    table = {id(parameter) for parameter in embeddings.parameters()}
    body = sum(p.numel() for p in language.parameters() if id(p) not in table)
    return body + sum(p.numel() for module in head for p in module.parameters())


def key_value_numbers(text_config: Any) -> int:
    """Numbers of keys and values that a language model keeps for one position."""
    heads = text_config.num_attention_heads
    grouped = getattr(text_config, "num_key_value_heads", None)
    width = getattr(text_config, "head_dim", None)
    kinds = getattr(text_config, "layer_types", None)
    layers = text_config.num_hidden_layers if kinds is None else kinds.count(FULL_ATTENTION)
    size = text_config.hidden_size // heads if width is None else width
    return KEYS_AND_VALUES * layers * (heads if grouped is None else grouped) * size
