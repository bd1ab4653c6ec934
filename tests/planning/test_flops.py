"""The work that is computed from a configuration is the work that a model has, and that torch counts when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from prompts import prompt_inputs
from tiny import TinyModelMaker
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from flashsloth.checkpoint.inspect import PARTS
from flashsloth.errors import BenchmarkError
from flashsloth.kernels.cpu_linear import Int4Linear, Int8Linear, PackedLinear
from flashsloth.kernels.optimize import speed_up
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.embedded_query import EmbeddedQuery, EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.planning.flops import EMBQ, ENCODER, HEAD, LANGUAGE_MODEL, PROJECTOR, SAP, Cost, Precision, Workload

COUNTED = 0.01
"""How far the computed FLOPs may be from torch's count."""
PLAIN = {key: tiny.TEXT[key] for key in tiny.TEXT if key not in ("num_key_value_heads", "model_type")}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
TEXTS: dict[str, dict[str, Any]] = {
    "phi": tiny.TEXT,
    "llama": {**GROUPED, "model_type": "llama"},
    "qwen2, tied": {**GROUPED, "model_type": "qwen2", "tie_word_embeddings": True},
    "gemma, wide heads": {**GROUPED, "model_type": "gemma", "head_dim": 20, "tie_word_embeddings": False},
    "gpt2": {"model_type": "gpt2", "vocab_size": tiny.VOCABULARY, "n_embd": 48, "n_layer": 4, "n_head": 4},
}
VISIONS: dict[str, dict[str, Any]] = {
    "siglip": tiny.VISION,
    "clip": {**tiny.VISION, "model_type": "clip_vision_model", "hidden_act": "quick_gelu"},
    "vit": {**tiny.VISION, "model_type": "vit"},
}
PUBLISHED = {"standard": FlashSlothConfig(), "HD": FlashSlothConfig(image_grid=2)}
BFLOAT16 = Precision(torch.bfloat16)


def changes_of(text: str, vision: str) -> dict[str, Any]:
    return {
        "vision_config": dict(VISIONS[vision]),
        "text_config": dict(TEXTS[text]),
        "tie_word_embeddings": TEXTS[text].get("tie_word_embeddings", False),
        "lm_head_bias": text == "phi",
    }


def count(run: Callable[[], Any]) -> tuple[int, Any]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops(), result


def counted_parts(model: FlashSlothForConditionalGeneration, work: Workload) -> dict[str, int]:
    """FLOPs of looking, of the prompt's pass, and of all steps after it, run and counted."""
    cache = DynamicCache(config=model.config.text_config)
    inputs: dict[str, Any] = prompt_inputs(model.config, work)
    flops = {"look": 0, "steps": 0}
    if work.pictures:
        side = model.config.vision_config.image_size
        pixels = torch.zeros(work.all_pictures, model.config.num_views, 3, side, side)
        flops["look"], image = count(lambda: model.get_image_features(pixels))
        inputs["mm_encoder_outputs"] = {"image": image}
    flops["prompt"], _ = count(lambda: model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1))
    token = torch.full((work.batch, 1), 7)
    for _ in range(work.new_tokens - 1):
        positions = torch.full_like(token, cache.get_seq_length())
        step, _ = count(lambda at=positions: model(input_ids=token, position_ids=at, past_key_values=cache))
        flops["steps"] += step
    return flops


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("text", TEXTS)
def test_parameters_are_the_models(make_tiny_model: TinyModelMaker, text: str, vision: str) -> None:
    model = make_tiny_model(**changes_of(text, vision))
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[next(part for part, prefix in PARTS.items() if name.startswith(prefix))] += parameter.numel()
    assert Cost.of(model.config).parameters == counts


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_at_true_size(name: str) -> None:
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = FlashSlothForConditionalGeneration._from_config(config)
    cost = Cost.of(config)
    assert sum(cost.parameters.values()) == model.num_parameters()
    published = {ENCODER: 398e6, SAP: 1.3e6, PROJECTOR: 9.5e6, EMBQ: 8.1e6, LANGUAGE_MODEL: 2649e6, HEAD: 131e6}
    found = {part: count for part, count in cost.parameters.items() if part in published}
    assert found == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(
    "work",
    [Workload(1, 9, 4), Workload(2, 30, 2, batch=3), Workload(0, 12, 3, batch=2)],
    ids=["one picture", "two pictures, three rows", "no picture"],
)
@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("text", TEXTS)
def test_flops_are_those_that_torch_counts(
    make_tiny_model: TinyModelMaker, text: str, grid: int, work: Workload
) -> None:
    model = make_tiny_model(**changes_of(text, "siglip"), image_grid=grid)
    cost = Cost.of(model.config)
    prompt = cost.prompt_flops(work)
    look = sum(prompt.pop(part) for part in (ENCODER, SAP, PROJECTOR))
    counted = counted_parts(model, work)
    assert look == pytest.approx(counted["look"], rel=COUNTED)
    assert sum(prompt.values()) == pytest.approx(counted["prompt"], rel=COUNTED)
    first, steps = cost.positions(work) + 1, work.new_tokens - 1
    answer = look + sum(prompt.values()) + steps * cost.step_flops(first + (steps - 1) / 2, work.batch)
    assert answer == pytest.approx(sum(counted.values()), rel=COUNTED)


