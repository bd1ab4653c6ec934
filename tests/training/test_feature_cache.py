"""Features on disk: computed once, the same loss, bounded, and clear about what goes wrong."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyModelMaker, assistant, encode, picture, user

from flashsloth.model.processing_flashsloth import FlashSlothProcessor
from flashsloth.training import feature_cache as feature_store
from flashsloth.training.feature_cache import (
    FeatureCollator,
    FeatureStore,
    FeatureStoreError,
    encoder_fingerprint,
    reading_features,
)
from flashsloth.training.recipe import RecipeError, load_recipe
from flashsloth.training.recipe_fields import FeatureCache
from tests.training import tiny_runs

CHATS = [
    [user("What?", picture(1)), assistant("A dog.")],
    [user("Why?"), assistant("So.")],
    [user("Which?", picture(2), picture(1)), assistant("The left one.")],
]
TINY_BYTES = 36 * 32 * 4 + feature_store.FILE_HEADER
"""6x6 patches of 32 float32 numbers."""


def frozen(model: Any) -> Any:
    model.model.vision_tower.requires_grad_(False)
    return model.train()


def cache(within: Path, **changes: Any) -> FeatureCache:
    return FeatureCache(**{"folder": str(within / "features"), "max_gb": 1.0, "dtype": "float32", **changes})


def open_store(model: Any, settings: FeatureCache, processes: int = 1) -> FeatureStore:
    return FeatureStore(settings, model.model, "float32", processes)


def collator(processor: FlashSlothProcessor, store: FeatureStore) -> FeatureCollator:
    return FeatureCollator(lambda chats: encode(processor, chats, return_labels=True), store)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").rglob("*.safetensors"))


def learn(model: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), model.model.projector.linear_1.weight.grad.clone()


def test_losses_and_gradients_are_those_without_it(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = frozen(make_tiny_model(sap_dropout=0.0))
    expected = learn(model, encode(tiny_processor, CHATS, return_labels=True))
    looked = []
    model.model.vision_tower.register_forward_hook(lambda *call: looked.append(len(call[-1].last_hidden_state)))
    store = open_store(model, cache(tmp_path))
    batches = collator(tiny_processor, store)
    with reading_features(model, store):
        for _ in range(2):
            loss, gradient = learn(model, batches(CHATS))
            assert loss == pytest.approx(expected[0], abs=1e-6)
            torch.testing.assert_close(gradient, expected[1])
        some = learn(model, batches([CHATS[0], [user("New?", picture(9)), assistant("Yes.")]]))
    assert looked == [3, 1]  # all of them, none, the new one
    assert len(files(tmp_path)) == 3
    assert some[0] > 0
    without = learn(model, encode(tiny_processor, CHATS, return_labels=True))
    assert without[0] == pytest.approx(expected[0])


def test_rounded_features_are_the_same_fresh_and_stored(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = frozen(make_tiny_model(sap_dropout=0.0))
    store = open_store(model, cache(tmp_path, dtype="bfloat16"))
    batches = collator(tiny_processor, store)
    with reading_features(model, store):
        fresh, stored = learn(model, batches(CHATS)), learn(model, batches(CHATS))
    assert fresh[0] == stored[0]
    assert torch.equal(fresh[1], stored[1])
    assert store.picture_bytes == 36 * 32 * 2 + feature_store.FILE_HEADER
    assert abs(files(tmp_path)[0].stat().st_size - store.picture_bytes) < feature_store.FILE_HEADER


def test_a_batch_without_pictures_is_left_alone(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = frozen(make_tiny_model())
    store = open_store(model, cache(tmp_path))
    batch = collator(tiny_processor, store)([CHATS[1]])
    assert feature_store.BATCH_KEY not in batch
    with reading_features(model, store):
        assert learn(model, batch)[0] > 0


def test_other_weights_other_pixels_and_other_precision_are_other_features(
    make_tiny_model: TinyModelMaker, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    model = frozen(make_tiny_model())
    store = open_store(model, cache(tmp_path))
    pixels = encode(tiny_processor, CHATS)["pixel_values"]
    keys = {store.key(picture) for picture in pixels}
    assert len(keys) == 2  # two of the three are one picture
    before = encoder_fingerprint(model.model, "float32")
    assert encoder_fingerprint(model.model, "bf16") != before
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).add_(1e-3)
    assert encoder_fingerprint(model.model, "float32") != before


def test_it_is_bounded_by_all_processes_together(
    make_tiny_model: TinyModelMaker,
    tiny_processor: FlashSlothProcessor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = frozen(make_tiny_model())
    settings = cache(tmp_path, max_gb=2.5 * TINY_BYTES / 1e9)
    store = open_store(model, settings)
    chats = [[user("What?", picture(seed)), assistant("A dog.")] for seed in range(4)]
    batches = collator(tiny_processor, store)
    with reading_features(model, store), caplog.at_level(logging.INFO):
        learn(model, batches(chats))
    assert len(files(tmp_path)) == 2
    assert caplog.text.count("the rest is computed") == 1
    again = open_store(model, settings)
    assert (again.used, again.left) == (
        sum(file.stat().st_size for file in files(tmp_path)),
        pytest.approx(0, abs=3000),
    )
    assert open_store(model, cache(tmp_path, max_gb=1), processes=4).left == (10**9 - again.used) // 4


def test_the_size_is_said_beforehand(
    make_tiny_model: TinyModelMaker,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = open_store(frozen(make_tiny_model()), cache(tmp_path))
    with caplog.at_level(logging.INFO):
        store.announce(1000)
    assert "features of a picture take 4.74 kB; 1,000 are 4.74 MB" in caplog.text
    usage = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        FeatureStoreError, match=r"may write 4.74 MB into .*, whose disk has 1.00 MB free: lower max_gb"
    ):
        store.announce(1000)


def test_a_full_disk_is_told_and_leaves_no_half_file(
    make_tiny_model: TinyModelMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(frozen(make_tiny_model()), cache(tmp_path))

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_store, "save_file", full)
    with pytest.raises(FeatureStoreError, match=r"its disk is full .* free\): free some, lower feature_cache.max_gb"):
        store.write(b"k" * 32, torch.zeros(36, 32))
    assert [path for path in (tmp_path / "features").rglob("*") if path.is_file()] == []


def test_a_damaged_file_is_computed_anew(
    make_tiny_model: TinyModelMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(frozen(make_tiny_model()), cache(tmp_path))
    key = b"k" * 32
    assert store.read(key) is None
    store.write(key, torch.ones(36, 32))
    assert torch.equal(store.read(key), torch.ones(36, 32))
    file = files(tmp_path)[0]
    file.write_bytes(file.read_bytes()[:50])
    assert store.read(key) is None
    assert "is damaged" in caplog.text


def test_an_encoder_that_learns_or_drops_is_refused(make_tiny_model: TinyModelMaker, tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match="this stage trains the vision encoder"):
        open_store(make_tiny_model(), cache(tmp_path))
    model = frozen(make_tiny_model())
    model.model.vision_tower.config.attention_dropout = 0.1
    with pytest.raises(FeatureStoreError, match="needs an encoder without dropout"):
        open_store(model, cache(tmp_path))


@pytest.mark.parametrize(
    ("stage", "group", "message"),
    [
        ("alignment", "{folder: '', max_gb: 1}", 'folder: found "", expected text that is not empty'),
        ("alignment", "{folder: a, max_gb: 0}", "max_gb: found 0, expected a number above 0"),
        ("alignment", "{folder: a, max_gb: 1, dtype: int8}", 'dtype: found "int8", expected bfloat16 or float32'),
        ("alignment", "{folder: a}", "max_gb: missing, expected a number above 0"),
        ("instruction_hd", "{folder: a, max_gb: 1}", "features of an encoder that learns cannot be kept"),
        ("alignment", "{folder: a, max_gb: 1}, engine: {kind: zero3}", "feature_cache needs the encoder whole"),
        ("alignment", "{folder: a, max_gb: 1}, augment: true", "varies pictures, whose features"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, stage: str, group: str, message: str) -> None:
    text = tiny_runs.ALIGNMENT.replace("alignment", stage) + f", feature_cache: {group}"
    with pytest.raises(RecipeError) as refused:
        load_recipe(tiny_runs.write_recipe(tmp_path, text))
    assert f"stages.{stage}." in str(refused.value)
    assert message in str(refused.value)
