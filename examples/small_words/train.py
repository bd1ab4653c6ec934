"""FlashSloth-Nano as an HD model that reads small words, shown the whole view half of the time.

    python examples/small_words/train.py runs/small-words

Nano's weights are HD's: both have the same parts. They go on learning on pictures of `pictures.py`, drawn while
training runs. Every other step shows whole views alone, mostly with large words, and the encoder learns; the steps
between show all views, mostly with small words, and the encoder stays as it is: a tile is to it what a picture is.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from pictures import draw

import flashsloth
from flashsloth.model.configuration_flashsloth import HD, HD_GRID, STANDARD, STANDARD_GRID
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.data.sample import Sample
from flashsloth.training.dataloader import ConversationCollator
from flashsloth.training.optimizer import make_optimizer
from flashsloth.training.stages import STAGES

logger = logging.getLogger(__name__)

STEPS = 380
BATCH, WARM_STEPS, DECAY_SHARE = 16, 30, 0.2
SMALL_SHARES = {STANDARD: 0.25, HD: 0.8}
SETTINGS: dict[str, Any] = {
    "template": "chat",
    "optimizer": "muon",
    "learning_rate": 1e-3,
    "weight_decay": 0.02,
    "adam_beta2": 0.98,
}
LOG_EVERY = 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, help="where the model is written to")
    arguments.add_argument("--steps", type=int, default=STEPS, help=f"of {BATCH} pictures (default: {STEPS})")
    arguments.add_argument("--start", help="an HD model to go on from (default: Nano)")
    arguments.add_argument("--first", type=int, default=0, help="the number of the first picture (default: 0)")
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(given.folder, given.steps, given.start, given.first)


def train(folder: Path, steps: int, start: str | None = None, first: int = 0) -> None:
    """Train, and write the model and its processor."""
    torch.manual_seed(1)
    door = flashsloth.load(start, device="cpu", dtype="float32", optimize=False)
    model, processor = door.model, as_hd(of_nano())
    model.config.image_grid = HD_GRID
    model.set_attn_implementation("sdpa")
    model.train().requires_grad_(True)
    stage = STAGES["instruction_hd"].model_copy(update=SETTINGS)
    optimizer = make_optimizer(model, stage)
    collators = {HD: ConversationCollator(processor, stage), STANDARD: ConversationCollator(of_nano(), stage)}
    started = time.perf_counter()
    for step in range(steps):
        resolution = STANDARD if step % 2 else HD
        numbers = range(first + step * BATCH, first + (step + 1) * BATCH)
        batch = collators[resolution]([sample(number, SMALL_SHARES[resolution]) for number in numbers])
        model.model.vision_tower.requires_grad_(resolution == STANDARD)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * share_of_rate(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % LOG_EVERY < 2:
            logger.info(
                "step %d of %d, %s: loss %.3f, %.0f s",
                step,
                steps,
                resolution,
                loss.item(),
                time.perf_counter() - started,
            )
    model.requires_grad_(True).eval()
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)


def as_hd(processor: FlashSlothProcessor) -> FlashSlothProcessor:
    """A processor of one view as one of the whole view and 2 x 2 tiles."""
    processor.image_processor.image_grid = HD_GRID
    processor.num_image_tokens *= processor.image_processor.num_views
    return processor


def of_nano() -> FlashSlothProcessor:
    """Nano's processor, which makes the whole view alone."""
    processor: FlashSlothProcessor = flashsloth.load(device="cpu").processor
    assert processor.image_processor.image_grid == STANDARD_GRID
    return processor


def sample(number: int, small_share: float) -> Sample:
    """A picture with its word's question and one more, each asked by itself."""
    drawn = draw(0, "train", number, small_share)
    questions = [*drawn.reading, *Random(number).sample(drawn.others, min(1, len(drawn.others)))]
    messages: list[dict[str, Any]] = []
    for question in questions:
        text = {"type": "text", "text": question.question}
        picture = [] if messages else [{"type": "image", "image": drawn.image}]
        messages.append({"role": "user", "content": [*picture, text]})
        messages.append({"role": "assistant", "content": question.answer})
    return Sample(messages, [question.kind for question in questions], independent=True)


def share_of_rate(step: int, steps: int) -> float:
    """Of the learning rate: up in the first steps, down to nothing in the last fifth."""
    left = (steps - step) / (DECAY_SHARE * steps)
    return min(1.0, (step + 1) / WARM_STEPS, left)


if __name__ == "__main__":
    main()
