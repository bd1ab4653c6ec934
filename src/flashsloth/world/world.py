"""The world: an endless, seeded series of pictures with captions, questions and answers.

In: a seed, a split, a level and an index. Out: a `WorldSample`; the same one for the same four, in any order, anywhere.
"""

from dataclasses import dataclass
from functools import cached_property
from random import Random

from PIL import Image

from flashsloth.errors import FlashSlothError
from flashsloth.world.background import draw_axes, paint_background, paint_texture
from flashsloth.world.captions import caption
from flashsloth.world.chart import draw_chart
from flashsloth.world.compose import LEVELS, compose, compose_nothing
from flashsloth.world.draw import RENDERER_WEIGHTS, RENDERERS, apply_effects, draw_thing
from flashsloth.world.patch_labels import PatchLabels, patch_labels
from flashsloth.world.questions import Question, questions_of_nothing, sample_questions, with_unknown
from flashsloth.world.scene import Scene
from flashsloth.world.text import draw_writing

SPLITS = ("train", "test")
SHADED_SHARE = 0.3  # of the pictures drawn by distance have shaded faces
UNSHADED = ("white", "gray", "orange", "yellow", "pink")  # darker, they would take another name
SOFTNESS, SHADE = (0.9, 2.2), (0.08, 0.3)


class WorldError(FlashSlothError, ValueError):
    """A world, a sample or an export was asked for that does not exist."""


@dataclass(frozen=True)
class WorldSample:
    """One picture of the world: its scene, a seed from which the rest follows, and the world's `unknown`."""

    scene: Scene
    seed: str
    unknown: float = 0.0

    @cached_property
    def image(self) -> Image.Image:
        """The picture, RGB, at its native size."""
        return render(self.scene, Random(f"{self.seed}/pixels"))

    @cached_property
    def caption(self) -> str:
        """One line that describes the whole picture."""
        return caption(self.scene)

    @cached_property
    def questions(self) -> list[Question]:
        """Six to eight questions with answers, of all the kinds that the picture allows."""
        rng = Random(f"{self.seed}/questions")
        if self.scene.texture is not None:
            return questions_of_nothing(rng, self.scene)
        questions = sample_questions(rng, self.scene)
        if not self.unknown:
            return questions
        return with_unknown(Random(f"{self.seed}/unknown"), self.scene, questions, self.unknown)

    def patch_labels(self, grid: int) -> PatchLabels:
        """What each of `grid` x `grid` patches of the padded, square picture shows."""
        if grid < 1:
            raise WorldError(f"grid is {grid}; a picture is cut into at least 1 x 1 patches")
        return patch_labels(self.scene, grid)


class World:
    """Pictures by number. `split` "train" and "test" never share a random stream; `level` 0..3 grows harder.

    `unknown` is the share of pictures that hold nothing with a name, and the share of the questions about the others
    that suppose what is not there; the answer to both is that it can't be told. At 0 there are neither; above, the
    pictures that stay are the same.
    """

    def __init__(self, seed: int = 0, split: str = "train", level: int = 3, unknown: float = 0.0) -> None:
        if split not in SPLITS:
            raise WorldError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
        if level not in LEVELS:
            raise WorldError(f"level is {level!r}; choose one of {', '.join(map(str, LEVELS))}")
        if not 0 <= unknown <= 1:
            raise WorldError(f"unknown is {unknown:g}; expected a share, 0 to 1")
        self.seed, self.split, self.level, self.unknown = seed, split, level, unknown

    def sample(self, index: int) -> WorldSample:
        """The sample with this number, 0 or more."""
        if index < 0:
            raise WorldError(f"index is {index}; samples are numbered from 0")
        seed = f"{self.seed}/{self.split}/{self.level}/{index}"
        if self.unknown and Random(f"{seed}/nothing").random() < self.unknown:
            return WorldSample(compose_nothing(Random(f"{seed}/texture")), seed, self.unknown)
        return WorldSample(compose(Random(seed), self.level), seed, self.unknown)

    def __repr__(self) -> str:
        unknown = f", unknown={self.unknown:g}" if self.unknown else ""
        return f"World(seed={self.seed}, split={self.split!r}, level={self.level}{unknown})"


def render(scene: Scene, rng: Random) -> Image.Image:
    """The pixels of `scene`, drawn by one of the renderers and perhaps a little worn."""
    if scene.texture is not None:
        return apply_effects(rng, paint_texture(scene.texture, (scene.width, scene.height)))
    canvas = paint_background(scene.background, (scene.width, scene.height))
    renderer = rng.choices(RENDERERS, RENDERER_WEIGHTS)[0]
    softness, shade = rng.uniform(*SOFTNESS), rng.uniform(*SHADE) if rng.random() < SHADED_SHARE else 0.0
    if scene.axes is not None:
        draw_axes(canvas, scene.axes, scene.background, rng)
    for thing in scene.things:
        shaded = renderer == "distance" and thing.color not in UNSHADED
        draw_thing(canvas, thing, renderer, softness, shade if shaded else 0.0)
        if thing.writing is not None:
            draw_writing(canvas, thing.writing)
    if scene.chart is not None:
        draw_chart(canvas, scene.chart, scene.background)
    for writing in scene.writings:
        draw_writing(canvas, writing)
    return apply_effects(rng, canvas)
