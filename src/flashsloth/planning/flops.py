"""How much work a FlashSloth is, told from its configuration alone: no weights, no model in memory.

In: a :class:`FlashSlothConfig`, a :class:`Workload`, and the :class:`Precision` that numbers are stored in. Out: a
:class:`Cost`: parameters, floating-point operations (FLOPs) of each part, bytes that a generated token reads, and bytes
that must be held.

FLOPs are counted by formula, in less than a millisecond: products of matrices, two operations for each multiplication,
masked attention too. That is what torch's counter finds (:func:`counting`, for models that have no formula here), but
the counter has to run the model, and takes about two seconds for the published size even without numbers. The encoder
and the language model are transformers', of any family: their shapes are read off the model on the meta device (see
`model_shape.py`). What stands between them is ours, and has formulas here.

Legend: W views a picture, P patches and R windows a view, V vision width, D language-model width, E query width,
Q query tokens, K patches of all pictures of a prompt, L tokens of its question.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from flashsloth.checkpoint.inspect import PARTS
from flashsloth.errors import BenchmarkError
from flashsloth.kernels.cpu_linear import GROUP_SIZE, INT4_OUTPUTS_STEP
from flashsloth.media.limits import cause
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.planning import NEW_TOKENS, TEXT_TOKENS
from flashsloth.planning.model_shape import FLOPS_PER_WEIGHT, Matrix, Tower, read_tower

ENCODER, SAP, PROJECTOR, QUERIES, EMBQ, LANGUAGE_MODEL, HEAD = PARTS
COLOR_CHANNELS = 3
INT4_A_BYTE = 2
INT4_SCALES = 2
"""A scale and a zero for each group."""


@dataclass(frozen=True)
class Precision:
    """What numbers are stored as.

    Attributes:
        dtype: what is computed in, and stored where nothing is quantized.
        quantize: "int8" or "int4" for the language model's matrices; None for none.
    """

    dtype: torch.dtype
    quantize: str | None = None

    @property
    def computed(self) -> str:
        """The type that is computed in: "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def stored(self) -> str:
        """The type of most weights that a generated token reads: "bfloat16" or "int4"."""
        return self.quantize or self.computed

    @property
    def itemsize(self) -> int:
        """Bytes of a number that is not quantized."""
        return self.dtype.itemsize

    def matrix_bytes(self, matrix: Matrix) -> int:
        """Bytes of one of the language model's matrices."""
        if self.quantize is None or not matrix.is_linear:
            return matrix.size * self.itemsize
        if self.quantize == "int4" and matrix.inputs % GROUP_SIZE == 0 and matrix.outputs % INT4_OUTPUTS_STEP == 0:
            groups = matrix.size // GROUP_SIZE
            return matrix.size // INT4_A_BYTE + groups * INT4_SCALES * self.itemsize
        return self._int8_bytes(matrix)

    def head_bytes(self, matrix: Matrix) -> int:
        """Bytes of the head's matrix, which keeps eight bits where the others have four."""
        return matrix.size * self.itemsize if self.quantize is None else self._int8_bytes(matrix)

    def _int8_bytes(self, matrix: Matrix) -> int:
        return matrix.size + matrix.outputs * self.itemsize  # one scale an output


