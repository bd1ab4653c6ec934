"""What `inspect_checkpoint` tells of whole, true-sized and damaged checkpoints."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from published_files import (
    TINY_IDS,
    WEIGHTS,
    add_tiny_tokenizer,
    copy_tiny,
    drop_stage_2,
    edit_json,
    edit_tensors,
    make_hollow,
    shard,
)
from safetensors.torch import load_file, save_file

from flashsloth.checkpoint.convert import convert
from flashsloth.checkpoint.inspect import inspect_checkpoint
from flashsloth.model.loading import CheckpointError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.processing_flashsloth import FlashSlothProcessor

SECONDS = 20  # of one processor, which looks at every number once
"""Generous: true size takes a fraction of one on an idle machine."""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path / "published")


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a hole stays one when it is read; on a disk, the system would keep all of its zeros."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_the_true_size_at_a_glance(roomy: Path) -> None:
    folder = make_hollow(roomy / "hollow", image_hd=True)
    start = time.process_time()
    info = inspect_checkpoint(folder)
    assert time.process_time() - start < SECONDS
    assert (info.layout, info.variant, info.stage) == ("published", "HD", 2)
    assert info.dtypes == {"F16": info.total_parameters}
    assert round(info.total_parameters / 1e9, 3) == 3.196
    millions = {part: round(count / 1e6) for part, count in info.parameters.items()}
    assert millions["vision encoder"] == 398
    assert millions["language model"] + millions["head"] == 2780
    assert (millions["projector"], millions["SAP"], millions["EmbQ"]) == (10, 1, 8)
    assert info.total_bytes > 2 * info.total_parameters
    assert info.sizes["tokens_per_image"] == 405
    assert "generation_config.json ends answers with 50256, expected 50296 (made good when loading)" in info.remarks


@pytest.mark.parametrize(("window", "told"), [(16, True), (None, False)])
def test_a_model_that_answers_a_request_at_a_time_is_told(window: int | None, told: bool, tmp_path: Path) -> None:
    tokenizer = tiny.make_tokenizer()
    text = {**tiny.TEXT, "model_type": "mistral", "sliding_window": window, "head_dim": 12}
    config = tiny.make_config(tokenizer, text_config=text, lm_head_bias=False)
    tiny.make_model(config).save_pretrained(tmp_path)
    tiny.make_processor(tokenizer, config).save_pretrained(tmp_path)
    remarks = inspect_checkpoint(tmp_path).remarks
    assert any("answers a request at a time" in remark for remark in remarks) == told


def test_ours_without_a_remark(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    tiny_model.model.embedded_query.norm_text.bias.data[0] = 0.5
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    info = inspect_checkpoint(tmp_path)
    assert info.remarks == []
    assert (info.layout, info.variant, info.stage) == ("flashsloth", "base", 2)
    assert info.total_parameters == sum(parameter.numel() for parameter in tiny_model.parameters())
    assert info.files == {WEIGHTS: (tmp_path / WEIGHTS).stat().st_size}
    assert info.vocabulary["tokens"] == len(tiny_processor.tokenizer)
    assert json.loads(json.dumps(info.to_dict()))["total_parameters"] == info.total_parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_an_untouched_embq_is_stage_1(
    tiny_model: FlashSlothForConditionalGeneration, tmp_path: Path, dtype: torch.dtype
) -> None:
    norm = tiny_model.model.embedded_query.norm_text
    tiny_model.to(dtype).save_pretrained(tmp_path / "untouched")
    norm.weight.data[1] += 0.01
    tiny_model.save_pretrained(tmp_path / "touched")
    untouched = inspect_checkpoint(tmp_path / "untouched")
    assert untouched.stage == 1
    assert any("absent or untrained" in remark for remark in untouched.remarks)
    assert inspect_checkpoint(tmp_path / "touched").stage == 2


def test_stage_1_lacks_what_stage_2_trains(published: Path) -> None:
    drop_stage_2(published)
    info = inspect_checkpoint(published, **TINY_IDS)
    assert info.stage == 1
    assert info.parameters["EmbQ"] == info.parameters["query tokens"] == 0
    assert not any("missing tensors" in remark for remark in info.remarks)


def test_conversion_removes_every_remark(published: Path, tmp_path: Path) -> None:
    add_tiny_tokenizer(published)
    before = inspect_checkpoint(published, anchor_token_id=13)
    assert {remark.split(" (")[0] for remark in before.remarks} == {
        "no generation_config.json",
        "no tokenizer.json",
        "no processor",
    }
    after = inspect_checkpoint(convert(published, tmp_path / "ours", anchor_token_id=13))
    assert after.remarks == []
    assert after.parameters == before.parameters


def test_damage_is_told(published: Path) -> None:
    edit_tensors(
        published, model__mm_projector__0__bias=None, lm_head__bias=torch.zeros(3), model__extra=torch.zeros(2).half()
    )
    remarks = "\n".join(inspect_checkpoint(published, **TINY_IDS).remarks)
    assert "missing tensors: model.projector.linear_1.bias [80]" in remarks
    assert f"unexpected tensors: model.extra in {WEIGHTS}" in remarks
    assert f"{WEIGHTS}: lm_head.bias is [3], expected [512]" in remarks
    assert "several types: F16, F32" in remarks
    assert "no tokenizer: neither tokenizer.json nor vocab.json" in remarks


def test_a_missing_shard_is_told(published: Path) -> None:
    shard(published, shards=40)
    (published / "model-00040-of-00040.safetensors").unlink()
    (published / "model-00039-of-00040.safetensors").write_bytes(b"short")
    remarks = "\n".join(inspect_checkpoint(published, **TINY_IDS).remarks)
    assert "shards model-00040-of-00040.safetensors are missing" in remarks
    assert "model-00039-of-00040.safetensors: not a safetensors file, or cut short" in remarks
    assert "missing tensors" in remarks


def test_a_tokenizer_that_disagrees_is_told(
    tiny_model: FlashSlothForConditionalGeneration, tiny_processor: FlashSlothProcessor, tmp_path: Path
) -> None:
    tiny_processor.save_pretrained(tmp_path)
    tiny_model.config.image_token_id = 5
    tiny_model.save_pretrained(tmp_path)
    edit_json(tmp_path / "generation_config.json", eos_token_id=7, suppress_tokens=None)
    remarks = "\n".join(inspect_checkpoint(tmp_path).remarks)
    image_id = tiny_processor.image_token_id
    assert f"the tokenizer numbers <image> {image_id}, config.json 5" in remarks
    assert "ends answers with 7, expected None" in remarks
    assert "does not suppress the placeholders" in remarks


def test_what_is_no_flashsloth_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="'llama', expected a FlashSloth"):
        inspect_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere"):
        inspect_checkpoint(tmp_path / "nowhere", local_files_only=True)


def test_every_parameter_belongs_to_a_part(published: Path) -> None:
    info = inspect_checkpoint(published, **TINY_IDS)
    assert "other" not in info.parameters
    assert info.total_parameters == sum(tensor.numel() for tensor in load_file(published / WEIGHTS).values())
    assert tiny.VOCABULARY != info.vocabulary["embedding_rows"] == 512
