"""Bar charts: chooses bars, values and a style, lays them out, paints them.

In: a random stream and a picture's size; then a `Chart` and a canvas. Out: a `Chart`; then its pixels.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from flashsloth.world.background import DARK_LUMA
from flashsloth.world.colors import RGB, luma, mix, sample_contrasting
from flashsloth.world.fonts import Face, font
from flashsloth.world.scene import Background, Bar, Box, Chart, Frame, Point, Writing, WritingKind
from flashsloth.world.text import draw_writing, font_size, readable_cap, sample_face, write_at
from flashsloth.world.vocabulary import CAPITALS, COLORS, COMMON

MOST_BARS = 6
LARGEST_VALUES = (5, 8, 10, 10, 20)  # the values of one chart stay below one of these
LABEL_CAP, TICK_CAP, TINY_CAP = 9.0, 8.0, 3.5  # px after the shrink to the model's square
LINE = 1.7  # a line of writing takes this many cap heights
LETTER_LABEL_SHARE, HORIZONTAL_SHARE, ONE_COLOR_SHARE, PRINTED_SHARE = 0.65, 0.25, 0.5, 0.6
TICK_STEPS = (1, 2, 5, 10)
MOST_TICKS = 5
TENS, TENS_SHARE = 10, 0.12  # some charts count in tens
ALPHABET_SHARE = 0.45  # of the charts with letters have them in order
TICK_ROOM = 1.35  # times its width is what a number under a horizontal axis needs; else every second one is left out
CAPITAL_SHARE = 0.6  # of the words under bars begin with a capital
LABEL_ROOM = 0.82  # of the room for a label is filled at most
TINY_SHARE = 0.15  # of the axes have numbers too small to read, as plotting libraries draw them
AXIS_SHARE, GRID_SHARE, ROUND_SHARE, EDGED_SHARE = 0.4, 0.35, 0.25, 0.12
CLEAR_SHARE = 0.07  # of the axis: bars this much apart are clearly different
BAR_CONTRAST = 90.0
BAR_PITCH, PRINTED_PITCH = 1.5, 2.1  # a bar and its gap are at least this many cap heights wide
PLOT_SHARE = 0.75  # of a side, at least, is left to the bars
FRAMES: tuple[Frame, ...] = ("box", "corner", "corner", "base", "none")
PLAIN_FRAMES: tuple[Frame, ...] = ("base", "none", "corner")
ROUNDNESS, BAR_SHARE = (0.1, 0.3), (0.45, 0.85)  # of a bar's width are its corners; of its pitch is the bar
GRID_INK = 0.25  # share of the axes' colour in the grid's
ROUND_SCALE = 3  # round corners are drawn this much larger, then reduced
LABEL_WORDS = tuple(word for word in COMMON if len(word) <= 4)


@dataclass(slots=True)
class _Style:
    """How one chart is laid out. `line` is the height of a line of writing in px."""

    horizontal: bool
    printed: bool
    axis: bool
    face: Face
    size: int
    tick_size: int
    tiny_ticks: bool
    line: float
    top: int
    step: int
    ink: RGB


def sample_chart(rng: Random, size: tuple[int, int], background: Background) -> Chart:
    """A chart of 2 to 6 bars that fits a picture of `size`."""
    horizontal, printed = rng.random() < HORIZONTAL_SHARE, rng.random() < PRINTED_SHARE
    count = rng.randint(2, min(MOST_BARS, _most_bars(size, horizontal, printed)))
    unit = TENS if rng.random() < TENS_SHARE else 1
    values = [unit * value for value in _sample_values(rng, count)]
    style = _sample_style(rng, size, background, horizontal, printed, max(values), unit)
    labels = _sample_labels(rng, count, style, size)
    plot = _plot(size, style, labels, rng)
    bars = _bars(rng, plot, style, labels, values, _sample_colors(rng, count, background))
    on_ticks = all(value % style.step == 0 or style.step <= 2 * unit for value in values)
    chart = Chart(
        bars, horizontal, printed or (on_ticks and not style.tiny_ticks), max(1, round(CLEAR_SHARE * style.top)), plot,
        style.ink, frame=rng.choice(FRAMES if style.axis else PLAIN_FRAMES),
        roundness=rng.uniform(*ROUNDNESS) if rng.random() < ROUND_SHARE else 0.0, edged=rng.random() < EDGED_SHARE,
        grid=style.axis and rng.random() < GRID_SHARE,
    )  # fmt: skip
    _annotate(chart, style)
    return chart


def _sample_style(
    rng: Random, size: tuple[int, int], background: Background, horizontal: bool, printed: bool, largest: int, unit: int
) -> _Style:
    light, dark = ((255, 255, 255), (220, 220, 220)), ((0, 0, 0), (0, 0, 0), (60, 60, 60))
    ink: RGB = rng.choice(light if luma(background.rgb) < DARK_LUMA else dark)
    face = sample_face(rng)
    tiny = rng.random() < TINY_SHARE
    label_size = font_size(face, readable_cap(size, LABEL_CAP))
    tick_size = font_size(face, readable_cap(size, TINY_CAP if tiny else TICK_CAP))
    top, step = _axis(rng, largest, unit)
    axis = not printed or rng.random() < AXIS_SHARE
    line = LINE * readable_cap(size, LABEL_CAP)
    return _Style(horizontal, printed, axis, face, label_size, tick_size, tiny, line, top, step, ink)


def _most_bars(size: tuple[int, int], horizontal: bool, printed: bool) -> int:
    """How many bars leave room for their labels and their printed values."""
    cap = readable_cap(size, LABEL_CAP)
    pitch = PRINTED_PITCH if printed else BAR_PITCH
    return max(2, int(PLOT_SHARE * (size[1] / (LINE * cap) if horizontal else size[0] / (pitch * cap))))


def _sample_values(rng: Random, count: int) -> list[int]:
    """Values with one clear largest and one clear smallest, so that both can be asked for."""
    top = rng.choice(LARGEST_VALUES)
    while True:
        values = [rng.randint(1, top) for _ in range(count)]
        ordered = sorted(values)
        gap = max(1, round(CLEAR_SHARE * ordered[-1]) + (ordered[-1] > 14))
        if ordered[-1] >= 3 and ordered[-1] - ordered[-2] >= gap and ordered[1] - ordered[0] >= gap:
            return values


def _axis(rng: Random, largest: int, unit: int) -> tuple[int, int]:
    """The end of the axis and the step of its ticks."""
    step = next(unit * step for step in TICK_STEPS if largest / (unit * step) <= MOST_TICKS)
    top = -(-largest // step) * step
    room_above = top == largest and top // step < MOST_TICKS and rng.random() < 0.5
    return (top + step if room_above else top), step


def _sample_labels(rng: Random, count: int, style: _Style, size: tuple[int, int]) -> list[str]:
    """Letters in order, letters at random or, where there is room, short words."""
    room = size[0] * 0.8 / count if not style.horizontal else size[0] * 0.34
    if rng.random() > LETTER_LABEL_SHARE:
        shape = font(style.face, style.size)
        words = rng.sample(LABEL_WORDS, 60)
        words = [word.capitalize() if rng.random() < CAPITAL_SHARE else word for word in words]
        fitting = [word for word in words if shape.getlength(word) <= room * LABEL_ROOM]
        if len(fitting) >= count:
            return fitting[:count]
    if rng.random() < ALPHABET_SHARE:
        first = rng.choice((0, 0, 0, 0, 22 - count)) if count < 4 else 0
        return list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[first : first + count])
    return rng.sample(CAPITALS, count)


def _plot(size: tuple[int, int], style: _Style, labels: list[str], rng: Random) -> Box:
    """The box that the bars' axis spans: from zero to the end of the axis, across all bars."""
    width, height = size
    gap = style.line * 0.35
    label_width = max(font(style.face, style.size).getlength(label) for label in labels)
    tick_width = font(style.face, style.tick_size).getlength(str(style.top))
    value_width = font(style.face, style.size).getlength(str(style.top))
    air = rng.uniform(0.01, 0.05) * max(size)
    if style.horizontal:
        right = value_width + gap if style.printed else tick_width / 2
        bottom = style.line if style.axis else gap
        return Box(air + label_width + gap, air + gap, width - air - right - gap, height - air - bottom)
    left = tick_width + 1.5 * gap if style.axis else gap
    top = style.line if style.printed else gap
    return Box(air + left, air + top, width - air - gap, height - air - style.line)


