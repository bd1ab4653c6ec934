"""A variant's model: freshly drawn by its seed, but for the encoder, which is the same for all.

In: an experiment, a variant, a seed. Out: a model and its processor.
"""

from __future__ import annotations

from pathlib import Path

from transformers import set_seed

from flashsloth.experiment.poolings import exchange_pooling, remove_embedded_query
from flashsloth.experiment.variants import Variant
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.recipe import ModelSource
from flashsloth.training.start import start_model


def make_variant(
    source: ModelSource, variant: Variant, seed: int, encoder: Path | None = None, attention: str = "sdpa"
) -> tuple[FlashSlothForConditionalGeneration, FlashSlothProcessor]:
    """The model of a variant.

    Args:
        source: a model from nothing; the variant's own fields take the place of its.
        variant: which one.
        seed: of everything that is drawn.
        encoder: a checkpoint whose encoder it gets; None for a drawn one.
        attention: transformers' name of the implementation.
    """
    assert source.config is not None
    set_seed(seed)
    model, processor = start_model(source.model_copy(update={"config": variant.config(source.config)}), attention)
    exchange_pooling(model, variant.pooling)
    if not variant.embq:
        remove_embedded_query(model)
    if encoder is not None:
        from flashsloth.inference.load import load

        taught = load(encoder, device="cpu", dtype="float32", optimize=False).model.model.vision_tower
        model.model.vision_tower.load_state_dict(taught.state_dict())
    return model, processor


__all__ = ["make_variant"]
