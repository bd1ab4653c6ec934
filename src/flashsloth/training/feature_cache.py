"""What a recipe says of features on disk: a stage's `feature_cache:` group, checked before anything is loaded.

In: the values of the group, and what the stage trains. Out: :class:`FeatureCache`, or what is wrong, in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashsloth.training.engine_settings import ZERO3

DTYPES = ("bfloat16", "float32")
ENCODER_PART = "vision_encoder"


@dataclass(frozen=True)
class FeatureCache:
    """A stage's `feature_cache:` group.

    Attributes:
        folder: where files are kept, by this run and others.
        max_gb: how many 1e9 bytes all files in it may have; what does not fit is computed each time.
        dtype: `bfloat16` (1.68 MB a picture at the published size) or `float32`.
    """

    folder: str = ""
    max_gb: float = 0.0
    dtype: str = DTYPES[0]

    def problem(self, trains: tuple[str, ...], engine: str) -> str | None:
        """What is wrong, in a stage that trains these parts on this engine; after the group's name. None if nothing."""
        if not self.folder:
            return "folder is missing: say where features are to be kept"
        if not self.max_gb > 0:
            return f"max_gb is {self.max_gb:g}, expected how many GB the folder may take, more than 0"
        if self.dtype not in DTYPES:
            return f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}"
        if ENCODER_PART in trains:
            return f"folder is {self.folder!r}, but features of an encoder that learns cannot be kept: leave it out"
        if engine == ZERO3:
            return f"folder is {self.folder!r}, but {ZERO3} lets no device run the encoder alone: choose fsdp2 or zero2"
        return None


__all__ = ["DTYPES", "FeatureCache"]
