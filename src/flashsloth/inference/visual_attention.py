"""What the model attended to in each picture of a question: arrays, where they lie in the picture, and a painting.

    attention_of    recorded weights (`model/attention_maps.py`) and the pictures' sizes to an :class:`Attention` each
    paint           pictures and their attention to one picture, with a row for each:

        What does it say?
        Sun
        [ picture ]   [ EmbQ over it: the mean of all queries ]   [ SAP over it ]

In a painting the picture in dim grey is nothing, pale yellow the most: of EmbQ in any of the pictures, of SAP in that
one. Views that overlap, as HD's tiles and its whole view do, are added, a patch weighing the more the smaller it is.
What lies on the grey around a picture is left out, and the caption says how much of the queries' attention that was.

Legend: W views a picture, g x g patches a view, r x r windows (visual tokens) a view of k x k patches, Q queries,
h x w pixels of a panel.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flashsloth.model.attention_maps import AttentionWeights
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

PANEL = 400
"""Pixels of a panel's longer side."""
NARROWEST = 340
"""Pixels across that a panel's caption needs."""
MARGIN, LINE, FONT_SIZE = 12, 20, 14
"""Pixels between panels, from line to line, and of letters."""
LETTER = 7
"""Pixels across that a letter takes, about."""
PAPER, INK = "white", "black"
COLOURS = np.array(
    [
        (0, 0, 0),
        (36, 14, 84),
        (104, 22, 122),
        (170, 42, 112),
        (226, 78, 78),
        (250, 136, 40),
        (250, 196, 66),
        (252, 252, 190),
    ]
)
"""From nothing to the most: each a step lighter than the one before, so that it reads in grey as well."""
DIMMED = 0.4
"""How much of the picture's own light, in grey, shows where there is no attention."""
MENTIONED = 0.01
"""The least share of the attention that a caption mentions."""


@dataclass(frozen=True, eq=False)
class Attention:
    """What the model attended to in one picture.

    Attributes:
        size: (width, height) of the picture, as it was opened: upright.
        boxes: float64 [W, 4], what the patches of each view cover: left, top, right, bottom in pixels of the picture.
            Beyond the picture lies the grey on which it was laid.
        sap: float32 [W, r, r, k, k], what each visual token takes of the patches of its window; these sum to one.
        queries: float32 [Q, W, g, g], what each query takes of each patch; a query sums to one over all pictures.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    sap: np.ndarray
    queries: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Where the picture lies in the first view: left, top, right, bottom, 0 to 1 along the sides of its patches.

        More than 1 where the view's last pixels are too few for a patch.
        """
        left, top, right, bottom = map(float, self.boxes[0])
        across, down = right - left, bottom - top
        return (0 - left) / across, (0 - top) / down, (self.size[0] - left) / across, (self.size[1] - top) / down

    @property
    def share(self) -> float:
        """How much of the queries' attention this picture has: 1 where it is the only one."""
        return float(self.queries.sum(axis=(1, 2, 3)).mean())

    @property
    def saliency(self) -> np.ndarray:
        """SAP's weights patch by patch, float32 [W, g, g]."""
        views, rows, _, side, _ = self.sap.shape
        return self.sap.swapaxes(2, 3).reshape(views, rows * side, rows * side)


def attention_of(
    weights: AttentionWeights | None,
    sizes: Sequence[tuple[int, int]],
    config: FlashSlothConfig,
    image_processor: FlashSlothImageProcessorPil,
) -> tuple[Attention, ...]:
    """What a turn attended to, a picture at a time, in their order.

    Args:
        weights: of the turn; None where it has no picture.
        sizes: (width, height) of the turn's pictures, as they were opened.
        config: the model's.
        image_processor: what made their views.

    Raises:
        ValueError: if there are more or fewer sizes than pictures.
    """
    pictures = 0 if weights is None else len(weights.sap)
    if pictures != len(sizes):
        raise ValueError(f"attention is of {pictures} pictures, but {len(sizes)} sizes were given: give one a picture")
    if weights is None:
        return ()
    covered = config.patch_grid * config.vision_config.patch_size / config.vision_config.image_size
    return tuple(
        Attention(size, _patch_boxes(image_processor.view_boxes(size)[: len(sap)], covered), sap, queries)
        for size, sap, queries in zip(sizes, weights.sap, weights.queries, strict=True)
    )


def _patch_boxes(views: np.ndarray, covered: float) -> np.ndarray:
    """The upper left part of each view, float64 [W, 4], that is made of whole patches: 378 of 384 pixels in SigLIP."""
    corner, span = views[:, :2], views[:, 2:] - views[:, :2]
    return np.concatenate([corner, corner + covered * span], axis=1)


