"""A language model in four bits, for real: bitsandbytes' NF4, on whatever device there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny
import torch
from fine_tuned import adapted, batch, learn, load_base, save_base
from torch import nn

from flashsloth.checkpoint.adapter import AdapterError, read_adapter
from flashsloth.checkpoint.merge_adapter import merge
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training.lora import BLOCK_SIZE, quantize_layers, target_names
from flashsloth.training.stages import freeze_all_but
from flashsloth.training.trained_parts import PartsReport

bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes")
NF4_LEVELS = 16
WHOLE_BLOCKS = {**tiny.TEXT, "hidden_size": 64, "intermediate_size": 128}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "base", text_config=WHOLE_BLOCKS)


def packed_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def test_weights_take_half_a_byte_and_sixteen_levels_a_block(base: Path) -> None:
    model, plain = load_base(base), load_base(base)
    names = target_names(model, "auto")
    quantize_layers(model, names, torch.float32)
    assert len(packed_layers(model)) == len(names)
    for name in names:
        weight, original = model.get_submodule(name).weight, plain.get_submodule(name).weight
        assert weight.numel() * weight.element_size() == original.numel() / 2
        found = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
        blocks, originals = found.reshape(-1, BLOCK_SIZE), original.reshape(-1, BLOCK_SIZE)
        assert all(len(block.unique()) <= NF4_LEVELS for block in blocks)
        widest_step = 0.17 * originals.abs().amax(
            1, keepdim=True
        )  # half of NF4's widest step, and its scales' rounding
        assert bool(((blocks - originals).abs() <= widest_step).all())


def test_the_model_stays_close_and_learns_over_it(base: Path, tiny_processor: FlashSlothProcessor) -> None:
    model = adapted(base, quantize="nf4", rank=4)
    layers = packed_layers(model)
    assert len(layers) == 4 * 6
    before = [layer.weight.data.clone() for layer in layers]
    losses = learn(model, tiny_processor, steps=8)
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(layer.weight.data, weight) for layer, weight in zip(layers, before, strict=True))


def test_the_report_counts_weights_and_not_the_bytes_they_are_packed_in(base: Path) -> None:
    model = load_base(base)
    expected = sum(parameter.numel() for parameter in model.parameters())
    freeze_all_but(model, ("projector",))
    quantize_layers(model, target_names(model, "auto"), torch.float32)
    optimizer = torch.optim.SGD(model.model.projector.parameters(), lr=0.1)
    report = PartsReport(model)
    report.look(optimizer, clipped=1.0)
    report.compare(optimizer)
    assert sum(row.parameters for row in report.rows) == expected


def test_an_evaluation_in_between_changes_nothing(base: Path, tiny_processor: FlashSlothProcessor) -> None:
    """bitsandbytes repacks weights for answering on some processors: gradients would be lost from then on."""
    inputs = batch(tiny_processor)
    found = []
    for evaluated in (False, True):
        model = adapted(base, quantize="nf4")
        if evaluated:
            with torch.no_grad():
                model.eval()(**inputs)
        torch.manual_seed(0)
        model.train()(**inputs).loss.backward()
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None for parameter in learning)
        found.append(torch.cat([parameter.grad.flatten() for parameter in learning]))
    assert torch.equal(*found)


def test_activations_can_be_recomputed(base: Path, tiny_processor: FlashSlothProcessor) -> None:
    gradients = []
    for recomputed in (False, True):
        model = adapted(base, quantize="nf4")
        if recomputed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        model.train()(**batch(tiny_processor)).loss.backward()
        gradients.append(
            {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_it_is_folded_into_the_base_as_stored(base: Path, tiny_processor: FlashSlothProcessor, tmp_path: Path) -> None:
    model = adapted(base, quantize="nf4")
    learn(model, tiny_processor)
    tiny_processor.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "adapter")
    found = read_adapter(tmp_path / "adapter").base
    assert found is not None
    assert found.quantize == "nf4"
    merge(tmp_path / "adapter", tmp_path / "merged")
    layer = "model.language_model.layers.0.mlp.fc1"
    lora = model.get_base_model().get_submodule(layer)
    change = lora.scaling["default"] * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    expected = load_base(base).get_submodule(layer).weight + change
    torch.testing.assert_close(load_base(tmp_path / "merged").get_submodule(layer).weight, expected)


def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"a multiple of 64 inputs, unlike .*q_proj \(48\): use none"):
        adapted(save_base(tmp_path / "base"), quantize="nf4")


def test_without_bitsandbytes_it_says_what_to_install(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(AdapterError, match=r"needs bitsandbytes: pip install 'flashsloth\[qlora\]'"):
        quantize_layers(load_base(base), ["lm_head"], torch.float32)
