"""The table of parts: what learns has moved, what is frozen has not, and both are seen."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModelMaker

from flashsloth.training.optimizer import make_optimizer
from flashsloth.training.recipe import load_recipe
from flashsloth.training.run import train
from flashsloth.training.stages import PARTS, STAGES, freeze_all_but
from flashsloth.training.trained_parts import OTHERS, FrozenPartMovedError, PartsReport, part_of
from tests.training import tiny_runs


@pytest.fixture
def alignment(tiny_model: Any) -> tuple[Any, torch.optim.Optimizer]:
    """A model whose projector and SAP learn, with gradients."""
    freeze_all_but(tiny_model, STAGES["alignment"].trains)
    for parameter in tiny_model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    return tiny_model, make_optimizer(tiny_model, STAGES["alignment"])


def test_the_table_of_a_step(alignment: tuple[Any, torch.optim.Optimizer]) -> None:
    model, optimizer = alignment
    report = PartsReport(model)
    report.look(optimizer, clipped=0.5)
    optimizer.step()
    assert report.compare(optimizer)
    rows = {row.part: row for row in report.rows}
    assert list(rows) == list(PARTS)
    projector = sum(parameter.numel() for parameter in model.model.projector.parameters())
    assert (rows["projector"].parameters, rows["projector"].learning) == (projector, projector)
    assert rows["projector"].gradient_norm == pytest.approx(2 * projector**0.5)  # ones, before they were halved
    assert rows["projector"].moved == pytest.approx(1e-3, rel=1e-3)  # AdamW's first step is its learning rate
    assert rows["projector"].learning_rates == (1e-3, 1e-3)
    assert rows["language_model"].learning == 0
    assert "has not moved by a bit" in rows["language_model"].line()
    assert report.unmoved == []
    assert sum(row.parameters for row in report.rows) == sum(p.numel() for p in model.parameters())


def test_a_frozen_tensor_that_moves_is_an_error(alignment: tuple[Any, torch.optim.Optimizer]) -> None:
    model, optimizer = alignment
    report = PartsReport(model)
    report.look(optimizer, clipped=1.0)
    with torch.no_grad():
        model.lm_head.bias[-1] += 1e-6
    with pytest.raises(FrozenPartMovedError, match=r"lm_head\.bias is frozen, but the first step changed it"):
        report.compare(optimizer)


def test_it_waits_for_a_learning_rate(alignment: tuple[Any, torch.optim.Optimizer]) -> None:
    model, optimizer = alignment
    report = PartsReport(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    report.look(optimizer, clipped=1.0)
    optimizer.step()
    assert not report.compare(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    report.look(optimizer, clipped=1.0)
    optimizer.step()
    assert report.compare(optimizer)
    report.look(optimizer, clipped=1.0)  # and once is enough
    assert not report.compare(optimizer)


def test_a_part_that_does_not_move_is_named(alignment: tuple[Any, torch.optim.Optimizer]) -> None:
    model, optimizer = alignment
    for parameter in model.model.spatial_attention_pooling.parameters():
        parameter.grad = None
    report = PartsReport(model)
    report.look(optimizer, clipped=1.0)
    optimizer.step()
    report.compare(optimizer)
    assert report.unmoved == ["sap"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.projector.linear_1.weight", "projector"),
        ("module.model.projector.linear_1.weight", "projector"),
        ("base_model.model.model.language_model.layers.0.q_proj.lora_A.default.weight", "language_model"),
        ("model.projector_of_another_kind.weight", OTHERS),
        ("patch_heads.norm.weight", OTHERS),
    ],
)
def test_a_parameters_part_is_told_by_its_name(name: str, part: str) -> None:
    assert part_of(name) == part


def test_half_precision_and_integers_are_compared_bit_by_bit(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model().to(torch.bfloat16)
    freeze_all_but(model, ("projector",))
    optimizer = torch.optim.SGD(model.model.projector.parameters(), lr=0.1)
    report = PartsReport(model)
    report.look(optimizer, clipped=1.0)
    with torch.no_grad():
        model.model.vision_tower.embeddings.patch_embedding.weight.view(-1)[3] *= 1 + 2**-7
    with pytest.raises(FrozenPartMovedError, match="patch_embedding"):
        report.compare(optimizer)


def test_a_run_leaves_its_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = tiny_runs.with_batch(tiny_runs.ALIGNMENT, batch_size=2, steps=3)
    with caplog.at_level(logging.INFO, "flashsloth"):
        train(load_recipe(tiny_runs.write_recipe(tmp_path, stage)))
    rows = json.loads((tmp_path / "out" / "0-alignment" / "parts.json").read_text(encoding="utf-8"))
    assert {row["part"] for row in rows if row["moved"]} == {"sap", "projector"}
    assert {row["part"] for row in rows if row["learning"]} == {"sap", "projector"}
    assert caplog.text.count("frozen, and has not moved by a bit") == len(PARTS) - 3
    assert caplog.text.count("nothing of its own") == 1  # the head is the embedding
