"""Answering on an accelerator: passes of fixed shape over a static cache, compiled and recorded, many answers at once.

A processor spends its time in the matrices; an accelerator is done with them before Python has started the next
operation. So here every pass has one of a few shapes, and is recorded once (a CUDA graph) and then only replayed:

    settings.py     which shapes, how many answers at once, what is compiled and recorded
    slot_cache.py   keys and values with a row for every answer: column = position, nothing padded on the left
    passes.py       the three passes as functions of tensors: look at pictures, read prompts, make a step
    prompt_rows.py  prompts to the tensors of a reading pass, made on the processor, moved at once
    recorded.py     a function compiled, recorded and replayed; a plain call, with a warning, where that fails
    slots.py        answers under way: read prompts in, make steps, hand tokens out some steps late
    engine.py       one answer as it is made, or a queue of jobs kept running in all slots
    feeding.py      pictures opened and prepared in threads while the accelerator works
    warm_up.py      paying for compiling and recording ahead
"""

from flashsloth.inference.accelerator.engine import Engine, accelerate, can_accelerate
from flashsloth.inference.accelerator.settings import AcceleratorSettings

__all__ = ["AcceleratorSettings", "Engine", "accelerate", "can_accelerate"]
