"""What an answer costs until it begins: floating-point operations and time, of a variant's model with any weights.

In: a source, a variant, a device. Out: a :class:`Cost`. FLOPs are counted by torch as the operators run (with plain
attention, which all of its counters know); time is the median over pictures, each seen for the first time. Nothing else
may run meanwhile, so this is done before or after the training, by one process.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from flashsloth.experiment.build import make_variant
from flashsloth.experiment.variants import Variant
from flashsloth.inference import FlashSloth
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.training.recipe import ModelSource
from flashsloth.world import World

WARM_UPS, TIMED = 5, 40
"""Pictures."""
QUESTION = "What color is the circle to the left of the square?"
SEED = 1
MILLISECONDS = 1e3


@dataclass(frozen=True)
class Cost:
    """Of one answer's beginning.

    Attributes:
        visual_tokens: of a picture.
        parameters: of the model.
        flops: picture, prompt, and the answer's first token.
        milliseconds: the same, in time.
        device: where that was.
    """

    visual_tokens: int
    parameters: int
    flops: int
    milliseconds: float
    device: str

    def to_dict(self) -> dict[str, float | str]:
        return dataclasses.asdict(self)


def cost_of(source: ModelSource, variant: Variant, device: torch.device) -> Cost:
    """Measure a variant."""
    model, processor = make_variant(source, variant, SEED, attention="eager")
    sloth = FlashSloth(model.to(device), processor, variant.name, PictureCache(0))
    pictures = [World(split="test").sample(index).image for index in range(WARM_UPS + TIMED)]
    engine = sloth.engine
    engine.add_request(sloth.request(pictures[0], QUESTION, max_tokens=1))
    with FlopCounterMode(display=False) as counter:  # it sees its own thread only, so the engine is stepped in it
        while engine.has_work:
            engine.step()
    model.set_attn_implementation("sdpa")
    sloth = FlashSloth(model, processor, variant.name, PictureCache(0))
    seconds = []
    for picture in pictures:
        started = time.perf_counter()
        sloth.answer(picture, QUESTION, max_tokens=1)
        seconds.append(time.perf_counter() - started)
    median = MILLISECONDS * statistics.median(seconds[WARM_UPS:])
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Cost(model.config.num_image_tokens, model.num_parameters(), counter.get_total_flops(), median, where)


__all__ = ["Cost", "cost_of"]
