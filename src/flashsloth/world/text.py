"""Writing: sizes and places a run of text, knows where each of its characters is, paints it.

In: a string, a face, the box it may fill. Out: a `Writing`, its characters' boxes, its pixels on a canvas.
"""

import math
from random import Random

from PIL import Image, ImageDraw

from flashsloth.world.colors import RGB, sample_legible
from flashsloth.world.fonts import Face, faces, font
from flashsloth.world.scene import Background, Box, Point, Writing, WritingKind, bounds

MODEL_SIDE = 120  # px: the square that a padded picture is shrunk to before it is read
READABLE_CAP = 9.0  # px of cap height after that shrink
SIZE_STEP = 2  # font sizes are multiples of this, so that fonts are found in the cache
TURNED_SHARE, TURN = 0.15, 10.0  # of the large writing is turned, up to so many degrees
BUILT_IN_SHARE = 0.15


def sample_face(rng: Random) -> Face:
    """A face; the built-in one a little more often than the others."""
    return faces()[0] if rng.random() < BUILT_IN_SHARE else rng.choice(faces())


def readable_cap(size: tuple[int, int], cap: float = READABLE_CAP) -> float:
    """The cap height in native pixels that becomes `cap` px when the picture is padded and shrunk."""
    return cap * max(size) / MODEL_SIDE


def font_size(face: Face, cap_height: float) -> int:
    """The font size, rounded up to a step, at which capitals are at least `cap_height` px tall."""
    return max(SIZE_STEP, math.ceil(cap_height / face.cap_height / SIZE_STEP) * SIZE_STEP)


def write_at(
    text: str, kind: WritingKind, color: str, rgb: RGB, face: Face, size: int, center: Point, angle: float = 0.0
) -> Writing:
    """A writing whose ink is centred on `center`."""
    left, top, right, bottom = font(face, size).getbbox(text, anchor="ls")
    x, y = center[0] - (left + right) / 2, center[1] - (top + bottom) / 2
    box = Box(x + left, y + top, x + right, y + bottom)
    writing = Writing(text, kind, color, rgb, face, size, (x, y), box, angle)
    if angle:
        writing.box = bounds([turned(corner, center, angle) for corner in box.corners])
    return writing


def turned(point: Point, center: Point, angle: float) -> Point:
    """`point` turned by `angle` degrees, counter-clockwise as seen, about `center`."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    dx, dy = point[0] - center[0], point[1] - center[1]
    return center[0] + cos * dx + sin * dy, center[1] - sin * dx + cos * dy


def fit_writing(
    rng: Random, text: str, kind: WritingKind, room: Box, smallest_cap: float, under: tuple[RGB, ...],
    names: tuple[str, ...], largest_share: float = 0.9,
) -> Writing | None:  # fmt: skip
    """`text` at a random size and place inside `room`, in a colour out of `names`; None if it cannot be read there."""
    face = sample_face(rng)
    left, top, right, bottom = font(face, 100).getbbox(text, anchor="ls")
    largest = 100 * min(largest_share * room.width / (right - left), largest_share * room.height / (bottom - top))
    smallest = font_size(face, smallest_cap)
    if smallest > largest:
        return None
    size = int(max(rng.uniform(smallest, largest), rng.uniform(smallest, largest))) // SIZE_STEP * SIZE_STEP
    size = max(size, smallest)
    angle = 0.0
    if rng.random() < TURNED_SHARE:
        angle = rng.uniform(-TURN, TURN)
    ink = sample_legible(rng, under, names)
    if ink is None:
        return None
    color, rgb = ink
    writing = write_at(text, kind, color, rgb, face, size, room.center, angle)
    free_x, free_y = (room.width - writing.box.width) / 2, (room.height - writing.box.height) / 2
    if free_x < 0 or free_y < 0:
        writing = write_at(text, kind, color, rgb, face, size, room.center)
        free_x, free_y = (room.width - writing.box.width) / 2, (room.height - writing.box.height) / 2
    x, y = room.center[0] + rng.uniform(-free_x, free_x), room.center[1] + rng.uniform(-free_y, free_y)
    if rng.random() < 0.4:
        x, y = room.center
    return write_at(text, kind, color, rgb, face, size, (x, y), writing.angle)


def under_of(background: Background) -> tuple[RGB, ...]:
    """The colours that writing on `background` must stand out from."""
    return background.rgb, background.second_rgb


def character_boxes(writing: Writing) -> list[tuple[str, Box]]:
    """Each character that leaves ink, with its box, where it is in the picture."""
    shape = font(writing.face, writing.size)
    boxes = []
    ink = shape.getbbox(writing.text, anchor="ls")
    x, y = writing.origin
    center = x + (ink[0] + ink[2]) / 2, y + (ink[1] + ink[3]) / 2
    for index, char in enumerate(writing.text):
        if char.isspace():
            continue
        start = x + shape.getlength(writing.text[:index])
        left, top, right, bottom = shape.getbbox(char, anchor="ls")
        box = Box(start + left, y + top, start + right, y + bottom)
        if writing.angle:
            middle, width, height = turned(box.center, center, writing.angle), box.width / 2, box.height / 2
            box = Box(middle[0] - width, middle[1] - height, middle[0] + width, middle[1] + height)
        boxes.append((char, box))
    return boxes


def draw_writing(canvas: Image.Image, writing: Writing) -> None:
    """Paints `writing` on `canvas`."""
    shape = font(writing.face, writing.size)
    if not writing.angle:
        ImageDraw.Draw(canvas).text(writing.origin, writing.text, fill=writing.rgb, font=shape, anchor="ls")
        return
    left, top, right, bottom = shape.getbbox(writing.text, anchor="ls")
    width, height = math.ceil(right - left) + 2, math.ceil(bottom - top) + 2
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((1 - left, 1 - top), writing.text, fill=255, font=shape, anchor="ls")
    mask = mask.rotate(writing.angle, Image.Resampling.BICUBIC, expand=True)
    x, y = writing.box.center
    canvas.paste(writing.rgb, (round(x - mask.width / 2), round(y - mask.height / 2)), mask)