@pytest.mark.parametrize("vision", VISIONS)
def test_flops_of_any_encoder(make_tiny_model: TinyModelMaker, vision: str) -> None:
    model = make_tiny_model(**changes_of("phi", vision))
    cost = Cost.of(model.config)
    counted, _ = count(lambda: model.get_image_features(torch.zeros(2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)))
    assert sum(cost.encode_flops(2).values()) == pytest.approx(counted, rel=COUNTED)


def test_flops_at_true_size() -> None:
    """Part by part on the meta device, where the model's checks of placeholders cannot run; EmbQ, 32 MB, for real."""
    config, work = PUBLISHED["standard"], Workload()
    cost = Cost.of(config)
    prompt = cost.prompt_flops(work)
    vision, text, _ = cost.widths
    with torch.device("meta"):
        model = FlashSlothForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
        states = torch.zeros(1, cost.positions(work), text)
        look, image = count(lambda: model.get_image_features(torch.zeros(1, 3, 384, 384)))
        read, _ = count(lambda: model.model.language_model(inputs_embeds=states))
        head, _ = count(lambda: model.lm_head(states[:, -1:]))
    queries, question = torch.zeros(1, config.num_query_tokens, text), torch.zeros(1, work.text_tokens, text)
    where = torch.zeros(1, work.text_tokens, dtype=torch.long)
    seen = EmbeddedQueryInputs(
        query_index=where,
        question_index=where,
        question_mask=where == 0,
        features=torch.zeros(image.last_hidden_state.shape),
        feature_row=torch.zeros(1, dtype=torch.long),
    )
    embq, _ = count(lambda: EmbeddedQuery(config).look(queries, question, seen))
    assert seen.features.shape == (1, 729, vision)
    computed = {"look": sum(prompt[part] for part in (ENCODER, SAP, PROJECTOR))}
    computed |= {part: prompt[part] for part in (LANGUAGE_MODEL, HEAD, EMBQ)}
    counted = {"look": look, LANGUAGE_MODEL: read, HEAD: head, EMBQ: embq}
    assert computed == pytest.approx(counted, rel=COUNTED)


@pytest.mark.parametrize(
    ("name", "encoder", "between", "prefill"), [("standard", 642e9, 7e9, 779e9), ("HD", 3209e9, 34e9, 2444e9)]
)
def test_the_work_of_the_published_size(name: str, encoder: float, between: float, prefill: float) -> None:
    """The figures of the cost model that the project's goals were derived from; it counts half of the causal mask."""
    cost, work = Cost.of(PUBLISHED[name]), Workload(text_tokens=64)
    flops = cost.prompt_flops(work)
    assert flops[ENCODER] == pytest.approx(encoder, rel=0.005)
    assert flops[SAP] + flops[PROJECTOR] + flops[EMBQ] == pytest.approx(between, rel=0.05)
    masked = cost.language_model.flops(1, 1) - cost.language_model.flops(1, 0)
    causal = flops[LANGUAGE_MODEL] - masked * cost.positions(work) ** 2 / 2
    assert causal + flops[HEAD] == pytest.approx(prefill, rel=0.005)
    assert sum(flops.values()) == pytest.approx(encoder + between + prefill, rel=0.01)


