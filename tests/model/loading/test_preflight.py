"""A damaged folder is told from what is in it, before any memory is taken: the file, what was found and expected."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from talkative import save_talkative

import flashsloth
from flashsloth.checkpoint.inspect import inspect_checkpoint
from flashsloth.files import LFS_POINTER, SIGNATURE
from flashsloth.model.loading import CheckpointError
from flashsloth.model.loading.safetensors_files import INDEX, WEIGHTS, read_header, stored_tensors
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

POINTER = SIGNATURE + b".github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
LENGTH_BYTES = 8
SMALL_FILES = ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json")
Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talkative(tmp_path_factory.mktemp("whole") / "checkpoint")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def refused(folder: Path, message: str) -> None:
    """`load`, and where it is about weights `info` too, raise one line with `message`."""
    with pytest.raises(ValueError, match=message) as raised:
        flashsloth.load(folder, device="cpu")
    assert "\n" not in str(raised.value)
    assert str(folder) in str(raised.value)


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WEIGHT_DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda old: b"", r"cut short \(0 bytes: header too small\)"),
    "cut in the header": (lambda old: old[:100], r"cut short \(100 bytes: invalid header length\)"),
    "cut in the weights": (lambda old: old[:-1], r"cut short \([\d,]+ bytes: .*file not fully covered\)"),
    "too long": (lambda old: old + b"x", r"\([\d,]+ bytes: .*file not fully covered\)"),
    "garbage": (lambda old: b"\x93" * 5000, "not a safetensors file"),
    "zeros": (lambda old: bytes(5000), "not a safetensors file"),
    "a pointer": (lambda old: POINTER, re.escape(LFS_POINTER)),
    "a list": (
        lambda old: (2).to_bytes(LENGTH_BYTES, "little") + b"[]",
        "invalid JSON in header: invalid type: sequence",
    ),
    "not JSON": (lambda old: (2).to_bytes(LENGTH_BYTES, "little") + b"\xff\xff", "invalid UTF-8 in header"),
    "no entry": (lambda old: header(a=3), "invalid type: integer `3`"),
    "texts for numbers": (
        lambda old: header(a={**ENTRY, "data_offsets": [0, "8"]}) + bytes(8),
        "invalid type: string .8.",
    ),
    "negative sizes": (lambda old: header(a={**ENTRY, "shape": [-2]}) + bytes(8), "invalid value: integer `-2`"),
    "unknown type": (lambda old: header(a={**ENTRY, "dtype": "Q9"}) + bytes(8), "unknown variant `Q9`"),
    "bytes that do not fit": (
        lambda old: header(a={**ENTRY, "shape": [3]}) + bytes(8),
        "invalid shape, data type, or offset",
    ),
    "a hole": (lambda old: header(a={**ENTRY, "data_offsets": [8, 16]}) + bytes(16), "invalid offset for tensor `a`"),
}


@pytest.mark.parametrize("damage", WEIGHT_DAMAGE)
def test_damaged_weights(folder: Path, damage: str) -> None:
    change, message = WEIGHT_DAMAGE[damage]
    file = folder / WEIGHTS
    file.write_bytes(change(file.read_bytes()))
    refused(folder, f"{WEIGHTS}.*{message}")
    with pytest.raises(CheckpointError, match=message):
        read_header(file)


def test_a_whole_file_is_read_as_safetensors_reads_it(whole: Path) -> None:
    from safetensors import safe_open

    with safe_open(whole / WEIGHTS, "pt") as stream:
        expected = {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
    assert {tensor.name: tensor.shape for tensor in read_header(whole / WEIGHTS)} == expected


@pytest.fixture(scope="module")
def sharded(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("sharded") / "checkpoint"))
    model = FlashSlothForConditionalGeneration.from_pretrained(folder)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    return folder


FIRST = "model-00001-of-00003.safetensors"
SHARD_DAMAGE: dict[str, tuple[str, bytes | None, str]] = {
    "missing": (FIRST, None, f"shards {FIRST} are missing"),
    "cut": (FIRST, b"short", f"{FIRST}: not a safetensors file, or cut short"),
    "a pointer": (FIRST, POINTER, f"{FIRST} is a Git LFS pointer"),
    "index missing": (INDEX, None, "found neither"),
    "index empty": (INDEX, b"", f"{INDEX} is empty"),
    "index garbage": (INDEX, b"\xff\x00", f"{INDEX} is not JSON: byte 0 is not UTF-8"),
    "index of nothing": (INDEX, b"{}", f"{INDEX} has no weight_map"),
    "index of a list": (INDEX, b'{"weight_map": []}', f"{INDEX} has no weight_map"),
    "index of numbers": (INDEX, b'{"weight_map": {"a": 3}}', f"{INDEX} has no weight_map"),
    "index elsewhere": (INDEX, b'{"weight_map": {"a": "../x"}}', "outside its folder"),
    "index of no file": (INDEX, b'{"weight_map": {"a": "x.safetensors"}}', "shards x.safetensors are missing"),
    "index with odd metadata": (INDEX, b'{"metadata": 3, "weight_map": {"a": "x"}}', "metadata is a number"),
}


@pytest.mark.parametrize("damage", SHARD_DAMAGE)
def test_damaged_shards(sharded: Path, tmp_path: Path, damage: str) -> None:
    name, content, message = SHARD_DAMAGE[damage]
    folder = Path(shutil.copytree(sharded, tmp_path / "checkpoint"))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    refused(folder, message)


CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty, expected a JSON object"),
    "garbage": (b"\xff\xfe", "is not JSON: byte 0 is not UTF-8"),
    "text": (b"hello", "is not JSON"),
    "a list": (b"[]", "holds a list, expected a JSON object"),
    "a number": (b"3", "holds a number, expected a JSON object"),
    "null": (b"null", "holds null, expected a JSON object"),
    "too deep": (b"[" * 100_000, "is JSON nested too deeply"),
    "a pointer": (POINTER, f"is {re.escape(LFS_POINTER)}"),
}


@pytest.mark.parametrize("name", SMALL_FILES)
@pytest.mark.parametrize("content", CONTENTS)
def test_small_files_that_are_no_objects(folder: Path, name: str, content: str) -> None:
    written, message = CONTENTS[content]
    (folder / name).write_bytes(written)
    refused(folder, f"{name} {message}")


CONFIGS: dict[str, tuple[Any, str]] = {
    "text_config.hidden_size": (10**9, r"text_config.hidden_size is 1000000000, but .*linear_2.weight in .* has 48"),
    "vision_config.hidden_size": (10**9, "vision_config.hidden_size is 1000000000, but .* has 32"),
    "text_config.intermediate_size": (10**9, "text_config.intermediate_size is 1000000000, but .* has 96"),
    "text_config.vocab_size": (10**12, r"text_config.vocab_size is 1000000000000, but lm_head.weight in .* has 384"),
    "text_config.num_hidden_layers": (40, "text_config.num_hidden_layers is 40, but the weights have 4 layers"),
    "vision_config.num_hidden_layers": (9, "num_hidden_layers is 9, of which 8 are run, but the weights have 2"),
    "num_query_tokens": (10**9, r"num_query_tokens is 1000000000, but model.query_tokens.weight in .* has 3"),
    "query_size": (4, "query_size is 4, but .* has 16"),
    "vision_config.patch_size": (8, "patch_size is 8, but .* has 4"),
    "text_config.num_attention_heads": (10**9, "num_attention_heads is 1000000000, expected at most hidden_size 48"),
    "vision_config.image_size": (10**9, "image_size is 1000000000, expected at most"),
    "text_config.hidden_act": ("frob", "no model can be made of what it says"),
    "text_config.model_type": ("frob", "text_config.model_type is 'frob', expected one that transformers"),
    "text_config.layer_norm_eps": (float("nan"), "text_config.layer_norm_eps is NaN"),
    "text_config": ([], "text_config is list"),
    "dtype": ("frob", "dtype is 'frob', expected one of"),
    "sap_dropout": ("x", "sap_dropout is 'x', expected float"),
    "lm_head_bias": (3, "lm_head_bias is 3, expected bool"),
    "image_token_id": (True, "image_token_id is True, expected int"),
    "embq_layer": (None, "embq_layer is None, expected int"),
    "id2label": (3, "(has no attribute 'items'|'id2label')"),  # in the words of one version of transformers or another
}


@pytest.mark.parametrize("field", CONFIGS)
def test_a_configuration_that_does_not_fit_names_its_field(folder: Path, field: str) -> None:
    value, message = CONFIGS[field]
    edit(folder / "config.json", field, value)
    refused(folder, f"config.json: .*{message}")


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [-4, 0, "64", None, [48], True, 2.5])
def test_sizes_are_whole_numbers_of_at_least_one(folder: Path, part: str, field: str, value: Any) -> None:
    edit(folder / "config.json", f"{part}.{field}", value)
    refused(folder, f"config.json: {part}.{field} is {re.escape(repr(value))}, expected")
    with pytest.raises(CheckpointError, match=f"{part}.{field} is"):
        inspect_checkpoint(folder)


def test_a_billion_layers_take_no_time(folder: Path) -> None:
    edit(folder / "config.json", "text_config.num_hidden_layers", 10**9)
    refused(folder, "text_config.num_hidden_layers is 1000000000, expected at most")


COMPANIONS: dict[str, tuple[str, str, Any, str]] = {
    "visual tokens": ("processor_config.json", "num_image_tokens", 10**9, "num_image_tokens is 1000000000"),
    "query tokens": ("processor_config.json", "num_query_tokens", "x", "num_query_tokens is x"),
    "size": ("processor_config.json", "image_processor.size", {"height": 10**6, "width": 10**6}, "size is"),
    "no size": ("processor_config.json", "image_processor.size", None, "size is None"),
    "mean": ("processor_config.json", "image_processor.image_mean", [float("nan")] * 3, "image_mean and image_std"),
    "mean of texts": ("processor_config.json", "image_processor.image_mean", ["a"] * 3, "no usable processor"),
    "deviation": ("processor_config.json", "image_processor.image_std", [0, 0, 0], "image_mean and image_std"),
    "filter": ("processor_config.json", "image_processor.resample", 99, "no usable processor .Unknown resampling"),
    "template": ("processor_config.json", "chat_template", 3, "no usable processor"),
    "tokenizer": ("tokenizer.json", "model", 3, "no usable processor"),
    "added tokens": ("tokenizer.json", "added_tokens", [], "the tokenizer's .* in the processor, expected"),
    "end": ("generation_config.json", "eos_token_id", "x", "generation_config.json: eos_token_id is 'x'"),
    "generation": ("generation_config.json", "max_new_tokens", -3, "generation_config.json: `max_new_tokens` must be"),
    "quantized": ("config.json", "quantization_config", {"quant_method": "gptq"}, "quantization_config .'gptq'., but"),
    "suppressed": ("generation_config.json", "suppress_tokens", [10**9], "suppress_tokens is .1000000000"),
    "suppressed, no list": ("generation_config.json", "suppress_tokens", 3, "suppress_tokens is 3"),
}


@pytest.mark.parametrize("damage", COMPANIONS)
def test_what_stands_beside_the_weights_fits_them(folder: Path, damage: str) -> None:
    file, field, value, message = COMPANIONS[damage]
    edit(folder / file, field, value)
    refused(folder, message)


def test_a_vocabulary_that_is_too_small_for_the_tokenizer(tmp_path: Path) -> None:
    import tiny

    tokenizer = tiny.make_tokenizer()
    folder = save_talkative(tmp_path / "checkpoint")
    tokenizer.add_tokens([f"<more{number}>" for number in range(tiny.VOCABULARY)])
    tokenizer.save_pretrained(folder)
    refused(folder, r"the tokenizer has ids up to \d+, expected less than vocab_size, 384")


def test_nothing_is_said_twice(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no usable processor") as raised:
        flashsloth.load(folder, device="cpu")
    assert str(raised.value).count("no usable processor") == 1
    assert str(raised.value).count(str(folder)) == 1


def test_a_whole_folder_says_nothing(folder: Path) -> None:
    assert stored_tensors(folder)
    flashsloth.load(folder, device="cpu")


def edit(file: Path, field: str, value: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    part = content
    *outer, last = field.split(".")
    for name in outer:
        part = part[name]
    part[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")
