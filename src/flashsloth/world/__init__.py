"""Pictures drawn by program, with questions whose answers are known: the training data of the small model."""

from flashsloth.world.pack import export_split
from flashsloth.world.patch_labels import CHARACTER_CLASSES, COLOR_CLASSES, SHAPE_CLASSES, PatchLabels
from flashsloth.world.question_templates import closed_vocabulary
from flashsloth.world.questions import Question
from flashsloth.world.vocabulary import KINDS
from flashsloth.world.world import World, WorldError, WorldSample

__all__ = [
    "CHARACTER_CLASSES",
    "COLOR_CLASSES",
    "KINDS",
    "SHAPE_CLASSES",
    "PatchLabels",
    "Question",
    "World",
    "WorldError",
    "WorldSample",
    "closed_vocabulary",
    "export_split",
]