def paint(
    pictures: Sequence[Image.Image], attentions: Sequence[Attention], question: str = "", answer: str = ""
) -> Image.Image:
    """Paint what the model attended to.

    Args:
        pictures: as they were opened.
        attentions: one a picture.
        question, answer: written above, where they are given, in Pillow's own font, which has Latin letters alone.

    Returns:
        An RGB picture.

    Raises:
        ValueError: if there is no picture, or another number of them, or one of another size than its attention.
    """
    _check(pictures, attentions)
    maps = [_heat(one.queries.mean(axis=0), one) for one in attentions]
    most = max(float(one.max()) for one in maps)
    rows = []
    for picture, attention, queries in zip(pictures, attentions, maps, strict=True):
        small = picture.convert("RGB").resize(_panel_size(picture.size), Image.Resampling.LANCZOS)
        saliency = _heat(attention.saliency, attention)
        limits = (queries, most), (saliency, float(saliency.max()))
        painted = [_over(small, heat / (limit or 1)) for heat, limit in limits]
        rows.append(([small, *painted], ["Picture", *_captions(attention, len(pictures))]))
    return _page(rows, [question, answer])


def _check(pictures: Sequence[Image.Image], attentions: Sequence[Attention]) -> None:
    if not pictures or len(pictures) != len(attentions):
        raise ValueError(
            f"{len(pictures)} pictures with attention of {len(attentions)}, expected as many, and at least 1"
        )
    for picture, attention in zip(pictures, attentions, strict=True):
        if picture.size != attention.size:
            raise ValueError(
                f"a picture has {picture.size} pixels, expected {attention.size}: give it as it was opened"
            )


def _panel_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = PANEL / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _heat(weights: np.ndarray, attention: Attention) -> np.ndarray:
    """Weights of patches, float [W, g, g], where they lie in the picture: float64 [h, w].

    A patch of the first view counts as it is, one that covers a quarter of that area four times.
    """
    size = _panel_size(attention.size)
    areas = np.prod(attention.boxes[:, 2:] - attention.boxes[:, :2], axis=1)
    heat = np.zeros(size[::-1])
    for view, box, area in zip(weights, attention.boxes, areas, strict=True):
        heat += _laid(view, box, attention.size, size) * areas[0] / area
    return heat


def _laid(view: np.ndarray, box: np.ndarray, whole: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A view's patches, float [g, g], which cover `box` of a picture of size `whole`, as [h, w]; zero elsewhere."""
    (left, top), (across, down) = box[:2], box[2:] - box[:2]
    rows, columns = view.shape
    extent = (
        -left / across * columns,
        -top / down * rows,
        (whole[0] - left) / across * columns,
        (whole[1] - top) / down * rows,
    )  # of the picture, in patches
    image = Image.fromarray(view.astype(np.float32))
    laid = image.transform(size, Image.Transform.EXTENT, extent, Image.Resampling.BICUBIC)
    return np.asarray(laid, np.float64).clip(min=0)  # which bicubic falls short of beside a peak


def _over(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Heat of 0 to 1, float [h, w], in colours over the picture in grey."""
    steps = np.linspace(0, 1, len(COLOURS))
    colours = np.stack([np.interp(heat, steps, band) for band in COLOURS.T], axis=-1)  # [h, w, 3]
    grey = np.asarray(picture.convert("L"), np.float64)[..., None]  # [h, w, 1]
    painted = colours + DIMMED * grey * (1 - heat[..., None])
    return Image.fromarray(np.rint(painted).clip(0, 255).astype(np.uint8))


def _captions(attention: Attention, pictures: int) -> tuple[str, str]:
    """What stands under EmbQ's panel and SAP's."""
    beside = attention.share - _inside(attention)
    notes = [f"{attention.share:.0%} here"] if pictures > 1 else []
    notes += [f"{beside:.0%} beside it"] if beside >= MENTIONED else []
    said = f" ({', '.join(notes)})" if notes else ""
    return f"EmbQ: where the queries looked{said}", "SAP: what visual tokens were made of"


def _inside(attention: Attention) -> float:
    """How much of the queries' attention lies on the picture itself, by the part of each patch that does."""
    total = 0.0
    for view, box in zip(attention.queries.mean(axis=0), attention.boxes, strict=True):
        down, across = (_covered(box[axis::2], attention.size[axis], view.shape[1 - axis]) for axis in (1, 0))
        total += float(down @ view @ across)
    return total


def _covered(span: np.ndarray, length: int, patches: int) -> np.ndarray:
    """How much of each patch along one side of a view, which covers `span`, lies between 0 and `length`: [patches]."""
    edges = np.linspace(span[0], span[1], patches + 1)
    inside = np.clip(edges, 0, length)
    return np.diff(inside) / np.diff(edges)


def _page(rows: list[tuple[list[Image.Image], list[str]]], titles: list[str]) -> Image.Image:
    """Rows of panels with captions, under titles."""
    cell = max(NARROWEST, *(panels[0].width for panels, _ in rows))
    columns = len(rows[0][0])
    width = MARGIN + columns * (cell + MARGIN)
    lines = [line for title in titles for line in textwrap.wrap(title, int((width - 2 * MARGIN) / LETTER))]
    head = MARGIN + len(lines) * LINE
    page = Image.new("RGB", (width, head + sum(panels[0].height + LINE + MARGIN for panels, _ in rows)), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        draw.text((MARGIN, MARGIN / 2 + number * LINE), line, INK, font)
    top = head
    for panels, captions in rows:
        for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
            left = MARGIN + column * (cell + MARGIN)
            page.paste(panel, (left, top))
            draw.text((left, top + panel.height + 2), caption, INK, font)
        top += panels[0].height + LINE + MARGIN
    return page
