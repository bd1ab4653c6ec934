"""Eight and four bits on a device: rounded to the nearest step, and refused where they cannot be."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from tiny import TinyModelMaker
from torch import nn

from flashsloth.kernels import SpeedError
from flashsloth.kernels.capabilities import can_multiply_int4_on
from flashsloth.kernels.cpu_linear import Int8Linear, int4_levels
from flashsloth.kernels.cuda_linear import DEVICE_GROUP_SIZE, DeviceInt4Linear, two_a_byte
from flashsloth.kernels.optimize import quantize_weights, speed_up

WIDE_PHI = {**tiny.TEXT, "hidden_size": 128, "intermediate_size": 256}
BFLOAT16_STEP = 2.0**-8


def linear(dtype: torch.dtype, device: str = "cpu") -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(128, 96).to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 9])
def test_eight_bits_are_the_nearest_steps_and_their_product(dtype: torch.dtype, rows: int) -> None:
    layer = linear(dtype)
    quantized = Int8Linear(layer)
    step = layer.weight.float().abs().amax(dim=1, keepdim=True) / 127
    error = (quantized.dequantized() - layer.weight.float()).abs()
    assert (error <= (0.52 if dtype == torch.float32 else 0.75) * step).all()
    x = torch.randn(2, rows, 128).to(dtype)
    expected = x.float() @ quantized.dequantized().T + layer.bias.float()
    tolerance = 1e-5 if dtype == torch.float32 else 4 * BFLOAT16_STEP
    with torch.no_grad():
        torch.testing.assert_close(quantized(x).float(), expected, atol=tolerance, rtol=tolerance)


def test_four_bits_are_the_nearest_levels_two_a_byte() -> None:
    weight = linear(torch.float32).weight.detach()
    levels, scale_and_zero = int4_levels(weight, torch.float32, DEVICE_GROUP_SIZE)
    assert levels.min() == 0
    assert levels.max() == 15
    scale, zero = scale_and_zero.transpose(0, 1).repeat_interleave(DEVICE_GROUP_SIZE, dim=1).unbind(-1)  # [N, K] both
    assert ((levels - 8) * scale + zero - weight).abs().max() <= 0.51 * scale.max()
    packed = two_a_byte(levels)
    assert packed.shape == (96, 64)
    assert torch.equal(torch.stack([packed >> 4, packed & 15], dim=-1).flatten(1).int(), levels)


def test_a_model_with_such_weights_is_one_with_the_weights_they_stand_for(
    make_tiny_model: TinyModelMaker, tiny_processor
) -> None:
    model = make_tiny_model(attention="sdpa", text_config=dict(WIDE_PHI))
    inputs = tiny.encode(tiny_processor, [tiny.user("Where is the red dog?", tiny.picture(1))])
    twin = copy.deepcopy(model)
    model.requires_grad_(False)
    quantize_weights(
        model, "int4", DeviceInt4Linear
    )  # a processor lacks the four-bit product: eight bits take its place
    assert isinstance(model.lm_head, Int8Linear)
    replaced = [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]
    assert len(replaced) == 4 * 6 + 1
    for name in replaced:
        twin.get_submodule(name).weight.data = model.get_submodule(name).dequantized()
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, twin(**inputs).logits, atol=2e-3, rtol=2e-3)


def test_such_weights_stay_where_they_are() -> None:
    quantized = Int8Linear(linear(torch.float32))
    assert quantized.to("cpu") is quantized
    with pytest.raises(SpeedError, match="cannot be moved to meta"):
        quantized.to("meta")
    with pytest.raises(SpeedError, match="cannot be moved to cpu in"):
        quantized.to(torch.bfloat16)
    with pytest.raises(SpeedError, match="optimize=False to train"):
        quantized(torch.zeros(1, 128, requires_grad=True))
    assert not can_multiply_int4_on(torch.device("cpu"), torch.bfloat16)
    assert not DeviceInt4Linear.takes(linear(torch.bfloat16))


def test_other_devices_are_refused(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model().to("meta")
    with pytest.raises(SpeedError, match="quantize='int8' works on cpu and cuda, and the model is on meta"):
        speed_up(model, quantize="int8")


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_four_bits_multiply_as_what_they_stand_for(rows: int) -> None:
    layer = linear(torch.bfloat16, "cuda")
    assert DeviceInt4Linear.takes(layer)
    quantized = DeviceInt4Linear(layer)
    levels, scale_and_zero = int4_levels(layer.weight.detach(), torch.bfloat16, DEVICE_GROUP_SIZE)
    scale, zero = scale_and_zero.float().transpose(0, 1).repeat_interleave(DEVICE_GROUP_SIZE, dim=1).unbind(-1)
    meant = (levels - 8) * scale + zero
    torch.testing.assert_close(quantized.dequantized(), meant, atol=1e-2, rtol=1e-2)
    x = torch.randn(rows, 128, device="cuda", dtype=torch.bfloat16)
    expected = x.float() @ meant.T + layer.bias.float()
    with torch.no_grad():
        torch.testing.assert_close(quantized(x).float(), expected, atol=8 * BFLOAT16_STEP, rtol=4 * BFLOAT16_STEP)


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_a_model_on_cuda_is_quantized_in_place(make_tiny_model: TinyModelMaker, quantize) -> None:
    model = make_tiny_model(attention="sdpa", text_config=dict(WIDE_PHI)).to("cuda", torch.bfloat16)
    speed_up(model, quantize=quantize)
    kinds = {type(module) for module in model.model.language_model.modules()}
    assert (DeviceInt4Linear in kinds) == (quantize == "int4")
    assert type(model.lm_head) is Int8Linear