def test_what_the_published_size_reads_and_keeps() -> None:
    standard, hd = Cost.of(PUBLISHED["standard"]), Cost.of(PUBLISHED["HD"])
    assert standard.positions(Workload()) == 154
    assert hd.positions(Workload()) == 478
    assert standard.key_value_bytes(BFLOAT16) == 327_680
    assert standard.step_bytes(BFLOAT16) == pytest.approx(5.3e9, rel=0.01)
    assert standard.step_bytes(Precision(torch.float32)) == 2 * standard.step_bytes(BFLOAT16)
    for cost, features, keys_and_values in ((standard, 1.68e6, 37e6), (hd, 8.4e6, 143e6)):
        visual_tokens = cost.config.num_image_tokens * 2560 * BFLOAT16.itemsize
        assert cost.feature_bytes(BFLOAT16, 1) - visual_tokens == pytest.approx(features, rel=0.01)
        kept = (32 + cost.config.num_image_tokens) * cost.key_value_bytes(BFLOAT16)
        assert kept == pytest.approx(keys_and_values, rel=0.01)


@pytest.mark.parametrize("text", TEXTS)
def test_weights_weigh_what_the_model_does(make_tiny_model: TinyModelMaker, text: str) -> None:
    model = make_tiny_model(**changes_of(text, "siglip")).to(torch.bfloat16)
    stored = sum(parameter.nbytes for parameter in model.parameters())
    assert Cost.of(model.config).weight_bytes(BFLOAT16, copies_head=False) == stored
    copied = Cost.of(model.config).weight_bytes(BFLOAT16, copies_head=True)
    assert copied - stored == model.lm_head.weight.nbytes * model.config.tie_word_embeddings


def stored_bytes(module: torch.nn.Module) -> int:
    """Bytes of a sped-up model's weights, each once, whatever form they have."""
    tensors = {id(parameter): parameter.nbytes for parameter in module.parameters()}
    for layer in module.modules():
        if isinstance(layer, PackedLinear):
            tensors[id(layer)] = layer.in_features * layer.out_features * layer.dtype.itemsize
        elif isinstance(layer, Int8Linear):
            tensors[id(layer)] = layer.weight_int8.nbytes + layer.scale.nbytes
        elif isinstance(layer, Int4Linear):
            tensors[id(layer)] = layer.weight_int4.nbytes + layer.scale_and_zero.nbytes
    return sum(tensors.values())


@pytest.mark.parametrize("quantize", [None, "int8", "int4"])
@pytest.mark.parametrize("text", ["phi", "qwen2, tied", "gpt2"])
def test_weights_weigh_what_a_sped_up_models_do(make_tiny_model: TinyModelMaker, text: str, quantize: Any) -> None:
    """Widths of 48 do not fit four bits' groups of 32; the MLP's way back, with 96 inputs, does."""
    model = make_tiny_model(**changes_of(text, "siglip"), attention="sdpa")
    speed_up(model, quantize=quantize)
    kinds = {type(module) for module in model.modules()} & {Int4Linear, Int8Linear}
    expected = {Int4Linear, Int8Linear} if quantize == "int4" and text != "gpt2" else {Int8Linear}
    assert kinds == (expected if quantize else set())
    cost, precision = Cost.of(model.config), Precision(torch.float32, quantize)
    assert cost.weight_bytes(precision, copies_head=quantize is not None) == stored_bytes(model)
    tables = sum(m.weight.nbytes for m in model.model.language_model.modules() if isinstance(m, torch.nn.Embedding))
    read = stored_bytes(model.model.language_model) + stored_bytes(model.lm_head) - tables
    assert cost.step_bytes(precision) == read


REFUSED_TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "experts": ({**GROUPED, "model_type": "mixtral", "num_local_experts": 2}, "has experts"),
    "layers without attention": (
        {**GROUPED, "model_type": "lfm2", "layer_types": ["conv", "full_attention"] * 2},
        "layers of type conv",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TEXTS)
def test_what_cannot_be_counted_is_refused(tiny_tokenizer: Any, case: str) -> None:
    text, message = REFUSED_TEXTS[case]
    config = tiny.make_config(tiny_tokenizer, text_config=text)
    with pytest.raises(BenchmarkError, match=message) as error:
        Cost.of(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"), [("pictures", -1), ("text_tokens", 0), ("new_tokens", 0), ("batch", 0), ("batch", True)]
)
def test_work_that_makes_no_sense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(BenchmarkError, match=f"{field} is {value}; expected a whole number, at least"):
        Workload(**{field: value})
