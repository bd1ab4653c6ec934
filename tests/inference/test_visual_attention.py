"""A model that looks at what is bright shows where the geometry puts its attention."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageDraw
from tiny import TinyModelMaker

from flashsloth.inference.visual_attention import (
    COLOURS,
    LINE,
    MARGIN,
    PANEL,
    Attention,
    _heat,
    _inside,
    attention_of,
    paint,
)
from flashsloth.model.attention_maps import AttentionWeights, recording_attention
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

SIZES = [(90, 90), (160, 61), (61, 160), (300, 20)]
ASPECTS = ["square", "pad"]
FINE = 96
"""Side of a view by which its geometry is measured."""


def spotted(size: tuple[int, int], spot: tuple[float, float], radius: float = 3) -> Image.Image:
    """Black, with a white spot around `spot`, in pixels."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).ellipse([place + sign * radius for sign in (-1, 1) for place in spot], "white")
    return image


def spots(size: tuple[int, int]) -> list[tuple[float, float]]:
    return [(across * size[0], down * size[1]) for across, down in itertools.product((0.3, 0.81), (0.27, 0.7))]


def bright_attention(
    image: Image.Image, config: FlashSlothConfig, processor: FlashSlothImageProcessorPil
) -> tuple[Attention, ...]:
    """Of a model whose only query takes patches by how bright they are."""
    (views,) = processor(images=[image], return_tensors="np", image_mean=0.0, image_std=1.0)["pixel_values"]
    grid, patch = config.patch_grid, config.vision_config.patch_size
    light = (views.mean(axis=1) - (views.mean(axis=1) < 0.6) * views.mean(axis=1))[:, : grid * patch, : grid * patch]
    patches = light.reshape(len(views), grid, patch, grid, patch).mean(axis=(2, 4))
    queries = (patches / patches.sum())[None, None].astype(np.float32)
    windows = grid // config.pool_size
    sap = np.full((1, len(views), windows, windows, 3, 3), 1 / 9, np.float32)
    return attention_of(AttentionWeights(sap, queries), [image.size], config, processor)


@pytest.mark.parametrize("grid", [1, 2, 3])
@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_a_view_shows_of_a_picture(size: tuple[int, int], aspect: str, grid: int) -> None:
    processor = FlashSlothImageProcessorPil(
        size={"height": FINE, "width": FINE}, image_grid=grid, image_aspect_ratio=aspect
    )
    boxes = processor.view_boxes(size)
    for spot in spots(size):
        (views,) = processor(images=[spotted(size, spot)], return_tensors="np")["pixel_values"]
        bright = views.mean(axis=1) > 0.2  # the grey of padding is 0
        assert len(boxes) == len(views)
        whole = spot_in(bright[0], boxes[0])
        assert np.abs(np.array(whole) - spot).max() < 1.5
        if grid > 1:
            tile = max(range(1, len(views)), key=lambda view: bright[view].sum())
            left, top, right, bottom = boxes[tile]
            assert left - 3 <= spot[0] <= right + 3
            assert top - 3 <= spot[1] <= bottom + 3


