"""Fast paths give what the plain ones give, within their stated tolerances, and refuse what they cannot do."""

from __future__ import annotations

import copy
import sys
import weakref
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from tiny import TinyModelMaker
from torch import nn

from flashsloth.kernels import SpeedError
from flashsloth.kernels.attention import ONE_QUERY, PLAIN, one_query_attention, plain_attention
from flashsloth.kernels.capabilities import WITHOUT, can_pack
from flashsloth.kernels.cpu_linear import (
    GROUP_SIZE,
    READ_FROM_MEMORY,
    READING_ROWS,
    Activation,
    Int4Linear,
    Int8Linear,
    PackedLinear,
)
from flashsloth.kernels.optimize import WORTH_PACKING, _linear_layers, speed_up
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

FLOAT32_TOLERANCE = 1e-4  # of a logit
BFLOAT16_DIVERGENCE = 1e-3  # KL at each position, against float32
BFLOAT16_STEP = 2.0**-8
LLAMA = {
    "model_type": "llama",
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WIDE_PHI = {**tiny.TEXT, "hidden_size": 64}
PACKED_OR_QUANTIZED = {"PackedLinear", "Int8Linear", "Int4Linear"}
PACKABLE = [
    pytest.param(torch.float32, marks=pytest.mark.needs("packed-float32")),
    pytest.param(torch.bfloat16, marks=pytest.mark.needs("packed-bfloat16")),
]
QUANTIZED = [Int8Linear, pytest.param(Int4Linear, marks=pytest.mark.needs("int4"))]  # int8 does without its operator


@pytest.fixture(autouse=True)
def _small_layers_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[_linear_layers.__module__], "WORTH_PACKING", 16 * 16)


def linear(inputs: int = 64, outputs: int = 96, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs).to(dtype)


def inputs_of(processor) -> dict[str, torch.Tensor]:
    conversations = [[tiny.user("Where is the red dog?", tiny.picture(1))], [tiny.user("Is it?")]]
    return tiny.encode(processor, conversations, padding=True)


