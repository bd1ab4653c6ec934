"""MiniCPM-V 2: SigLIP on the whole picture and its slices, 64 visual tokens each (a resampler).

In: a picture. Out: its views. Transformers has no MiniCPM-V 2; this is its shape, composed of what transformers has:
its SigLIP, run at the views' own sizes, and Granite, which has MiniCPM-2.4B's layers and its scaled residuals. The
resampler is ours. Sizes: openbmb/MiniCPM-V-2.

Pictures are prepared with Pillow, to the sizes the published code gives: 640x480 becomes a whole of 518x392 and two
slices of 364x546, 192 visual tokens in all.

Legend: N views of one size, P patches of each, V vision width, D language-model width, Q queries (64), B batch,
T positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import GraniteConfig, GraniteForCausalLM, SiglipVisionConfig, SiglipVisionModel
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

from flashsloth.benchmark.models.baseline import ATTENTION, Baseline, Prepared, normalized
from flashsloth.benchmark.timing import ENCODER, LANGUAGE, POOLING, Parts
from flashsloth.errors import BenchmarkError

LAYERS, WIDTH = 40, 2304
HEAD_WIDTH = 64
DEPTH_SCALE, EMBEDDING_SCALE, BASE_WIDTH = 1.4, 12.0, 256
"""MiniCPM's scaling: of residuals by the depth, of embeddings, of logits by the width."""
VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,  # of 27: the last is dropped
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
TEXT = {
    "vocab_size": 122_753,
    "hidden_size": WIDTH,
    "intermediate_size": 5760,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": WIDTH // HEAD_WIDTH,
    "num_key_value_heads": WIDTH // HEAD_WIDTH,
    "max_position_embeddings": 4096,
    "residual_multiplier": DEPTH_SCALE / math.sqrt(LAYERS),
    "attention_multiplier": HEAD_WIDTH**-0.5,
    "logits_scaling": WIDTH / BASE_WIDTH,
    "tie_word_embeddings": True,
}
QUERIES = 64
RESAMPLER_HEAD_WIDTH = 128
SCALE_RESOLUTION = 448
"""Views have about as many pixels as a square of this side."""
MOST_SLICES = 9
IMAGE_ID, START_ID, END_ID, SLICE_START_ID, SLICE_END_ID = 0, 101, 102, 111, 112
POSITION_BASE = 10_000
NORM_EPS = 1e-6
WHOLE, SLICES = "whole", "slices"


class MiniCpmV2Config:
    """Its two models' sizes."""

    def __init__(self, vision_config: SiglipVisionConfig, text_config: GraniteConfig) -> None:
        self.vision_config, self.text_config = vision_config, text_config


class MiniCpmV2Model(nn.Module):
    """SigLIP, a resampler and a language model."""

    def __init__(self, config: MiniCpmV2Config, dtype: torch.dtype) -> None:
        super().__init__()
        self.vision_tower = SiglipVisionModel._from_config(
            config.vision_config, dtype=dtype, attn_implementation=ATTENTION
        )
        self.llm = GraniteForCausalLM._from_config(config.text_config, dtype=dtype, attn_implementation=ATTENTION)
        self.resampler = MiniCpmV2Resampler(config.vision_config.hidden_size, config.text_config.hidden_size, dtype)
        self.patch_size = config.vision_config.patch_size

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        whole: torch.Tensor,
        slices: torch.Tensor,
        **options: Any,  # transformers' own
    ) -> torch.Tensor:
        """Generate after prompts int64 [B, T] with views float [B, 3, height, width], and so many slices each."""
        batch = len(input_ids)
        visual = [self._look(views).view(batch, -1, self.resampler.width) for views in (whole, slices)]
        embeddings = self.llm.get_input_embeddings()(input_ids) * EMBEDDING_SCALE  # [B, T, D]
        places = (input_ids == IMAGE_ID).unsqueeze(-1)
        embeddings = embeddings.masked_scatter(places, torch.cat(visual, dim=1).to(embeddings.dtype))
        return self.llm.generate(inputs_embeds=embeddings, **options)

    def _look(self, views: torch.Tensor) -> torch.Tensor:
        """float [N, 3, height, width] -> [N, Q, D]."""
        grid = views.shape[2] // self.patch_size, views.shape[3] // self.patch_size
        features = self.vision_tower(pixel_values=views, interpolate_pos_encoding=True).last_hidden_state  # [N, P, V]
        return self.resampler(features, grid)


