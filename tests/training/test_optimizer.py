"""Muon for the matrices of blocks, AdamW for everything else, as one optimizer."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from flashsloth.training.optimizer import MuonAndAdamW, make_optimizer
from flashsloth.training.stages import STAGES, freeze_all_but

STAGE = dataclasses.replace(STAGES["instruction"], learning_rate=1e-2, optimizer="muon", weight_decay=0.1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.block = nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 5, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.lm_head(torch.relu(self.block(self.embed(ids))))


def loss_of(model: Small) -> torch.Tensor:
    ids = torch.arange(5)
    return nn.functional.cross_entropy(model(ids), ids.flip(0))


def test_matrices_go_to_muon_tables_and_vectors_to_adamw() -> None:
    model = Small()
    optimizer = make_optimizer(model, STAGE)
    assert isinstance(optimizer, MuonAndAdamW)
    muon, adamw = optimizer.parts
    assert [p is model.block.weight for group in muon.param_groups for p in group["params"]] == [True]
    decays = {group["weight_decay"]: len(group["params"]) for group in adamw.param_groups}
    assert decays == {0.1: 2, 0.0: 1}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_it_learns_and_its_schedule_reaches_every_group(name: str) -> None:
    torch.manual_seed(0)
    model = Small()
    optimizer = make_optimizer(model, dataclasses.replace(STAGE, optimizer=name))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 if step else 1.0)
    first = loss_of(model)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        schedule.step()
    assert loss_of(model) < 0.5 * first
    assert {group["lr"] for group in optimizer.param_groups} == {STAGE.learning_rate * 0.5}


def test_an_interrupted_run_goes_on_as_if_it_had_not_been() -> None:
    def steps(model: Small, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()

    torch.manual_seed(0)
    through = Small()
    interrupted = Small()
    interrupted.load_state_dict(through.state_dict())
    optimizer = make_optimizer(through, STAGE)
    steps(through, optimizer, 6)

    before = make_optimizer(interrupted, STAGE)
    steps(interrupted, before, 3)
    after = make_optimizer(interrupted, STAGE)
    after.load_state_dict(before.state_dict())
    steps(interrupted, after, 3)
    for name, parameter in through.state_dict().items():
        assert torch.equal(parameter, interrupted.state_dict()[name]), name


def test_a_stage_trains_what_its_row_says(make_tiny_model) -> None:
    model = make_tiny_model()
    freeze_all_but(model, STAGES["alignment"].trains)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith(("model.projector", "model.spatial_attention_pooling")) for name in learning)
    with pytest.raises(ValueError, match=r"trains names \['brain'\]"):
        freeze_all_but(model, ("brain",))