def _sample_colors(rng: Random, count: int, background: Background) -> list[tuple[str, RGB]]:
    """A name and a colour for each bar: one for all, or all different."""
    under = (background.rgb, background.second_rgb)
    names = tuple(name for name in COLORS if name not in (background.name, "white"))
    if rng.random() < ONE_COLOR_SHARE:
        return [sample_contrasting(rng, under, names, BAR_CONTRAST)] * count
    chosen: list[tuple[str, RGB]] = []
    while len(chosen) < count:
        color = sample_contrasting(rng, under, names, BAR_CONTRAST)
        if all(color[0] != other for other, _ in chosen):
            chosen.append(color)
    return chosen


def _bars(
    rng: Random, plot: Box, style: _Style, labels: list[str], values: list[int], colors: list[tuple[str, RGB]]
) -> list[Bar]:
    share = rng.uniform(*BAR_SHARE)
    pitch = (plot.height if style.horizontal else plot.width) / len(labels)
    bars = []
    for index, (label, value, (color, rgb)) in enumerate(zip(labels, values, colors, strict=True)):
        start, end = pitch * (index + 0.5 - share / 2), pitch * (index + 0.5 + share / 2)
        if style.horizontal:
            box = Box(plot.left, plot.top + start, plot.left + plot.width * value / style.top, plot.top + end)
        else:
            box = Box(plot.left + start, plot.bottom - plot.height * value / style.top, plot.left + end, plot.bottom)
        bars.append(Bar(label, value, color, rgb, box))
    return bars