class MiniCpmV2Resampler(nn.Module):
    """Queries that attend to a view's patches: float [N, P, V] -> [N, Q, D]."""

    def __init__(self, vision_width: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.width, heads = width, max(1, width // RESAMPLER_HEAD_WIDTH)
        self.query = nn.Parameter(torch.empty(QUERIES, width, dtype=dtype))
        self.narrow = nn.Linear(vision_width, width, bias=False, dtype=dtype)
        self.norm_query, self.norm_image, self.norm_out = (
            nn.LayerNorm(width, eps=NORM_EPS, dtype=dtype) for _ in range(3)
        )
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True, dtype=dtype)
        self.project = nn.Linear(width, width, bias=False, dtype=dtype)
        self._positions: dict[tuple[int, int], torch.Tensor] = {}

    def forward(self, features: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        image = self.norm_image(self.narrow(features))  # [N, P, D]
        queries = self.norm_query(self.query).expand(len(features), -1, -1)  # [N, Q, D]
        keys = image + self._position(grid, image)
        attended, _ = self.attention(queries, keys, image, need_weights=False)  # [N, Q, D]
        return self.project(self.norm_out(attended))

    def _position(self, grid: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
        """Sines and cosines of each patch's column and row, [P, D]; made once a grid."""
        if grid not in self._positions:
            rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
            waves = [_waves(places.flatten(), self.width // 2) for places in (columns, rows)]
            self._positions[grid] = torch.cat(waves, dim=-1).to(like)
        return self._positions[grid]


class MiniCpmV2(Baseline):
    """MiniCPM-V 2."""

    @staticmethod
    def true_config() -> MiniCpmV2Config:
        return MiniCpmV2Config(SiglipVisionConfig(**VISION), GraniteConfig(**TEXT))

    @property
    def image_id(self) -> int:
        return IMAGE_ID

    @property
    def marker_ids(self) -> tuple[int, ...]:
        return START_ID, END_ID, SLICE_START_ID, SLICE_END_ID

    def make_model(self, dtype: torch.dtype) -> nn.Module:
        return MiniCpmV2Model(self.config, dtype)

    def parts(self, model: Any) -> Parts:
        return {
            ENCODER: (model.vision_tower,),
            POOLING: (model.resampler,),
            LANGUAGE: (model.llm.model, model.llm.lm_head),
        }

    def embeddings(self, model: Any) -> nn.Module:
        return model.llm.get_input_embeddings()

    def prepare(self, picture: Image.Image) -> Prepared:
        """The whole float [1, 3, height, width], and all slices float [N, 3, height, width]."""
        side = self.config.vision_config.patch_size
        whole = picture.resize(view_size(picture.width, picture.height, side), Image.Resampling.BICUBIC)
        return {WHOLE: _pixels([whole]), SLICES: _pixels(list(cut(picture, side)))}

    def picture_ids(self, prepared: Prepared) -> list[int]:
        one = [START_ID, *[IMAGE_ID] * QUERIES, END_ID]
        return [*one, SLICE_START_ID, *one * len(prepared[SLICES]), SLICE_END_ID]


def view_size(width: float, height: float, unit: int) -> tuple[int, int]:
    """About as many pixels as a square of `SCALE_RESOLUTION`, in the same shape, in multiples of `unit`."""
    ratio = width / height
    new_height = int(SCALE_RESOLUTION / math.sqrt(ratio))
    return _multiple(int(new_height * ratio), unit), _multiple(new_height, unit)


def slice_grid(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of slices: of as many as its pixels need, one more or less, those nearest to its shape.

    Raises:
        BenchmarkError: for a picture so small that it is not sliced.
    """
    wanted = min(math.ceil(width * height / SCALE_RESOLUTION**2), MOST_SLICES)
    if wanted <= 1:
        raise BenchmarkError(f"a picture of {width}x{height} is not sliced; expected a larger one")
    numbers = [number for number in (wanted - 1, wanted, wanted + 1) if 1 < number <= MOST_SLICES]
    grids = [(columns, n // columns) for n in numbers for columns in range(1, n + 1) if n % columns == 0]
    return min(grids, key=lambda grid: abs(math.log(width / height) - math.log(grid[0] / grid[1])))


def cut(picture: Image.Image, unit: int) -> Iterator[Image.Image]:
    """The slices of a picture, row by row, all of one size."""
    columns, rows = slice_grid(picture.width, picture.height)
    whole = _multiple(picture.width, columns), _multiple(picture.height, rows)
    width, height = view_size(whole[0] / columns, whole[1] / rows, unit)
    large = picture.resize((width * columns, height * rows), Image.Resampling.BICUBIC)
    for row in range(rows):
        for column in range(columns):
            left, top = column * width, row * height
            yield large.crop((left, top, left + width, top + height))


def _pixels(views: list[Image.Image]) -> torch.Tensor:
    """float [N, 3, height, width]."""
    stacked = torch.stack([normalized(view, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD) for view in views])
    return stacked.permute(0, 3, 1, 2)


def _multiple(length: float, unit: int) -> int:
    return max(round(length / unit) * unit, unit)


def _waves(places: torch.Tensor, width: int) -> torch.Tensor:
    """[P] -> [P, width]: sines, then cosines."""
    frequencies = POSITION_BASE ** -(torch.arange(width // 2) / (width / 2))
    angles = places[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
