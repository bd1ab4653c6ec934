"""How much work training does, and what share of the device's arithmetic that is.

In: the model, and the facts of its batches. Out: floating-point operations (FLOPs) that a step needs, and model FLOPs
utilisation: those over what the device could have done in the time, at the measured rate of a large matrix product.

Counted is what the mathematics needs, so padding and recomputed activations are no work: a forward pass as
`benchmark/cost.py` counts it, and for each part as much again for the gradient of what goes into it, where something
before it learns, and as much again for the gradient of its weights, by the share of them that learns.

Legend: n tokens of a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flashsloth.benchmark.cost import EMBQ, ENCODER, HEAD, LANGUAGE_MODEL, PROJECTOR, SAP, Cost, Workload
from flashsloth.benchmark.errors import BenchmarkError
from flashsloth.benchmark.machine import MATRIX_SHAPES, best_seconds
from flashsloth.benchmark.tower import FLOPS_PER_WEIGHT
from flashsloth.training.batch_facts import BatchFacts
from flashsloth.training.stages import PARTS

ORDER = (ENCODER, SAP, PROJECTOR, EMBQ, LANGUAGE_MODEL, HEAD)
"""What is computed, first things first: a gradient goes back through a part if anything before it learns."""
SINGLE_LAYERS = (SAP,)
"""Parts with one layer of any size: if nothing before it learns, nobody needs the gradient of what goes into it."""
_MODULES = {
    ENCODER: PARTS["vision_encoder"],
    SAP: PARTS["sap"],
    PROJECTOR: PARTS["projector"],
    EMBQ: PARTS["embq"],
    LANGUAGE_MODEL: PARTS["language_model"],
    HEAD: PARTS["head"],
}


class TrainingCost:
    """FLOPs of training a model as it is now frozen and unfrozen.

    Args:
        model: a FlashSloth, adapters and all.
        answers: whether answers are learned; if not, the encoder alone runs.
        encoder_runs: False where its features are read from disk.

    Raises:
        BenchmarkError: for a model whose work cannot be told.
    """

    def __init__(self, model: nn.Module, *, answers: bool, encoder_runs: bool = True) -> None:
        config: Any = model.config
        self.cost = Cost.of(config)
        self.answers = answers
        shares = {part: _learning_share(model.get_submodule(path)) for part, path in _MODULES.items()}
        self.factors: dict[str, float] = {}
        learns_before = False
        for part in ORDER:
            share = shares[part]
            goes_through = learns_before or (share > 0 and part not in SINGLE_LAYERS)
            self.factors[part] = 1.0 + goes_through + share
            learns_before = learns_before or share > 0
        if not encoder_runs:
            self.factors[ENCODER] = 0.0

    def flops(self, facts: BatchFacts) -> float:
        """Of one micro-batch, forward and backward."""
        look = self.cost.look_flops(facts.pictures)
        if not self.answers:
            return self.factors[ENCODER] * look[ENCODER]
        language_model = sum(self.cost.language_model.flops(n, n) for n in facts.lengths)
        parts: dict[str, float] = {
            **look,
            EMBQ: self._embq_flops(facts),
            LANGUAGE_MODEL: language_model,
            HEAD: FLOPS_PER_WEIGHT * self.cost.head.size * (facts.supervised or 0),
        }
        return sum(self.factors[part] * parts[part] for part in ORDER)

    def _embq_flops(self, facts: BatchFacts) -> float:
        """Queries of one turn a picture: EmbQ is next to nothing beside the rest, and turns are not counted here."""
        if not facts.pictures:
            return 0
        rows = max(1, len(facts.lengths))
        work = Workload(pictures=1, text_tokens=max(1, facts.tokens // rows))
        return facts.pictures * self.cost.prompt_flops(work)[EMBQ]


def training_cost(model: nn.Module, *, answers: bool, encoder_runs: bool = True) -> TrainingCost | str:
    """A model's training cost, or why it cannot be told."""
    try:
        return TrainingCost(model, answers=answers, encoder_runs=encoder_runs)
    except BenchmarkError as error:
        return str(error)


def measure_matrix_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations a second of a large product of plain layers, as training runs them; None for an unknown device."""
    if device.type not in MATRIX_SHAPES:
        return None
    rows, inputs, outputs = MATRIX_SHAPES[device.type][0]
    with torch.no_grad():
        # drawn by a generator of its own, and no zeros, which some devices multiply faster
        generator = torch.Generator(device).manual_seed(0)
        states = torch.randn(rows, inputs, device=device, generator=generator).to(dtype)
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, device=device, dtype=dtype)
        layer.weight.copy_(torch.randn(outputs, inputs, device=device, generator=generator))
        return 2 * rows * inputs * outputs / best_seconds(layer, states, device)


def _learning_share(module: nn.Module) -> float:
    parameters = list(module.parameters())
    everything = sum(parameter.numel() for parameter in parameters)
    learning = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return learning / everything if everything else 0.0


__all__ = ["TrainingCost", "measure_matrix_rate", "training_cost"]
