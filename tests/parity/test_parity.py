"""Ours against what the published code computed, on the recorded tiny model (see `reference.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from reference import ANCHOR, FOLDER, IMAGE_TOKEN, LEARNABLE, PAD, load_case

from flashsloth.model.configuration_flashsloth import HD_GRID, STANDARD_GRID
from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.loading.weight_names import to_ours
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

STATES, LOSS, GRADIENT = 2e-5, 1e-5, 1e-3
"""The largest differences allowed: absolute, absolute, relative."""
ZERO_GRADIENT = 1e-7
"""Key biases and the scorer's last bias move every score of a softmax alike: zero, of which noise is recorded."""
RECORDED_GRADIENTS = 60
PASSES = ["single", "hd", "train_batch", "multi_turn", "mixed_batch"]
LEARNED = ["train_batch", "multi_turn"]
NEW_TOKENS = 16


def build(grid: int, attention: str) -> FlashSlothForConditionalGeneration:
    """The recorded model, loaded from its published files as a user would."""
    return FlashSlothForConditionalGeneration.from_pretrained(
        FOLDER,
        image_grid=grid,
        image_token_id=IMAGE_TOKEN,
        query_token_id=LEARNABLE,
        anchor_token_id=ANCHOR,
        attn_implementation=attention,
    ).eval()


@pytest.fixture(params=["eager", "sdpa"])
def attention(request: pytest.FixtureRequest) -> str:
    return request.param


def model_for(case: str, attention: str) -> FlashSlothForConditionalGeneration:
    return build(HD_GRID if case == "hd" else STANDARD_GRID, attention)


@dataclass
class ImageFeatures:
    """What went through SAP and EmbQ in one pass."""

    features: list[torch.Tensor] = field(default_factory=list)
    pooled: list[torch.Tensor] = field(default_factory=list)
    embq: list[tuple[torch.Tensor, EmbeddedQueryInputs, torch.Tensor]] = field(default_factory=list)


@pytest.fixture
def watched() -> Iterator:
    """A function that watches a model's parts; they are let go afterwards."""
    handles = []

    def watch(model: FlashSlothForConditionalGeneration) -> ImageFeatures:
        seen = ImageFeatures()

        def pooling(_: torch.nn.Module, arguments: tuple, output: torch.Tensor) -> None:
            seen.features.append(arguments[0])
            seen.pooled.append(output)

        def queries(_: torch.nn.Module, arguments: tuple, output: torch.Tensor) -> None:
            seen.embq.append((arguments[0].flatten(0, 1), arguments[1], output.flatten(0, 1)))

        handles.append(model.model.spatial_attention_pooling.register_forward_hook(pooling))
        handles.append(model.model.embedded_query.register_forward_hook(queries))
        return seen

    yield watch
    for handle in handles:
        handle.remove()


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = STATES) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PASSES)
def test_forward(name: str, attention: str, watched) -> None:
    model = model_for(name, attention)
    seen = watched(model)
    case = load_case(name, model)
    recorded = case.recorded
    with torch.no_grad():
        output = model(**case.inputs)

    for row, mask in enumerate(case.inputs["attention_mask"].bool()):
        close(output.logits[row][mask], recorded["logits"][row, : int(mask.sum())])
    if "loss" in recorded:
        close(output.loss, recorded["loss"][0], LOSS)

    # The published code also looked at the zeros of a row without a picture.
    views = len(seen.features[0])
    close(seen.features[0], recorded["vision_features"][:views])
    close(seen.pooled[0], recorded["sap"][:views])
    close(output.image_outputs.pooler_output.flatten(0, 1), recorded["visual_tokens"][:views].flatten(0, 1))

    [(before, inputs, after)] = seen.embq
    turns = 1 if name == "mixed_batch" else len(recorded["embq_out"])  # a row without a picture has a wrong span there
    close(before[inputs.query_index][:turns], recorded["embq_query_in"][:turns])
    close(after[inputs.query_index][:turns], recorded["embq_out"][:turns])
    for turn in range(turns):
        ours = before[inputs.question_index[turn]][inputs.question_mask[turn]]
        close(ours, recorded["embq_text_in"][turn][recorded["embq_text_mask"][turn].bool()])


def test_a_row_without_a_picture_keeps_its_queries(attention: str, watched) -> None:
    model = model_for("mixed_batch", attention)
    seen = watched(model)
    with torch.no_grad():
        model(**load_case("mixed_batch", model).inputs)
    [(before, inputs, after)] = seen.embq
    assert torch.equal(before[inputs.query_index][1], after[inputs.query_index][1])


@pytest.mark.parametrize("name", LEARNED)
def test_gradients(name: str, attention: str) -> None:
    model = model_for(name, attention)
    case = load_case(name, model)
    model(**case.inputs).loss.backward()
    parameters = dict(model.named_parameters())
    recorded = {key[len("grad_norm/") :]: norm for key, norm in case.recorded.items() if key.startswith("grad_norm/")}
    assert len(recorded) > RECORDED_GRADIENTS
    for published, norm in recorded.items():
        gradient = parameters[to_ours(published)].grad
        assert gradient is not None, published
        assert gradient.norm().item() == pytest.approx(norm.item(), rel=GRADIENT, abs=ZERO_GRADIENT), published


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation(attention: str, use_cache: bool) -> None:
    model = model_for("generate", attention)
    case = load_case("generate", model)
    generated = model.generate(
        **case.inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=PAD,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )
    prompt = case.inputs["input_ids"].shape[1]
    assert generated.sequences[0, prompt:].tolist() == case.recorded["new_tokens"].flatten().tolist()
    close(generated.logits[0][0], case.recorded["first_logits"].flatten())
