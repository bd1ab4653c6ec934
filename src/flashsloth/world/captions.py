"""One line that describes a whole picture, in an order that never changes: top to bottom, left to right.

In: a `Scene`. Out: "a red circle top left, a blue star in the middle and a green square bottom right".
"""

from flashsloth.world.scene import Chart, Scene
from flashsloth.world.vocabulary import POSITIONS, article

# Every phrase that a caption is made of, for the closed vocabulary.
CAPTION_PHRASES = [
    "in the middle", "a bar chart", "largest", "smallest", "the word in", "the letter in", "the number in",
    "with the letter", "with the number", "and", "an empty picture", "a bar chart with wide bars",
    "nothing that I can name",
]  # fmt: skip


def cell(scene: Scene, center: tuple[float, float]) -> int:
    """Which ninth of the picture a point lies in: an index into `POSITIONS`."""
    column = min(2, int(3 * center[0] / scene.width))
    row = min(2, int(3 * center[1] / scene.height))
    return 3 * row + column


def caption(scene: Scene) -> str:
    """The caption of `scene`."""
    if scene.texture is not None:
        return "nothing that I can name"
    if scene.chart is not None:
        return _chart_caption(scene.chart)
    parts: list[tuple[tuple[int, float], str]] = []
    for thing in scene.things:
        place = cell(scene, thing.center)
        inside = f' with the {thing.writing.kind} "{thing.writing.text}"' if thing.writing else ""
        name = "in the middle" if POSITIONS[place] == "middle" else POSITIONS[place]
        parts.append(((place, thing.center[0]), f"{article(thing.name)}{inside} {name}"))
    for writing in scene.writings:
        order = cell(scene, writing.box.center), writing.box.center[0]
        parts.append((order, f'the {writing.kind} "{writing.text}" in {writing.color}'))
    phrases = [phrase for _, phrase in sorted(parts)]
    if not phrases:
        return "an empty picture"
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]


def _chart_caption(chart: Chart) -> str:
    if chart.readable:
        return "a bar chart: " + ", ".join(f"{bar.label} {bar.value}" for bar in chart.bars)
    ordered = sorted(chart.bars, key=lambda bar: bar.value)
    labels = ", ".join(bar.label for bar in chart.bars)
    return f"a bar chart: {labels}, largest {ordered[-1].label}, smallest {ordered[0].label}"
