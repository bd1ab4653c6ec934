"""The optimizers of a stage: AdamW, or Muon for the matrices inside transformer blocks and AdamW for everything else.

In: a model whose learning parameters require gradients. Out: one `torch.optim.Optimizer`. Muon (Jordan et al. 2024, in
torch since 2.9) orthogonalises each matrix's update; a small model that starts from nothing needs markedly fewer steps
with it. Its step is scaled to AdamW's (`match_rms_adamw`), so that one learning rate fits both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flashsloth.model.embedded_query import QueryTokens
from flashsloth.training.stages import Stage

_OUTSIDE_BLOCKS = ("embed", "lm_head", "heads.", "query_tokens", "position")
"""Matrices that are tables or heads, by a part of their name: AdamW's."""
_ADAPTER = ".lora_"
"""Part of the names of an adapter's matrices: two factors of an update, not to be orthogonalised one by one."""


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers that step together. Their parameter groups are shared, so schedulers see and set both."""

    def __init__(self, muon: torch.optim.Optimizer, adamw: torch.optim.Optimizer) -> None:
        self.parts = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()

    def _share(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimizer(model: nn.Module, stage: Stage, adapter_learning_rate: float | None = None) -> torch.optim.Optimizer:
    """The stage's optimizer over the parameters of `model` that learn.

    Weight decay spares vectors (norms, biases), embeddings and query tokens: of an embedding, a step moves the few rows
    that it has seen, and decay would shrink all the others.

    Args:
        model: what learns.
        stage: how.
        adapter_learning_rate: of an adapter's matrices, which are AdamW's in any case; None for the stage's.
    """
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    spared = {id(parameter) for module in model.modules() if _is_table(module) for parameter in module.parameters()}
    matrices, tables, undecayed, adapter = [], [], [], []
    for name, parameter in learning:
        if _ADAPTER in name:
            adapter.append(parameter)
        elif parameter.ndim < 2 or id(parameter) in spared:
            undecayed.append(parameter)
        elif stage.optimizer == "muon" and parameter.ndim == 2 and not any(part in name for part in _OUTSIDE_BLOCKS):
            matrices.append(parameter)
        else:
            tables.append(parameter)
    rate = stage.learning_rate
    adapter_rate = rate if adapter_learning_rate is None else adapter_learning_rate
    groups = [
        {"params": parameters, "weight_decay": decay, "lr": lr}
        for parameters, decay, lr in (
            (tables, stage.weight_decay, rate),
            (undecayed, 0.0, rate),
            (adapter, stage.weight_decay, adapter_rate),
        )
        if parameters
    ]
    adamw = torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, stage.adam_beta2), fused=True)
    if not matrices:
        return adamw
    muon = torch.optim.Muon(
        matrices, lr=stage.learning_rate, weight_decay=stage.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return MuonAndAdamW(muon, adamw)


def _is_table(module: nn.Module) -> bool:
    """Whether its weights are vectors, one beside the other, and no matrix."""
    return isinstance(module, (nn.Embedding, QueryTokens))
