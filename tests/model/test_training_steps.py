"""Learning: every parameter is reached, recomputation changes nothing, Trainer and adapters work."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, make_processor, picture, user
from transformers.modeling_layers import GradientCheckpointingLayer

from flashsloth.model.chat_template import PLAIN_TEMPLATE
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.outputs import FlashSlothImageFeatures
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

# The name that transformers 5.17 knows; later versions have another and warn.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

CHATS = [
    [user("What is this?", picture(1)), assistant("A dog."), user("Sure?"), assistant("Yes.")],
    [user("Why?"), assistant("So.")],
    [user("Which?", picture(2), picture(3)), assistant("The left one.")],
]
BATCHES = {
    "mixed": CHATS,
    "pictures alone": [CHATS[0], CHATS[2]],
    "no pictures": [CHATS[1]],
    "pictures without queries": "plain",
}


def batch_of(name: str, processor: FlashSlothProcessor) -> dict[str, torch.Tensor]:
    if BATCHES[name] == "plain":
        chats = [[user("", picture(1)), assistant("A dog on a table")], [user("", picture(2)), assistant("A cat")]]
        return encode(processor, chats, chat_template=PLAIN_TEMPLATE, return_labels=True)
    return encode(processor, BATCHES[name], return_labels=True)


def gradients(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    model(**inputs).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("grid", [1, 2])
@pytest.mark.parametrize("batch", BATCHES)
def test_every_parameter_has_a_gradient_in_every_batch(
    make_tiny_model: TinyModelMaker, tiny_tokenizer: Any, batch: str, grid: int
) -> None:
    model = make_tiny_model(image_grid=grid).train()
    found = gradients(model, batch_of(batch, make_processor(tiny_tokenizer, model.config)))
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in found.values())
    vision = sum(gradient.abs().sum() for name, gradient in found.items() if "vision_tower" in name)
    queries = found["model.query_tokens.weight"].abs().sum()
    assert (vision > 0) == (batch != "no pictures")
    assert (queries > 0) == (batch != "pictures without queries")


def test_idle_parts_do_not_change_what_is_learned(make_tiny_model: TinyModelMaker, tiny_processor: Any) -> None:
    model = make_tiny_model(sap_dropout=0.0)
    inputs = {**batch_of("no pictures", tiny_processor), "skip_logits": True}
    idle = gradients(model.eval(), inputs)
    touched = gradients(model.train(), inputs)
    for name, gradient in idle.items():
        assert torch.equal(touched[name], torch.zeros_like(touched[name]) if gradient is None else gradient), name


@pytest.mark.parametrize("trained", ["projector", "query_tokens", "embedded_query", "language_model"])
def test_parts_are_trained_alone(make_tiny_model: TinyModelMaker, tiny_processor: Any, trained: str) -> None:
    model = make_tiny_model().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{trained}." in name)
    for batch in BATCHES:
        found = gradients(model, batch_of(batch, tiny_processor))
        assert found
        assert [name for name, gradient in found.items() if gradient is None] == [], batch


def test_a_stage_without_queries_leaves_embq_alone(tiny_model: Any, tiny_processor: FlashSlothProcessor) -> None:
    inputs = batch_of("pictures without queries", tiny_processor)
    assert not inputs["query_turn"].any()
    assert not inputs["question_turn"].any()
    called = []
    tiny_model.model.embedded_query.register_forward_hook(lambda *_: called.append(True))
    found = gradients(tiny_model.eval(), inputs)
    assert not called
    assert not found["model.query_tokens.weight"].any()
    assert found["model.projector.linear_1.weight"].abs().sum() > 0
    assert found["model.spatial_attention_pooling.score_in.weight"].abs().sum() > 0


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_changes_no_gradient(
    make_tiny_model: TinyModelMaker, tiny_processor: Any, batch: str, reentrant: bool
) -> None:
    hooks_are_recomputed = "__init_subclass__" not in vars(GradientCheckpointingLayer)
    if reentrant and hooks_are_recomputed:
        pytest.skip("this transformers recomputes hooks as well, which torch refuses where `use_reentrant` is on")
    inputs = batch_of(batch, tiny_processor)
    model = make_tiny_model(sap_dropout=0.0).train()
    expected = gradients(model, inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    found = gradients(model, inputs)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


class Samples(torch.utils.data.Dataset):
    """The same few conversations, again and again."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> list[dict[str, Any]]:
        return CHATS[place % len(CHATS)]


@pytest.mark.parametrize("recompute", [False, True])
def test_trainer_learns(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path, recompute: bool
) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=12,
        learning_rate=5e-3,
        logging_steps=1,
        gradient_checkpointing=recompute,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        label_names=["labels"],
    )
    model = make_tiny_model()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Samples(),
        eval_dataset=Samples(),
        data_collator=lambda chats: encode(tiny_processor, chats, return_labels=True),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < 0.5 * before
    trainer.save_model(str(tmp_path / "final"))
    loaded = FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "final", attn_implementation="eager")
    inputs = encode(tiny_processor, CHATS[0])
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(**inputs).logits, model.eval()(**inputs).logits)


