"""The loss without all logits: the plain loss and its gradients, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import VOCABULARY as VOCABULARY_OF_TINY
from tiny import TinyModelMaker, assistant, encode, picture, user
from transformers.loss.loss_utils import ForCausalLMLoss

from flashsloth.model import loss as language_model_head
from flashsloth.model.loss import (
    IGNORED_LABEL,
    ROWS_AT_A_TIME,
    LanguageModelHead,
    next_tokens,
    token_losses,
)
from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.planning.memory import LiveMemory

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")

CHATS = [
    [user("What is this?", picture(1)), assistant("A dog."), user("Sure?"), assistant("Yes, a red dog.")],
    [user("Why?"), assistant("So.")],
]
WIDTH, VOCABULARY = 16, 4096


@pytest.fixture
def _few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a tiny batch has many."""
    monkeypatch.setattr(language_model_head, "ROWS_AT_A_TIME", 3)


def gradients(model: torch.nn.Module, inputs: dict[str, Any], **options: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    loss = model(**inputs, **options).loss
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found: tuple[float, dict], expected: tuple[float, dict], **tolerance: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance.get("rtol", 1e-5))
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, **{"rtol": 1e-4, "atol": 1e-6, **tolerance}, msg=name)


@pytest.mark.usefixtures("_few_rows")
@pytest.mark.parametrize("count", [None, 7, torch.tensor(50)], ids=["mean", "int", "tensor"])
@pytest.mark.parametrize(
    "fields", [{}, {"lm_head_bias": False}, {"tie_word_embeddings": True, "lm_head_bias": False}], ids=str
)
def test_the_plain_loss_and_its_gradients(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, fields: dict[str, bool], count: Any
) -> None:
    model = make_tiny_model(sap_dropout=0.0, **fields).train()
    inputs = {**encode(tiny_processor, CHATS, return_labels=True), "num_items_in_batch": count}
    assert (inputs["labels"] == IGNORED_LABEL).any()
    assert_same(gradients(model, inputs), gradients(model, inputs, skip_logits=False))
    assert model(**inputs).logits is None


@pytest.mark.usefixtures("_few_rows")
def test_with_activation_checkpointing(make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor) -> None:
    model = make_tiny_model(sap_dropout=0.0).train()
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    expected = gradients(model, inputs, skip_logits=False)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(gradients(model, inputs), expected)


@pytest.mark.usefixtures("_few_rows")
def test_mixed_precision(make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor) -> None:
    model = make_tiny_model(sap_dropout=0.0).train()
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    found, losses = {}, {}
    for skip in (True, False):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(**inputs, skip_logits=skip)
        output.loss.backward()
        assert output.loss.dtype == torch.float32
        losses[skip], found[skip] = output.loss.item(), model.lm_head.weight.grad.clone()
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert F.cosine_similarity(found[True].flatten(), found[False].flatten(), dim=0) > 0.9999


def test_whole_model_in_bfloat16(make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor) -> None:
    model = make_tiny_model(sap_dropout=0.0).to(torch.bfloat16).train()
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    alone, plain = gradients(model, inputs), gradients(model, inputs, skip_logits=False)
    assert alone[0] == pytest.approx(plain[0], rel=1e-3)


@pytest.mark.usefixtures("_few_rows")
@pytest.mark.parametrize("how", ["saved whole", "low rank"])
def test_a_head_that_peft_wraps(make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, how: str) -> None:
    peft = pytest.importorskip("peft", reason="adapters need peft")
    options = {"modules_to_save": ["lm_head"]} if how == "saved whole" else {}
    targets = r".*language_model.*\.q_proj" + ("" if how == "saved whole" else "|lm_head")
    config = peft.LoraConfig(r=2, target_modules=targets, lora_dropout=0.0, init_lora_weights=False, **options)
    model = peft.get_peft_model(make_tiny_model(sap_dropout=0.0), config).train()
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    found = gradients(model, inputs)
    assert any("lm_head" in name for name in found[1])
    assert_same(found, gradients(model, inputs, skip_logits=False))


@pytest.mark.usefixtures("_few_rows")
def test_evaluation_gets_the_most_likely_tokens(tiny_model: Any, tiny_processor: FlashSlothProcessor) -> None:
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    with torch.no_grad():
        whole, alone = tiny_model(**inputs), tiny_model(**inputs, skip_logits=True)
    before = F.pad(inputs["labels"][:, 1:] != IGNORED_LABEL, (0, 1))
    assert alone.logits is None
    assert alone.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
    assert torch.equal(alone.predicted[before], whole.logits.argmax(dim=-1)[before])
    assert not alone.predicted[~before].any()


def test_nothing_supervised_is_no_loss_but_has_gradients(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor
) -> None:
    """One device of many may have nothing to learn in a step."""
    model = make_tiny_model().train()
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    inputs["labels"] = torch.full_like(inputs["labels"], IGNORED_LABEL)
    loss, found = gradients(model, inputs, num_items_in_batch=5)
    assert loss == 0
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert not any(gradient.any() for gradient in found.values())


@pytest.mark.usefixtures("_few_rows")
@pytest.mark.parametrize("skip_logits", [False, True])
@pytest.mark.parametrize("count", [None, 11])
@pytest.mark.parametrize("beside", ["labels", "no labels"])
def test_labels_that_are_shifted_already(
    tiny_model: Any, tiny_processor: FlashSlothProcessor, skip_logits: bool, count: int | None, beside: str
) -> None:
    """As where a sequence is split over devices: what follows a part's last token is in its labels, too."""
    inputs = encode(tiny_processor, CHATS, return_labels=True)
    labels = inputs.pop("labels")
    shifted = torch.cat([labels[:, 1:], torch.full((2, 1), 7)], dim=1)
    given = {"labels": labels} if beside == "labels" else {}
    found = tiny_model(**inputs, **given, shift_labels=shifted, skip_logits=skip_logits, num_items_in_batch=count).loss
    logits = tiny_model(**inputs).logits
    expected = ForCausalLMLoss(logits, None, VOCABULARY_OF_TINY, num_items_in_batch=count, shift_labels=shifted)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.isclose(found, tiny_model(**inputs, labels=labels, num_items_in_batch=count).loss)


def test_logits_cannot_be_skipped_for_nothing(tiny_model: Any, tiny_processor: FlashSlothProcessor) -> None:
    with pytest.raises(ValueError, match="skip_logits=True makes the loss alone, which needs labels"):
        tiny_model(**encode(tiny_processor, CHATS), skip_logits=True)


def test_memory_is_that_of_one_chunk() -> None:
    rows = 6 * ROWS_AT_A_TIME
    head = LanguageModelHead(WIDTH, VOCABULARY)
    states = torch.randn(1, rows, WIDTH, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (1, rows))
    with LiveMemory(head) as memory:
        token_losses(head, states, next_tokens(labels))[0].total.backward()
    chunk = 4 * ROWS_AT_A_TIME * VOCABULARY
    assert chunk < memory.peak < 5 * chunk
    with LiveMemory(head) as plain:
        F.cross_entropy(head(states)[0, :-1].float(), labels[0, 1:], reduction="sum").backward()
    assert plain.peak > 6 * 2 * chunk