def _annotate(chart: Chart, style: _Style) -> None:
    """Adds the bars' labels, the printed values and the ticks' numbers."""
    half = style.line / 2
    plot, face = chart.plot, style.face
    for bar in chart.bars:
        x, y = bar.box.center
        length = font(face, style.size).getlength(bar.label) / 2
        label_at = (plot.left - half * 0.6 - length, y) if chart.horizontal else (x, plot.bottom + half)
        kind: WritingKind = "letter" if len(bar.label) == 1 else "word"
        chart.writings.append(_write(bar.label, kind, face, style.size, label_at, style.ink))
        if style.printed:
            width = font(face, style.size).getlength(str(bar.value)) / 2
            value_at = (bar.box.right + half * 0.5 + width, y) if chart.horizontal else (x, bar.box.top - half * 0.85)
            chart.writings.append(_write(str(bar.value), "number", face, style.size, value_at, style.ink))
    if not style.axis:
        return
    widest = TICK_ROOM * font(face, style.tick_size).getlength(str(style.top))
    every = 2 if chart.horizontal and widest > plot.width * style.step / style.top else 1
    for value in range(0, style.top + 1, style.step):
        if chart.horizontal:
            place = plot.left + plot.width * value / style.top
            at = place, plot.bottom + half
        else:
            place = plot.bottom - plot.height * value / style.top
            at = plot.left - half * 0.7 - font(face, style.tick_size).getlength(str(value)) / 2, place
        numbered = every == 1 or value // style.step % every == 0
        number = _write(str(value), "number", face, style.tick_size, at, style.ink) if numbered else None
        chart.ticks.append((place, number))


def _write(text: str, kind: WritingKind, face: Face, size: int, at: Point, ink: RGB) -> Writing:
    return write_at(text, kind, "black" if luma(ink) < DARK_LUMA else "white", ink, face, size, at)


def draw_chart(canvas: Image.Image, chart: Chart, background: Background) -> None:
    """Paints grid, bars, axes and writing."""
    pen = ImageDraw.Draw(canvas)
    plot, ink = chart.plot, chart.axis_rgb
    left, top, right, bottom = (round(side) for side in (plot.left, plot.top, plot.right, plot.bottom))
    pale = mix(background.rgb, ink, GRID_INK)
    for place, _ in chart.ticks:
        if chart.grid:
            pen.line((place, top, place, bottom) if chart.horizontal else (left, place, right, place), pale)
        tick = (place, bottom, place, bottom + 3) if chart.horizontal else (left - 3, place, left, place)
        if chart.frame != "none":
            pen.line(tick, ink)
    for bar in chart.bars:
        _draw_bar(canvas, pen, bar, chart)
    if chart.frame == "box":
        pen.rectangle((left, top, right, bottom), outline=ink)
    if chart.frame == "corner":
        pen.line((left, top, left, bottom), ink)
        pen.line((left, bottom, right, bottom), ink)
    if chart.frame == "base":
        pen.line((left, top, left, bottom) if chart.horizontal else (left, bottom, right, bottom), ink)
    for writing in [*chart.writings, *(number for _, number in chart.ticks if number is not None)]:
        draw_writing(canvas, writing)


def _draw_bar(canvas: Image.Image, pen: ImageDraw.ImageDraw, bar: Bar, chart: Chart) -> None:
    left, top, right, bottom = (round(side) for side in (bar.box.left, bar.box.top, bar.box.right, bar.box.bottom))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    if not chart.roundness:
        pen.rectangle((left, top, right - 1, bottom - 1), fill=bar.rgb, outline=chart.axis_rgb if chart.edged else None)
        return
    thick = (bottom - top) if chart.horizontal else (right - left)
    mask = Image.new("L", ((right - left) * ROUND_SCALE, (bottom - top) * ROUND_SCALE))
    corners = (False, True, True, False) if chart.horizontal else (True, True, False, False)
    radius = min(chart.roundness * thick, (right - left) / 2, (bottom - top) / 2) * ROUND_SCALE
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius, fill=255, corners=corners)
    canvas.paste(bar.rgb, (left, top, right, bottom), mask.reduce(ROUND_SCALE))