def test_noise_on_embeddings(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    """NEFTune reaches words and the queries' anchor alike, in training alone, and is gone after it."""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")
    from transformers import Trainer, TrainingArguments
    from transformers.integrations.neftune import activate_neftune, deactivate_neftune

    model = make_tiny_model(sap_dropout=0.0)
    inputs = batch_of("mixed", tiny_processor)
    quiet = model.train()(**inputs).loss
    handle = activate_neftune(model, 5.0)
    embedded = torch.zeros(2, 30, model.config.text_config.hidden_size)
    anchor = model.model.get_input_embeddings().weight[model.config.anchor_token_id]
    noise = torch.stack([model.model._anchor(embedded) - anchor for _ in range(20)]).abs().max()
    assert 0.5 * 5 / (30 * 48) ** 0.5 < noise <= 5 / (30 * 48) ** 0.5 + 1e-6
    assert model(**inputs).loss != quiet
    torch.testing.assert_close(model.eval()(**inputs).loss, quiet)
    deactivate_neftune(model, handle)
    assert torch.equal(model.train()(**inputs).loss, quiet)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        neftune_noise_alpha=5.0,
        max_steps=2,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Samples(),
        data_collator=lambda chats: encode(tiny_processor, chats, return_labels=True),
    )
    assert trainer.train().global_step == 2


def test_accumulated_steps_weigh_every_token_alike(tiny_model: Any, tiny_processor: FlashSlothProcessor) -> None:
    """Two halves, each told how many tokens the whole has, make the whole's gradient."""
    whole = batch_of("mixed", tiny_processor)
    expected = gradients(tiny_model, whole)
    learned = (whole["labels"][:, 1:] != -100).sum()
    tiny_model.zero_grad(set_to_none=True)
    for chats in (CHATS[:1], CHATS[1:]):
        tiny_model(**encode(tiny_processor, chats, return_labels=True), num_items_in_batch=learned).loss.backward()
    for name, parameter in tiny_model.named_parameters():
        if expected[name] is not None:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_an_adapter_is_trained_saved_loaded_and_merged(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft", reason="adapters need peft")
    base = make_tiny_model()
    untouched = copy.deepcopy(base)
    saved = ["projector", "spatial_attention_pooling", "embedded_query", "query_tokens"]
    config = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*\.(q_proj|v_proj|fc1)", modules_to_save=saved, lora_dropout=0.0
    )
    model = peft.get_peft_model(base, config).train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(any(f"{part}.modules_to_save" in name for name in trained) for part in saved)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    for batch in BATCHES:
        found = gradients(model, batch_of(batch, tiny_processor))
        assert [name for name, gradient in found.items() if gradient is None] == [], batch
        optimizer.step()
    inputs = encode(tiny_processor, CHATS, padding_side="left")
    model.eval()
    with torch.no_grad():
        expected = model(**inputs).logits
        assert not torch.allclose(expected, untouched(**inputs).logits, atol=1e-2)
        model.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(untouched, tmp_path).eval()
        torch.testing.assert_close(loaded(**inputs).logits, expected)
        merged = loaded.merge_and_unload()
        assert isinstance(merged, FlashSlothForConditionalGeneration)
        torch.testing.assert_close(merged(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        again = FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "merged", attn_implementation="eager")
        torch.testing.assert_close(again.eval()(**inputs).logits, merged(**inputs).logits)


@pytest.mark.parametrize("trained", ["projector", "language_model", "vision_tower"])
def test_gradients_start_where_learning_does(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, trained: str
) -> None:
    """A frozen encoder leaves nothing for backward; a frozen language model passes gradients on to the projector."""
    model = make_tiny_model().train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{trained}." in name)
    features = []
    model.model.vision_tower.register_forward_hook(lambda *call: features.append(call[-1].last_hidden_state))
    found = gradients(model, batch_of("pictures without queries", tiny_processor))
    assert features[0].requires_grad == (trained == "vision_tower")
    assert any(gradient.abs().sum() > 0 for gradient in found.values())


def test_a_frozen_encoder_is_not_run_for_a_batch_without_pictures(tiny_model: Any, tiny_processor: Any) -> None:
    tiny_model.train().model.vision_tower.requires_grad_(False)
    called = []
    tiny_model.model.vision_tower.register_forward_hook(lambda *_: called.append(True))
    found = gradients(tiny_model, batch_of("no pictures", tiny_processor))
    assert not called
    assert all(gradient is not None for gradient in found.values())


def test_features_may_come_without_their_visual_tokens(tiny_model: Any, tiny_processor: FlashSlothProcessor) -> None:
    inputs = batch_of("mixed", tiny_processor)
    expected = tiny_model(**inputs).logits
    features = tiny_model.model.encode_pictures(inputs.pop("pixel_values"))
    found = tiny_model(**inputs, mm_encoder_outputs={"image": FlashSlothImageFeatures(last_hidden_state=features)})
    torch.testing.assert_close(found.logits, expected)
