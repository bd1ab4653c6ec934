"""Muon for the matrices of blocks, AdamW for everything else, as one optimizer."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyModelMaker
from torch import nn

from flashsloth.training.optimizer import MuonAndAdamW, make_optimizer
from flashsloth.training.stages import PARTS, STAGES, freeze_all_but

STAGE = STAGES["instruction"].model_copy(update={"learning_rate": 1e-2, "optimizer": "muon", "weight_decay": 0.1})


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
    assert decays == {0.1: 1, 0.0: 2}  # the head alone decays; the embedding and the bias do not


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_decay_spares_embeddings_query_tokens_and_vectors(make_tiny_model: TinyModelMaker, optimizer: str) -> None:
    model = make_tiny_model(tie_word_embeddings=False)
    freeze_all_but(model, tuple(PARTS))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    made = make_optimizer(model, STAGE.model_copy(update={"optimizer": optimizer}))
    spared = {names[id(p)] for group in made.param_groups if not group["weight_decay"] for p in group["params"]}
    decayed = {names[id(p)] for group in made.param_groups if group["weight_decay"] for p in group["params"]}
    assert spared | decayed == set(names.values())
    assert {"model.query_tokens.weight", "model.language_model.embed_tokens.weight"} <= spared
    assert any("position_embedding" in name for name in spared)
    assert "lm_head.weight" in decayed
    assert all(model.get_parameter(name).ndim >= 2 for name in decayed)
    assert not any("embed" in name and "embedded_query" not in name and "patch" not in name for name in decayed)
    assert all("embed" in name or "query_tokens" in name or model.get_parameter(name).ndim < 2 for name in spared)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_it_learns_and_its_schedule_reaches_every_group(name: str) -> None:
    torch.manual_seed(0)
    model = Small()
    optimizer = make_optimizer(model, STAGE.model_copy(update={"optimizer": name}))
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