def check_counts(owner: Any, **least: int) -> None:
    """Check fields that count something, and make `int` of a number of another kind (numpy's).

    Raises:
        BenchmarkError: for one that is not a whole number of at least so much.
    """
    for name, lowest in least.items():
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
            raise BenchmarkError(f"{name} is {value!r}; expected a whole number, at least {lowest}")
        object.__setattr__(owner, name, int(value))


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        pictures: pictures of each prompt.
        text_tokens: text of each prompt, system text and question and all; visual and query tokens come on top.
        new_tokens: tokens of each answer.
        batch: prompts that are answered at once.
    """

    pictures: int = 1
    text_tokens: int = TEXT_TOKENS
    new_tokens: int = NEW_TOKENS
    batch: int = 1

    def __post_init__(self) -> None:
        check_counts(self, pictures=0, text_tokens=1, new_tokens=1, batch=1)

    @property
    def all_pictures(self) -> int:
        """Pictures of all prompts."""
        return self.pictures * self.batch


@dataclass(frozen=True)
class Cost:
    """A FlashSloth's work; made by :meth:`of`.

    Attributes:
        config: its configuration.
        parameters: part -> numbers, named as `flashsloth info` names them; a head that is tied counts with the
            embeddings.
        encoder, language_model: what is read off transformers' models.
        sequence: positions of a view in the encoder: its patches, and a class token where there is one.
    """

    config: FlashSlothConfig
    parameters: dict[str, int]
    encoder: Tower
    language_model: Tower
    sequence: int

    @classmethod
    def of(cls, config: FlashSlothConfig) -> Cost:
        """Read a configuration.

        Raises:
            BenchmarkError: for an encoder or a language model whose work cannot be told.
        """
        try:
            with torch.device("meta"):
                made = FlashSlothForConditionalGeneration._from_config(copy.deepcopy(config))
        except Exception as error:  # sizes that do not go together meet an error of any kind, somewhere in a layer
            raise BenchmarkError(f"no model can be made of this configuration ({cause(error)})") from error
        parameters = dict.fromkeys(PARTS, 0)
        for name, parameter in made.named_parameters():
            parameters[next(part for part, prefix in PARTS.items() if name.startswith(prefix))] += parameter.numel()
        language_model = made.model.language_model
        return cls(
            config,
            parameters,
            read_tower(made.model.vision_tower, config.vision_tower_config()),
            read_tower(language_model, language_model.config),
            _encoder_sequence(config),
        )

    @property
    def head(self) -> Matrix:
        """The head's matrix."""
        text: Any = self.config.text_config
        return Matrix(text.hidden_size, text.vocab_size)

    def weight_bytes(self, precision: Precision, *, copies_head: bool) -> int:
        """Bytes of all weights; `copies_head` where a head tied to the embeddings is stored once more."""
        counts = self.parameters
        stored_head = copies_head or not self.config.tie_word_embeddings
        others = sum(counts.values()) - counts[LANGUAGE_MODEL] - counts[HEAD] + self._head_bias
        return (
            others * precision.itemsize
            + self.language_model.looked_up * precision.itemsize
            + self._layer_bytes(precision)
            + (precision.head_bytes(self.head) if stored_head else 0)
        )

    # What it computes

    def positions(self, work: Workload) -> int:
        """Positions of each prompt: its text, its pictures' visual tokens, its query tokens."""
        config = self.config
        return work.text_tokens + work.pictures * config.num_image_tokens + config.num_query_tokens

    def prompt_flops(self, work: Workload) -> dict[str, int]:
        """Part -> FLOPs up to the first token of every answer."""
        positions = self.positions(work)
        return {
            **self.encode_flops(work.all_pictures),
            EMBQ: work.batch * self._embq_flops(work) if work.pictures else 0,
            LANGUAGE_MODEL: work.batch * self.language_model.flops(positions, positions),
            HEAD: work.batch * FLOPS_PER_WEIGHT * self.head.size,
        }

    def encode_flops(self, pictures: int) -> dict[str, int]:
        """Part -> FLOPs of looking at pictures."""
        config, (vision, text, _) = self.config, self.widths
        views = pictures * config.num_views
        patches, windows = views * config.num_patches, views * config.num_windows
        encoder = views * self.encoder.flops(self.sequence, self.sequence) + _product(
            patches, self.encoder.patch_weights, 1
        )
        return {
            ENCODER: encoder,
            # the scorer's two layers, and the weighted sum
            SAP: _product(patches, vision, vision) + 2 * _product(patches, vision, 1),
            PROJECTOR: _product(windows, vision, text) + _product(windows, text, text),
        }

    def step_flops(self, attended: float, batch: int) -> int:
        """FLOPs of the next token of every answer, attending to as many positions (its own included)."""
        per_row = self.language_model.flops(1, 0) + FLOPS_PER_WEIGHT * self.head.size
        attention = self.language_model.flops(1, 1) - self.language_model.flops(1, 0)
        return int(batch * (per_row + attention * attended))

    # What it reads and holds

    def step_bytes(self, precision: Precision) -> int:
        """Bytes of weights that one generated token reads, whatever the batch; keys and values not counted."""
        bias = self._head_bias * precision.itemsize
        return self._layer_bytes(precision) + precision.head_bytes(self.head) + bias

    def key_value_bytes(self, precision: Precision) -> int:
        """Bytes of keys and values a position."""
        return self.language_model.key_values * precision.itemsize

    def feature_bytes(self, precision: Precision, pictures: int) -> int:
        """Bytes of what is kept of pictures that were looked at: F and the visual tokens."""
        config, (vision, text, _) = self.config, self.widths
        numbers = config.num_patches * vision + config.num_windows * text
        return pictures * config.num_views * numbers * precision.itemsize

    # What the above has in common

    @property
    def widths(self) -> tuple[int, int, int]:
        """V, D, E."""
        config = self.config
        return config.vision_config.hidden_size, config.text_config.hidden_size, config.query_size

    @property
    def _head_bias(self) -> int:
        """Numbers of the head's bias."""
        return self.config.text_config.vocab_size if self.config.lm_head_bias else 0

    def _layer_bytes(self, precision: Precision) -> int:
        """Bytes of the language model without its embeddings."""
        tower = self.language_model
        matrices = sum(precision.matrix_bytes(matrix) for matrix in tower.matrices)
        return matrices + (tower.parameters - tower.looked_up - tower.matrix_weights) * precision.itemsize

    def _embq_flops(self, work: Workload) -> int:
        """EmbQ for one prompt; its question is taken for the whole text, which costs next to nothing."""
        config, (vision, text, query) = self.config, self.widths
        queries, question = config.num_query_tokens, work.text_tokens
        patches = work.pictures * config.num_views * config.num_patches
        asks = (
            _product(queries + question, text, query)
            + _product(queries + 2 * question, query, query)
            + 2 * _product(queries, question, query)
        )
        looks = (
            _product(patches, vision, query)
            + _product(queries + patches, query, query)
            + _product(patches, vision, vision)
            + _product(queries, patches, query)
            + _product(queries, patches, vision)
        )
        return asks + looks + _product(queries, vision, text)


def _encoder_sequence(config: FlashSlothConfig) -> int:
    """How many positions the encoder makes of a view, by its first layer's word."""
    tower_config = config.vision_tower_config()
    tower_config.num_hidden_layers = 1
    side = config.vision_config.image_size
    with torch.device("meta"), torch.no_grad():
        output = AutoModel.from_config(tower_config)(
            pixel_values=torch.zeros(1, COLOR_CHANNELS, side, side), return_dict=True
        )
    return output.last_hidden_state.shape[1]


def _product(rows: int, inner: int, columns: int) -> int:
    """FLOPs of [rows, inner] @ [inner, columns]."""
    return FLOPS_PER_WEIGHT * rows * inner * columns


def counting() -> FlopCounterMode:
    """Torch's counter of what runs in a `with` block, taught the one operator of a processor's attention it lacks."""
    operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={operator: _attention_flops})


def _attention_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    *arguments: Any,  # what else the operator takes; it changes nothing
    out_shape: Any = None,
    **options: Any,
) -> int:
    """Of shapes [B, heads, N, width]: queries with keys, weights with values; heads as the queries have."""
    batch, heads, positions, width = query
    return FLOPS_PER_WEIGHT * batch * heads * positions * key[2] * (width + value[3])