def spot_in(bright: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """Where the middle of what is bright in a view lies in the picture."""
    rows, columns = bright.nonzero()
    left, top, right, bottom = box
    across, down = (columns.mean() + 0.5) / bright.shape[1], (rows.mean() + 0.5) / bright.shape[0]
    return left + across * (right - left), top + down * (bottom - top)


def test_the_box_of_a_padded_picture(tiny_config: FlashSlothConfig) -> None:
    processor = FlashSlothImageProcessorPil(size={"height": 24, "width": 24}, image_aspect_ratio="pad")
    weights = AttentionWeights(np.ones((1, 1, 2, 2, 3, 3), np.float32), np.ones((1, 3, 1, 6, 6), np.float32))
    (wide,) = attention_of(weights, [(80, 40)], tiny_config, processor)
    assert wide.box == (0, 0.25, 1, 0.75)
    assert wide.boxes.tolist() == [[0, -20, 80, 60]]
    (tall,) = attention_of(weights, [(40, 80)], tiny_config, processor)
    assert tall.box == (0.25, 0, 0.75, 1)
    (squashed,) = attention_of(weights, [(80, 40)], tiny_config, FlashSlothImageProcessorPil())
    assert squashed.box == (0, 0, 1, 1)


def test_pixels_that_make_no_whole_patch_lie_beyond_the_last(tiny_tokenizer: Any) -> None:
    config = tiny.make_config(tiny_tokenizer, vision_config={**tiny.VISION, "image_size": 27})  # six patches of 4
    weights = AttentionWeights(np.ones((1, 1, 2, 2, 3, 3), np.float32), np.ones((1, 3, 1, 6, 6), np.float32))
    (found,) = attention_of(weights, [(54, 108)], config, FlashSlothImageProcessorPil())
    np.testing.assert_allclose(found.boxes, [[0, 0, 48, 96]])
    np.testing.assert_allclose(found.box, [0, 0, 27 / 24, 27 / 24])


@pytest.mark.parametrize(("image_size", "patch_size"), [(96, 4), (100, 8)])
@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_heat_lies_where_the_model_looked(
    tiny_tokenizer: Any, size: tuple[int, int], aspect: str, grid: int, image_size: int, patch_size: int
) -> None:
    """In 100 pixels of patches of 8, the last four make no patch: heat would lie 13 pixels of a panel too far."""
    vision = {**tiny.VISION, "image_size": image_size, "patch_size": patch_size}
    config = tiny.make_config(tiny_tokenizer, vision_config=vision, image_grid=grid)
    processor = FlashSlothImageProcessorPil(
        size={"height": image_size, "width": image_size}, image_grid=grid, image_aspect_ratio=aspect
    )
    for spot in spots(size):
        (attention,) = bright_attention(spotted(size, spot, 0.07 * max(size)), config, processor)
        heat = _heat(attention.queries.mean(axis=0), attention)
        rows, columns = np.indices(heat.shape) + 0.5
        found = np.array([(columns * heat).sum(), (rows * heat).sum()]) / heat.sum()
        assert np.abs(found - np.array(spot) * PANEL / max(size)).max() < 4


def test_the_painting_is_brightest_there(tiny_tokenizer: Any) -> None:
    vision = {**tiny.VISION, "image_size": 96}
    config = tiny.make_config(tiny_tokenizer, vision_config=vision, image_grid=2)
    processor = FlashSlothImageProcessorPil(size={"height": 96, "width": 96}, image_grid=2)
    size, spot = (200, 100), (160, 30)
    image = spotted(size, spot, 10)
    page = paint([image, image], 2 * bright_attention(image, config, processor))
    light = np.asarray(page.convert("L"), np.float64)
    for row in (0, 1):
        left, top = 2 * MARGIN + PANEL, MARGIN + row * (PANEL // 2 + LINE + MARGIN)
        panel = light[top : top + PANEL // 2, left : left + PANEL]
        rows, columns = (panel > 0.8 * panel.max()).nonzero()
        assert np.abs(np.array([columns.mean(), rows.mean()]) - np.array(spot) * 2).max() < 8


@pytest.mark.parametrize("grid", [1, 2])
def test_from_the_model_to_the_page(tiny_tokenizer: Any, make_tiny_model: TinyModelMaker, grid: int) -> None:
    config = tiny.make_config(tiny_tokenizer, image_grid=grid)
    processor, model = tiny.make_processor(tiny_tokenizer, config), make_tiny_model(image_grid=grid)
    pictures = [tiny.picture(1, 40, 30), tiny.picture(2, 20, 50)]
    inputs = tiny.encode(processor, [tiny.user("Which?", *pictures)])
    with torch.no_grad(), recording_attention(model) as maps:
        model(**inputs)
    found = attention_of(maps.of(), [one.size for one in pictures], config, processor.image_processor)
    assert [one.size for one in found] == [(40, 30), (20, 50)]
    assert sum(one.share for one in found) == pytest.approx(1)
    for one in found:
        np.testing.assert_allclose(one.sap.sum(axis=(-2, -1)), 1, atol=1e-6)
        np.testing.assert_array_equal(one.saliency[:, 3:, :3], one.sap[:, 1, 0])
    page = paint(pictures, found, "Which?", "The second")
    assert page.mode == "RGB"
    again = paint(pictures, found)
    assert page.height > again.height


def test_attention_beside_a_padded_picture_is_told(tiny_config: FlashSlothConfig) -> None:
    processor = FlashSlothImageProcessorPil(size={"height": 24, "width": 24}, image_aspect_ratio="pad")
    queries = np.zeros((1, 2, 1, 6, 6), np.float32)
    queries[0, 0, 0, 0, 3] = 1  # on the grey above
    queries[0, 1, 0, 1, 3] = 1  # half on the picture, which covers rows 1.5 to 4.5
    (found,) = attention_of(
        AttentionWeights(np.ones((1, 1, 2, 2, 3, 3), np.float32), queries), [(80, 40)], tiny_config, processor
    )
    assert found.share == 1
    assert _inside(found) == pytest.approx(0.25)


def test_what_does_not_fit_is_refused(tiny_config: FlashSlothConfig) -> None:
    processor = FlashSlothImageProcessorPil()
    weights = AttentionWeights(np.ones((1, 1, 2, 2, 3, 3), np.float32), np.ones((1, 3, 1, 6, 6), np.float32))
    assert attention_of(None, [], tiny_config, processor) == ()
    with pytest.raises(ValueError, match="of 1 pictures, but 2 sizes"):
        attention_of(weights, [(4, 4), (4, 4)], tiny_config, processor)
    with pytest.raises(ValueError, match="0 pictures"):
        paint([], [])
    (found,) = attention_of(weights, [(8, 4)], tiny_config, processor)
    with pytest.raises(ValueError, match=r"\(4, 8\) pixels, expected \(8, 4\)"):
        paint([Image.new("RGB", (4, 8))], [found])


def test_nothing_seen_anywhere_is_painted_too(tiny_config: FlashSlothConfig) -> None:
    weights = AttentionWeights(np.zeros((1, 1, 2, 2, 3, 3), np.float32), np.zeros((1, 3, 1, 6, 6), np.float32))
    found = attention_of(weights, [(8, 4)], tiny_config, FlashSlothImageProcessorPil())
    assert np.isfinite(np.asarray(paint([tiny.picture(1, 8, 4)], found))).all()


def test_colours_become_lighter_from_step_to_step() -> None:
    light = np.array([np.asarray(Image.new("RGB", (1, 1), tuple(map(int, one))).convert("L"))[0, 0] for one in COLOURS])
    assert (np.diff(light.astype(int)) > 10).all()
