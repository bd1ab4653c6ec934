"""The published layout read, loaded strictly, and turned into ours and back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from published_files import (
    INDEX,
    PUBLISHED_TOKENIZER,
    RECORDED,
    TINY_IDS,
    WEIGHTS,
    TinyTokens,
    add_published_tokenizer,
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
from flashsloth.model import loading
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading import CheckpointError, is_published, published_config
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration, FlashSlothModel

LM_BIAS = "lm_head.bias"
PROJECTOR_BIAS = "model.mm_projector.0.bias"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return copy_tiny(tmp_path / "published")


def load(folder: Path, **options: Any) -> FlashSlothForConditionalGeneration:
    return FlashSlothForConditionalGeneration.from_pretrained(folder, **{**TINY_IDS, **options})


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class TestNames:
    def test_every_published_tensor_has_one_name_here_and_back(self) -> None:
        names = list(load_file(RECORDED / WEIGHTS))
        ours = [loading.to_ours(name) for name in names]
        assert None not in ours
        assert len(set(ours)) == len(names)
        assert [loading.to_published(name) for name in ours if name] == names

    def test_a_stranger_has_none(self) -> None:
        assert loading.to_ours("model.norm.weight") is None
        assert loading.to_published("model.language_model.norm.weight") is None


class TestIsPublished:
    def test_by_its_configuration(self, published: Path) -> None:
        assert is_published(published)
        assert is_published(str(published))

    def test_nothing_else_is(self, published: Path, tmp_path: Path, tiny_config: FlashSlothConfig) -> None:
        tiny_config.save_pretrained(tmp_path / "ours")
        (tmp_path / "phi").mkdir()
        (tmp_path / "phi" / "config.json").write_text('{"model_type": "phi"}')
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "config.json").write_text("{")
        for other in ("ours", "phi", "broken", "nothing"):
            assert not is_published(tmp_path / other)
        assert not is_published(None)
        assert not is_published("not a hub name at all", local_files_only=True)


class TestPublishedConfig:
    def test_true_sizes_are_read_off_the_shapes(self, tmp_path: Path) -> None:
        config = published_config(make_hollow(tmp_path / "hollow"))
        default = FlashSlothConfig()
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "image_size", "patch_size", "hidden_act"):
            assert getattr(config.vision_config, name) == getattr(default.vision_config, name), name
        assert config.vision_config.num_attention_heads == 16
        for name in ("num_query_tokens", "query_size", "embq_num_heads", "num_image_tokens", "image_token_id"):
            assert getattr(config, name) == getattr(default, name), name
        assert (config.text_config.eos_token_id, config.text_config.pad_token_id) == (50296, 50256)
        assert config.text_config.rope_parameters["partial_rotary_factor"] == 0.4
        assert config.dtype == torch.float16

    @pytest.mark.parametrize(
        ("folder", "changes", "views"),
        [
            ("FlashSloth-3.2B", {}, 1),
            ("FlashSloth_HD-3.2B", {}, 5),
            ("FlashSloth_HD-3.2B", {"image_hd": False}, 1),
            ("anything", {"image_hd": True}, 5),
            ("models--Tongbo--FlashSloth_HD-3.2B/snapshots/0a1b", {}, 5),
            ("shdw", {}, 1),
        ],
    )
    def test_hd_by_its_key_or_else_by_its_name(
        self, tmp_path: Path, folder: str, changes: dict[str, bool], views: int
    ) -> None:
        place = copy_tiny(tmp_path / folder, image_hd=None)
        edit_json(place / "config.json", **changes)
        assert published_config(place, **TINY_IDS).num_views == views

    def test_the_argument_decides(self, published: Path) -> None:
        assert published_config(published, image_grid=2, **TINY_IDS).num_views == 5
        vision = json.loads((published / "vision_config.json").read_text())
        (published / "vision_config.json").unlink()
        config = published_config(published, vision_config={**vision, "layer_norm_eps": 1e-5}, **TINY_IDS)
        assert config.vision_config.layer_norm_eps == 1e-5

    def test_an_unknown_encoder_is_asked_for(self, published: Path) -> None:
        (published / "vision_config.json").unlink()
        with pytest.raises(CheckpointError, match=r"width 48 .* vision_config\.json"):
            published_config(published, **TINY_IDS)

    def test_ids_come_from_the_tokenizer(self, published: Path) -> None:
        config = published_config(add_tiny_tokenizer(published), anchor_token_id=13)
        assert (config.query_token_id, config.image_token_id) == (TinyTokens.QUERY, TinyTokens.IMAGE)
        assert (config.text_config.eos_token_id, config.text_config.pad_token_id) == (TinyTokens.END, TinyTokens.PAD)

    def test_the_flat_file_is_kept(self, published: Path) -> None:
        config = published_config(published, **TINY_IDS)
        assert config.published_config == json.loads((published / "config.json").read_text())

    def test_another_kind_of_file_is_refused(self, published: Path) -> None:
        edit_json(published / "config.json", model_type="llama")
        with pytest.raises(CheckpointError, match="not in the published layout"):
            published_config(published)


class TestLoading:
    @pytest.mark.parametrize("in_shards", [False, True])
    def test_computes_what_plainly_loaded_weights_do(self, published: Path, in_shards: bool) -> None:
        """Buffers that no file holds are right, too: a model made without tricks is the measure."""
        config = published_config(published, **TINY_IDS)
        plain = FlashSlothForConditionalGeneration._from_config(config).eval()
        weights = load_file(published / WEIGHTS)
        plain.load_state_dict({loading.to_ours(name) or name: tensor for name, tensor in weights.items()})
        if in_shards:
            shard(published)
        model = load(published)
        buffers = dict(plain.named_buffers())
        assert buffers
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, buffers[name]), name
        ids = torch.arange(20).unsqueeze(0)
        pixels = torch.randn(1, 3, 126, 126, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)
            ours, theirs = model.get_image_features(pixels), plain.get_image_features(pixels)
        torch.testing.assert_close(ours.pooler_output, theirs.pooler_output)
        assert not model.training

    @pytest.mark.parametrize("case", ["single", "hd"])
    def test_sees_what_the_published_code_saw(self, published: Path, case: str) -> None:
        recorded = load_file(RECORDED / "cases.safetensors")
        images = recorded[f"{case}/images"]
        model = load(published, image_grid=2 if case == "hd" else 1)
        with torch.no_grad():
            image = model.get_image_features(images)
        torch.testing.assert_close(
            image.pooler_output.flatten(0, 1), recorded[f"{case}/visual_tokens"].flatten(0, 1), atol=2e-5, rtol=1e-4
        )

    def test_precision(self, published: Path) -> None:
        assert load(published).dtype == torch.float32
        assert load(published, dtype=torch.bfloat16).dtype == torch.bfloat16
        assert load(published, torch_dtype="float16", device_map="cpu").dtype == torch.float16
        tensors = {name: tensor.half() for name, tensor in load_file(published / WEIGHTS).items()}
        save_file(tensors, published / WEIGHTS)  # config.json still says float32
        assert load(published, dtype="auto").dtype == torch.float16

    def test_options(self, published: Path) -> None:
        model = load(published, attn_implementation="eager", sap_dropout=0.5)
        assert model.config._attn_implementation == "eager"
        assert model.config.sap_dropout == 0.5
        assert model.name_or_path == str(published)
        with pytest.raises(CheckpointError, match="trust_remote_code is refused"):
            load(published, trust_remote_code=True)

    def test_the_base_model_needs_no_head(self, published: Path) -> None:
        model, info = FlashSlothModel.from_pretrained(published, output_loading_info=True, **TINY_IDS)
        assert not info["missing_keys"]
        assert torch.equal(model.projector.linear_1.bias, load_file(published / WEIGHTS)[PROJECTOR_BIAS])

    def test_answers_end_where_they_should(self, published: Path) -> None:
        settings = load(add_tiny_tokenizer(published), query_token_id=TinyTokens.QUERY).generation_config
        assert (settings.eos_token_id, settings.pad_token_id) == (TinyTokens.END, TinyTokens.PAD)
        assert set(settings.suppress_tokens) == {TinyTokens.QUERY, TinyTokens.IMAGE}

    def test_stage_1_is_loaded_aloud(self, published: Path, caplog: pytest.LogCaptureFixture) -> None:
        drop_stage_2(published)
        with caplog.at_level(logging.WARNING):
            model = load(published)
        assert "no query tokens and no EmbQ (stage 1)" in caplog.text
        embq = model.model.embedded_query
        assert not embq.up.weight.any()
        assert embq.down_text.weight.std() > 0
        assert model.model.query_tokens.weight.std() > 0

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({PROJECTOR_BIAS: None}, rf"{PROJECTOR_BIAS} is missing, expected \[80\]"),
            ({LM_BIAS: torch.zeros(3)}, rf"{WEIGHTS}: {LM_BIAS} is \[3\], expected \[512\]"),
            ({"model.extra": torch.zeros(1)}, rf"{WEIGHTS}: model\.extra is unexpected"),
            ({"model.lqformer.up_projector.bias": None}, r"up_projector\.bias is missing"),
        ],
    )
    def test_what_does_not_fit_is_named(self, published: Path, change: dict[str, Any], said: str) -> None:
        edit_tensors(published, **{name.replace(".", "__"): tensor for name, tensor in change.items()})
        with pytest.raises(CheckpointError, match=said) as caught:
            load(published)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("cut", [3, 40, 100_000])
    def test_a_file_cut_short_is_named(self, published: Path, cut: int) -> None:
        (published / WEIGHTS).write_bytes((published / WEIGHTS).read_bytes()[:cut])
        with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: .*cut short"):
            load(published)

    def test_a_missing_shard_is_named(self, published: Path) -> None:
        shard(published)
        (published / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors are missing"):
            load(published)

    def test_an_index_reaches_no_file_outside(self, published: Path) -> None:
        shard(published)
        index = json.loads((published / INDEX).read_text())
        index["weight_map"][LM_BIAS] = "../other.safetensors"
        (published / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="outside its folder"):
            load(published)

    def test_ours_is_as_strict(self, tiny_model: FlashSlothForConditionalGeneration, tmp_path: Path) -> None:
        tiny_model.save_pretrained(tmp_path)
        edit_tensors(tmp_path, model__projector__linear_1__bias=None, lm_head__bias=torch.zeros(3))
        edit_tensors(tmp_path, stranger=torch.zeros(1))
        with pytest.raises(CheckpointError) as caught:
            FlashSlothForConditionalGeneration.from_pretrained(tmp_path)
        assert "model.projector.linear_1.bias is missing, expected [48]" in str(caught.value)
        assert f"{WEIGHTS}: lm_head.bias is [3], expected [384]" in str(caught.value)
        assert f"{WEIGHTS}: stranger is unexpected" in str(caught.value)

    def test_ours_lacks_embq_only_if_it_says_so(
        self, tiny_model: FlashSlothForConditionalGeneration, tmp_path: Path
    ) -> None:
        tiny_model.save_pretrained(tmp_path)
        drop_stage_2(tmp_path)
        with pytest.raises(CheckpointError, match=r"embedded_query.* is missing"):
            FlashSlothForConditionalGeneration.from_pretrained(tmp_path)
        edit_json(tmp_path / "config.json", training_stage=1)
        FlashSlothForConditionalGeneration.from_pretrained(tmp_path)

    def test_a_name_that_is_nowhere_is_reported_by_transformers(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="nothing"):
            FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "nothing")


class TestProcessor:
    def test_is_made_of_the_published_files(self, published: Path) -> None:
        add_tiny_tokenizer(published)
        processor = loading.load_processor(published, anchor_token_id=13)
        inputs = tiny.encode(processor, [tiny.user("What is this? </s> <image>", tiny.picture())])
        assert inputs["pixel_values"].shape == (1, 1, 3, 126, 126)
        assert (inputs["input_ids"] == TinyTokens.IMAGE).sum() == 9
        assert (inputs["input_ids"] == TinyTokens.QUERY).sum() == 9
        assert (inputs["input_ids"] == TinyTokens.END).sum() == 0
        assert processor.tokenizer.eos_token_id == TinyTokens.END

    def test_needs_a_tokenizer(self, published: Path) -> None:
        config = published_config(published, **TINY_IDS)
        with pytest.raises(CheckpointError, match="no tokenizer"):
            loading.published_processor(published, config)

    def test_numbers_must_agree(self, published: Path) -> None:
        config = published_config(add_tiny_tokenizer(published), anchor_token_id=13, image_token_id=400)
        with pytest.raises(CheckpointError, match=f"'<image>' {TinyTokens.IMAGE}, expected 400"):
            loading.published_processor(published, config)

    @pytest.mark.skipif(not PUBLISHED_TOKENIZER.is_dir(), reason=f"no published tokenizer at {PUBLISHED_TOKENIZER}")
    @pytest.mark.parametrize("without", [(), ("tokenizer_config.json", "special_tokens_map.json")])
    def test_published_numbers(self, published: Path, without: tuple[str, ...]) -> None:
        add_published_tokenizer(published)
        for name in without:
            (published / name).unlink()
        config = loading.load_config(published)
        assert (config.query_token_id, config.image_token_id, config.anchor_token_id) == (50295, 50297, 764)
        tokenizer = loading.load_processor(published).tokenizer
        assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (50296, 50256, 50298)
        assert tokenizer("a   b\t\t .")["input_ids"] == [64, 50285, 65, 50294, 764]


class TestConversion:
    @pytest.mark.parametrize("in_shards", [False, True])
    def test_there_and_back_gives_the_same_bytes(self, published: Path, tmp_path: Path, in_shards: bool) -> None:
        if in_shards:
            shard(published)
        convert(published, tmp_path / "ours", **TINY_IDS)
        back = folder_bytes(convert(tmp_path / "ours", tmp_path / "back", to="published"))
        original = folder_bytes(published)
        assert set(original) <= set(back)
        for name in original:
            if name.endswith(".safetensors"):
                assert back[name] == original[name], name
        assert json.loads(back["config.json"]) == json.loads(original["config.json"])
        if in_shards:
            assert json.loads(back[INDEX]) == json.loads(original[INDEX])

    def test_ours_loads_as_the_published_does(self, published: Path, tmp_path: Path) -> None:
        ours = FlashSlothForConditionalGeneration.from_pretrained(convert(published, tmp_path / "ours", **TINY_IDS))
        theirs = load(published).state_dict()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs[name]), name
        assert load(convert(tmp_path / "ours", tmp_path / "back", to="published")).config.query_size == 24

    def test_shards_of_a_size(self, published: Path, tmp_path: Path) -> None:
        folder = convert(published, tmp_path / "ours", max_shard_size="0.5MB", **TINY_IDS)
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) > 4
        assert max(len(load_file(file)) for file in shards) > 1
        assert all(file.stat().st_size < 600_000 for file in shards)
        assert not json.loads((folder / INDEX).read_text())["metadata"].keys() - {"total_size"}
        FlashSlothForConditionalGeneration.from_pretrained(folder)

    def test_a_processor_goes_with_it(self, published: Path, tmp_path: Path) -> None:
        add_tiny_tokenizer(published)
        folder = convert(published, tmp_path / "ours", anchor_token_id=13)
        from flashsloth.model.processing_flashsloth import FlashSlothProcessor

        ours = FlashSlothProcessor.from_pretrained(folder)
        theirs = loading.load_processor(published, anchor_token_id=13)
        message = [tiny.user("What is  this?", tiny.picture())]
        for name, tensor in tiny.encode(theirs, message).items():
            assert torch.equal(tensor, tiny.encode(ours, message)[name]), name
        back = convert(folder, tmp_path / "back", to="published")
        for name in ("vocab.json", "added_tokens.json"):
            assert json.loads((back / name).read_text()) == json.loads((published / name).read_text())
        assert (back / "merges.txt").read_text() == (published / "merges.txt").read_text()
        assert json.loads((back / "generation_config.json").read_text())["eos_token_id"] == TinyTokens.END

    def test_pickled_weights_become_safetensors(self, published: Path, tmp_path: Path) -> None:
        tensors = load_file(published / WEIGHTS)
        (published / WEIGHTS).unlink()
        torch.save(tensors, published / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="flashsloth convert"):
            load(published)
        folder = convert(published, tmp_path / "safe", to="published", **TINY_IDS)
        converted = load_file(folder / WEIGHTS)
        assert set(converted) == set(tensors)
        assert all(torch.equal(converted[name], tensors[name]) for name in tensors)
        assert not list(folder.glob("bin*"))

    def test_pickled_code_is_not_run(self, published: Path, tmp_path: Path) -> None:
        (published / WEIGHTS).unlink()
        torch.save({LM_BIAS: Path("anything")}, published / "pytorch_model.bin")
        with pytest.raises(Exception, match=r"weights_only|Weights only"):
            convert(published, tmp_path / "safe", to="published", **TINY_IDS)
        assert not (tmp_path / "safe").exists()

    def test_stage_1_stays_stage_1(self, published: Path, tmp_path: Path) -> None:
        drop_stage_2(published)
        convert(published, tmp_path / "ours", **TINY_IDS)
        assert "model.query_tokens.weight" not in load_file(tmp_path / "ours" / WEIGHTS)
        FlashSlothForConditionalGeneration.from_pretrained(tmp_path / "ours")
        convert(tmp_path / "ours", tmp_path / "back", to="published")
        assert (tmp_path / "back" / WEIGHTS).read_bytes() == convert(
            published, tmp_path / "same", to="published", **TINY_IDS
        ).joinpath(WEIGHTS).read_bytes()

    def test_what_has_changed_is_written_back(self, published: Path, tmp_path: Path) -> None:
        model = load(published).half()
        model.save_pretrained(tmp_path / "tuned")
        flat = json.loads((convert(tmp_path / "tuned", tmp_path / "back", to="published") / "config.json").read_text())
        assert flat == {**json.loads((published / "config.json").read_text()), "torch_dtype": "float16"}

    def test_what_the_published_layout_cannot_hold_is_refused(
        self, tiny_model: FlashSlothForConditionalGeneration, tmp_path: Path
    ) -> None:
        tiny_model.save_pretrained(tmp_path / "ours")
        with pytest.raises(CheckpointError, match=r"its embq_layer is 2, not 7; .*num_query_tokens is 3, not 9"):
            convert(tmp_path / "ours", tmp_path / "back", to="published")
        assert not (tmp_path / "back").exists()

    def test_a_born_model_can_be_written_in_the_published_layout(self, tmp_path: Path) -> None:
        text = {**tiny.TEXT, "num_hidden_layers": 8, "eos_token_id": 300}
        fields = {"text_config": text, "embq_layer": 7, "num_query_tokens": 9}
        config = tiny.make_config(tiny.make_tokenizer(), **fields)
        tiny.make_model(config).save_pretrained(tmp_path / "ours")
        back = convert(tmp_path / "ours", tmp_path / "back", to="published")
        again = load(back, query_token_id=config.query_token_id)
        assert again.config.text_config.rope_parameters == config.text_config.rope_parameters
        assert again.config.num_patches == config.num_patches

    def test_nothing_is_written_over(self, published: Path, tmp_path: Path) -> None:
        target = tmp_path / "full"
        target.mkdir()
        (target / "keep").write_text("me")
        with pytest.raises(CheckpointError, match=r"not an empty folder"):
            convert(published, target, **TINY_IDS)
        assert folder_bytes(target) == {"keep": b"me"}

    def test_a_failure_leaves_nothing(self, published: Path, tmp_path: Path) -> None:
        edit_tensors(published, lm_head__bias=None)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CheckpointError, match=r"lm_head"):
            convert(published, tmp_path / "ours", **TINY_IDS, lm_head_bias=True)
        assert sorted(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(
        ("options", "said"), [({"to": "onnx"}, "'onnx', expected"), ({"max_shard_size": "much"}, "'much', expected")]
    )
    def test_options_are_checked(self, published: Path, tmp_path: Path, options: dict[str, str], said: str) -> None:
        with pytest.raises(CheckpointError, match=said):
            convert(published, tmp_path / "ours", **TINY_IDS, **options)
