"""The words of the world: names of shapes and colours, their plurals and articles."""

import re

KINDS = ("shape", "color", "presence", "count", "relation", "reading", "chart", "choice", "unknown")

SHAPES = (
    "circle",
    "square",
    "rectangle",
    "triangle",
    "star",
    "hexagon",
    "oval",
    "diamond",
    "pentagon",
    "heart",
    "cross",
)
SHAPE_WEIGHTS = (16, 16, 12, 14, 12, 12, 5, 5, 5, 5, 5)

COLORS = (
    "red", "green", "blue", "yellow", "orange", "purple", "black", "gray", "white", "pink", "brown", "cyan",
)  # fmt: skip
COLOR_WEIGHTS = (10, 10, 10, 10, 10, 10, 10, 10, 4, 4, 4, 4)

# Shapes that a careful reader may also call by the other's name: never denied, never offered against each other.
LOOSE_NAMES = {"rectangle": ("square",), "oval": ("circle",), "diamond": ("square",)}

POSITIONS = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip
OPTION_LETTERS = ("A", "B", "C", "D")
YES, NO = "yes", "no"
UNKNOWN = "I can't tell"

_WORD = re.compile(r"[A-Za-z]+")


def article(phrase: str) -> str:
    """`phrase` behind its indefinite article: "a red circle", "an orange square"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def plural(noun: str) -> str:
    """The plural of one of the world's nouns: "circles", "crosses", "boxes"."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def words_of(text: str) -> list[str]:
    """The runs of letters in `text`, in order, case as it stands."""
    return _WORD.findall(text)
