"""What is in a picture, before any pixel is drawn: things, writing, a chart, a background.

In: the numbers that placement chose. Out: plain records that renderers, questions, captions and patch labels all read,
so that what is asked is what was drawn. Lengths are pixels of the native picture; y grows downwards.
"""

from dataclasses import dataclass, field
from typing import Literal

from flashsloth.world.colors import RGB
from flashsloth.world.fonts import Face

Point = tuple[float, float]
WritingKind = Literal["word", "letter", "number"]
BackgroundStyle = Literal["plain", "gradient", "radial", "noise", "grid"]
TextureStyle = Literal["clouds", "hills", "blend", "noise", "stripes", "scribble", "blank"]
Frame = Literal["box", "corner", "base", "none"]


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def center(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def meets(self, other: "Box", margin: float = 0.0) -> bool:
        """Whether the two come closer than `margin` to each other."""
        return (
            self.left < other.right + margin
            and other.left < self.right + margin
            and self.top < other.bottom + margin
            and other.top < self.bottom + margin
        )


@dataclass(slots=True)
class Writing:
    """A run of text. `origin` is the left end of its baseline before it is turned by `angle` about its centre."""

    text: str
    kind: WritingKind
    color: str
    rgb: RGB
    face: Face
    size: int
    origin: Point
    box: Box
    angle: float = 0.0


@dataclass(slots=True)
class Thing:
    """One shape. `outline` is its border; `stroke` > 0 draws only a line that thick, `edge` > 0 adds a dark rim."""

    shape: str
    color: str
    rgb: RGB
    center: Point
    width: float
    height: float
    rotation: float
    outline: list[Point]
    box: Box
    area: float
    stroke: float = 0.0
    edge: float = 0.0
    edge_rgb: RGB = (0, 0, 0)
    writing: Writing | None = None

    @property
    def name(self) -> str:
        """How a caption or an answer calls it: "red circle"."""
        return f"{self.color} {self.shape}"


@dataclass(slots=True)
class Bar:
    """One bar of a chart: what it stands for, where it is, and the writing beside it."""

    label: str
    value: int
    color: str
    rgb: RGB
    box: Box


@dataclass(slots=True)
class Chart:
    """A bar chart. `readable` says whether every value can be read off; `clear_gap` is the least clear difference."""

    bars: list[Bar]
    horizontal: bool
    readable: bool
    clear_gap: int
    plot: Box
    axis_rgb: RGB
    ticks: list[tuple[float, Writing | None]] = field(default_factory=list)
    grid: bool = False
    frame: Frame = "corner"
    roundness: float = 0.0
    edged: bool = False
    writings: list[Writing] = field(default_factory=list)


@dataclass(slots=True)
class Background:
    """What lies under everything. `name` is its colour's name where people would agree on one."""

    style: BackgroundStyle
    rgb: RGB
    second_rgb: RGB
    name: str | None
    angle: int = 0
    strength: int = 0

    @property
    def can_be_named(self) -> bool:
        """Whether it has one colour all over, and a name for it."""
        return self.name is not None and self.style not in ("gradient", "radial")


@dataclass(frozen=True, slots=True)
class Texture:
    """What fills a picture of nothing: its style, its colours, and the seed of the rest."""

    style: TextureStyle
    colors: tuple[RGB, ...]
    seed: int


@dataclass(slots=True)
class Scene:
    """A whole picture: its size, background, and what stands on it.

    `axes` is a thin frame with ticks around the things, as plotting libraries draw it; nothing is asked about it.
    A picture with a `texture` shows that instead of its background, and nothing else.
    """

    width: int
    height: int
    background: Background
    things: list[Thing] = field(default_factory=list)
    writings: list[Writing] = field(default_factory=list)
    chart: Chart | None = None
    axes: Box | None = None
    texture: Texture | None = None

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    @property
    def long_side(self) -> int:
        return max(self.width, self.height)