@torch.no_grad()
def logits_of(model: FlashSlothForConditionalGeneration, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits[inputs["attention_mask"].bool()].float()


def divergence(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The largest KL of any position."""
    kl = F.kl_div(found.log_softmax(-1), expected.log_softmax(-1), reduction="none", log_target=True)
    return float(kl.sum(-1).max())


def kinds_of(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()}


@pytest.mark.needs("packed-float32")
@pytest.mark.parametrize("text", [tiny.TEXT, LLAMA], ids=["phi", "llama"])
def test_packed_float32_gives_the_plain_logits(make_tiny_model: TinyModelMaker, tiny_processor, text) -> None:
    model = make_tiny_model(attention="sdpa", text_config=dict(text))
    inputs = inputs_of(tiny_processor)
    plain = logits_of(model, inputs)
    names = set(model.state_dict())
    speed_up(model)
    assert "PackedLinear" in kinds_of(model)
    assert "Linear" not in kinds_of(model.model.language_model)
    torch.testing.assert_close(logits_of(model, inputs), plain, atol=FLOAT32_TOLERANCE, rtol=0)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("without", [pytest.param("", marks=pytest.mark.needs("packed-bfloat16")), "packed-bfloat16"])
def test_bfloat16_is_near_to_float32_packed_or_not(
    make_tiny_model: TinyModelMaker, tiny_processor, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WITHOUT, without)
    model = make_tiny_model(attention="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():  # the scale of trained weights: bfloat16 suffices for it
            parameter.mul_(0.25) if parameter.ndim > 1 else None
    inputs = inputs_of(tiny_processor)
    exact = logits_of(model, inputs)
    halved = copy.deepcopy(model).to(torch.bfloat16)
    speed_up(halved)
    assert ("PackedLinear" in kinds_of(halved)) == (not without)
    assert halved.model.vision_tower.config._attn_implementation == PLAIN
    found = divergence(exact, logits_of(halved, inputs))
    assert 0 < found < BFLOAT16_DIVERGENCE


@pytest.mark.parametrize("quantize", ["int8", pytest.param("int4", marks=pytest.mark.needs("int4"))])
def test_quantized_weights_stay_near(make_tiny_model: TinyModelMaker, tiny_processor, quantize) -> None:
    model = make_tiny_model(attention="sdpa", text_config=dict(WIDE_PHI))
    inputs = inputs_of(tiny_processor)
    plain = logits_of(model, inputs)
    twin = copy.deepcopy(model)
    speed_up(model, quantize=quantize)
    assert isinstance(model.lm_head, Int8Linear)
    assert (quantize == "int4") == ("Int4Linear" in kinds_of(model.model.language_model))
    # The same as a plain model whose weights are what the quantized ones stand for: nothing but rounding is lost.
    for name, module in model.named_modules():
        if isinstance(module, Int4Linear | Int8Linear):
            twin.get_submodule(name).weight.data = module.dequantized()
    found = logits_of(model, inputs)
    torch.testing.assert_close(found, logits_of(twin, inputs), atol=2e-3, rtol=2e-3)
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("dtype", PACKABLE)
@pytest.mark.parametrize("rows", [1, 7, 40])
def test_a_packed_layer_with_its_activation(dtype: torch.dtype, rows: int) -> None:
    layer, x = linear(dtype=dtype), torch.randn(2, rows, 64).to(dtype)
    with torch.no_grad():
        packed = PackedLinear(layer, Activation("gelu", "tanh"))
        expected = F.gelu(F.linear(x.double(), layer.weight.double(), layer.bias.double()), approximate="tanh")
        error = (packed(x).double() - expected).abs().max()
        assert packed(x).shape == (2, rows, 96)
        assert error < (1e-5 if dtype == torch.float32 else 3 * BFLOAT16_STEP)
        assert torch.equal(packed.state_dict()["weight"], layer.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_quantized_weight_is_rounded_to_its_nearest_step(kind, dtype: torch.dtype) -> None:
    layer = linear(dtype=dtype)
    quantized = kind(layer)
    error = (quantized.dequantized() - layer.weight.float()).abs()
    if kind is Int8Linear:
        step = layer.weight.float().abs().amax(dim=1, keepdim=True) / 127
    else:
        groups = layer.weight.float().unflatten(1, (-1, GROUP_SIZE))
        step = ((groups.amax(-1) - groups.amin(-1)) / 15).repeat_interleave(GROUP_SIZE, dim=1)
    # Half a step, and what rounding scale and zero to the model's precision adds.
    slack = 0.02 if dtype == torch.float32 else 0.25
    assert (error <= (0.5 + slack) * step).all()
    assert error.max() > 0.3 * step.min()


@pytest.mark.parametrize("kind", QUANTIZED)
@pytest.mark.parametrize("rows", [1, 5, 12, 33])
def test_few_rows_and_many_give_the_same_products(kind, rows: int) -> None:
    layer = linear(dtype=torch.bfloat16)
    quantized, x = kind(layer), torch.randn(rows, 64).to(torch.bfloat16)
    expected = x.float() @ quantized.dequantized().T + layer.bias.float()
    with torch.no_grad():
        torch.testing.assert_close(quantized(x).float(), expected, atol=4 * BFLOAT16_STEP, rtol=4 * BFLOAT16_STEP)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_attention_is_attention(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(2, 3, 49, 24) for _ in range(3))
    expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    found, weights = plain_attention(nn.Module(), query.to(dtype), key.to(dtype), value.to(dtype), None)
    assert weights is None
    tolerance = 1e-5 if dtype == torch.float32 else 8 * BFLOAT16_STEP
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=0)
    with pytest.raises(SpeedError, match="mask"):
        plain_attention(nn.Module(), query, key, value, torch.ones(1))


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_query_attention_is_attention(queries: int, masked: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    module = nn.Module()
    module.is_causal, module.num_key_value_groups = False, 3
    query, key, value = torch.randn(2, 6, queries, 16), torch.randn(2, 2, 9, 16), torch.randn(2, 2, 9, 16)
    mask = torch.ones(2, 1, queries, 9, dtype=torch.bool)
    mask[1, ..., :4] = False
    wide = [states.repeat_interleave(3, dim=1) for states in (key, value)]
    expected = F.scaled_dot_product_attention(query, *wide, attn_mask=mask if masked else None).transpose(1, 2)
    given = [states.to(dtype) for states in (query, key, value)]
    found, _ = one_query_attention(module, *given, mask if masked else None, scaling=16**-0.5)
    tolerance = 1e-5 if dtype == torch.float32 else 8 * BFLOAT16_STEP
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_reads_past_the_beginning_of_a_buffer_and_is_not_misled(masked: bool) -> None:
    torch.manual_seed(1)
    module = nn.Module()
    module.num_key_value_groups = 1
    query = torch.randn(2, 3, 1, 16).bfloat16()
    buffers = [
        100 * torch.randn(2, 3, 20, 16).bfloat16() for _ in range(2)
    ]  # stale numbers, larger than any that count
    beginnings = [buffer[:, :, :9] for buffer in buffers]
    for beginning in beginnings:
        beginning /= 100
    mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    mask[1, ..., :4] = False
    given = mask if masked else None
    found, _ = one_query_attention(module, query, beginnings[0], beginnings[1], given, scaling=16**-0.5)
    contiguous = [beginning.contiguous() for beginning in beginnings]
    expected, _ = one_query_attention(module, query, contiguous[0], contiguous[1], given, scaling=16**-0.5)
    torch.testing.assert_close(found, expected, atol=2 * BFLOAT16_STEP, rtol=0)


@pytest.mark.parametrize("dtype", PACKABLE)
@pytest.mark.parametrize("rows", [0, 1, 3, READING_ROWS, 7])
def test_a_weight_read_from_memory_gives_as_many_rows_as_it_is_given(rows: int, dtype: torch.dtype) -> None:
    plain = linear(512, READ_FROM_MEMORY // 512 // dtype.itemsize, dtype)
    x = torch.randn(rows, 1, 512).to(dtype)
    with torch.no_grad():
        expected, found = plain(x), PackedLinear(copy.deepcopy(plain))(x)
    tolerance = 1e-5 if dtype == torch.float32 else 4 * BFLOAT16_STEP
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("text", [tiny.TEXT, LLAMA], ids=["phi", "llama"])
def test_steps_of_a_fast_model_choose_what_a_plain_one_does(make_tiny_model, tiny_processor, text) -> None:
    model = make_tiny_model(attention="sdpa", text_config=dict(text))
    inputs = inputs_of(tiny_processor)
    expected = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    speed_up(model)
    assert model.model.language_model.config._attn_implementation == ONE_QUERY
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, do_sample=False), expected)


def test_a_packed_model_is_saved_as_it_was_loaded(tiny_model, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    speed_up(tiny_model)
    tiny_model.save_pretrained(tmp_path)
    again = FlashSlothForConditionalGeneration.from_pretrained(tmp_path).state_dict()
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())


@pytest.mark.needs("packed-float32")
def test_what_cannot_be_done_is_said(tiny_model, make_tiny_model: TinyModelMaker, tmp_path: Path) -> None:
    with pytest.raises(SpeedError, match="quantize is 'int3'; expected one of int8, int4, or None"):
        speed_up(tiny_model, quantize="int3")
    speed_up(tiny_model)
    with pytest.raises(SpeedError, match="optimize=False to train"):
        tiny_model.lm_head(torch.zeros(1, 48, requires_grad=True))
    with pytest.raises(SpeedError, match="cannot be moved"):
        tiny_model.to(torch.bfloat16)
    tiny_model.to("cpu")
    quantized = make_tiny_model()
    speed_up(quantized, quantize="int8")
    with pytest.raises(SpeedError, match="quantized model cannot be saved"):
        quantized.save_pretrained(tmp_path)


def test_a_plain_weight_is_let_go_before_the_next_is_packed(tiny_model) -> None:
    before: weakref.ref[nn.Module] | None = None
    for parent, name, layer in _linear_layers(tiny_model):
        assert before is None or before() is None
        setattr(parent, name, nn.Identity())
        before = weakref.ref(layer)
        del layer
    assert before is not None


def test_small_layers_stay_plain(tiny_model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[_linear_layers.__module__], "WORTH_PACKING", WORTH_PACKING)
    speed_up(tiny_model)
    assert not any(isinstance(module, PackedLinear) for module in tiny_model.modules())


def test_layers_that_are_more_than_linear_stay(tiny_model) -> None:
    seen = []
    layer = tiny_model.model.projector.get_submodule(
        next(name for name, module in tiny_model.model.projector.named_modules() if isinstance(module, nn.Linear))
    )
    layer.register_forward_hook(lambda *args: seen.append(1))
    speed_up(tiny_model)
    assert layer in set(tiny_model.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_cannot_be_packed_stays_plain(
    make_tiny_model: TinyModelMaker, tiny_processor, dtype: torch.dtype, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WITHOUT, "packed-float32, packed-bfloat16")
    assert not can_pack(dtype)
    model, inputs = make_tiny_model().to(dtype), inputs_of(tiny_processor)
    plain = logits_of(model, inputs)
    speed_up(model)
    assert not kinds_of(model) & PACKED_OR_QUANTIZED
    assert "plain ones are used" in caplog.text
    if dtype == torch.float32:  # in bfloat16 attention is made of plain operations: see above
        assert torch.equal(logits_of(model, inputs), plain)


@pytest.mark.parametrize("rows", [1, 5, 33])
def test_int8_weights_without_their_operator_are_widened(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "int8")
    layer, x = linear(dtype=torch.bfloat16), torch.randn(rows, 64).to(torch.bfloat16)
    quantized = Int8Linear(layer)
    monkeypatch.setattr(torch.ops.aten, "_weight_int8pack_mm", None)
    expected = x.float() @ quantized.dequantized().T + layer.bias.float()
    with torch.no_grad():
        torch.testing.assert_close(quantized(x).float(), expected, atol=4 * BFLOAT16_STEP, rtol=4 * BFLOAT16_STEP)


def test_a_model_without_products_of_quantized_weights(
    make_tiny_model: TinyModelMaker, tiny_processor, caplog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WITHOUT, "int8, int4")
    model, inputs = make_tiny_model(attention="sdpa", text_config=dict(WIDE_PHI)), inputs_of(tiny_processor)
    with pytest.raises(SpeedError, match=r"quantize='int4' has no products in torch.float32 here: use quantize='int8'"):
        speed_up(model, quantize="int4")
    twin = copy.deepcopy(model)
    speed_up(model, quantize="int8")
    assert "they are widened each time" in caplog.text
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear):
            twin.get_submodule(name).weight.data = module.dequantized()
    torch.testing.assert_close(logits_of(model, inputs), logits_of(twin, inputs), atol=2e-3, rtol=2e-3)
