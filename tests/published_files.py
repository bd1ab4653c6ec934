"""Folders in the published layout: the recorded tiny one, with or without a tokenizer, and a true-sized hollow one."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading import to_published
from flashsloth.model.loading.preflight import expected_shapes

RECORDED = Path(__file__).parent / "parity" / "tiny"
PUBLISHED_TOKENIZER = Path(__file__).parents[2] / "shared" / "phi2-tokenizer"
"""Not part of this repository; looked for beside it."""
TINY_IDS: dict[str, Any] = {"query_token_id": 500, "anchor_token_id": 13}
"""What the tiny folder's numbers are, which no file of it tells."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HALF_BYTES = 2


class TinyTokens:
    """What :func:`add_tiny_tokenizer` numbers its tokens."""

    PAD, QUERY, END, IMAGE = tiny.make_tokenizer().convert_tokens_to_ids([tiny.PAD, "<learnable>", tiny.END, "<image>"])


def copy_tiny(folder: Path, **changes: Any) -> Path:
    """The recorded tiny checkpoint; `changes` go into its configuration, None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "vision_config.json", WEIGHTS):
        shutil.copyfile(RECORDED / name, folder / name)
    edit_json(folder / "config.json", **changes)
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    value = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def edit_tensors(folder: Path, **changes: Any) -> None:
    """Replace tensors (dots written as two underscores, as in a keyword); None removes one."""
    tensors = load_file(folder / WEIGHTS)
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, folder / WEIGHTS)


def drop_stage_2(folder: Path) -> None:
    """Leave out what stage 1 does not train."""
    tensors = load_file(folder / WEIGHTS)
    of_stage_2 = ("lqformer", "learnable", "embedded_query", "query_tokens")
    kept = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in of_stage_2)}
    save_file(kept, folder / WEIGHTS)


def shard(folder: Path, shards: int = 2) -> None:
    """Spread the weights over several files, with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number::shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def add_tiny_tokenizer(folder: Path) -> Path:
    """A tokenizer in the published files' manner; the numbers are those of :class:`TinyTokens`."""
    tokenizer = tiny.make_tokenizer()
    tokenizer.backend_tokenizer.model.save(str(folder))
    added = {token: tokenizer.convert_tokens_to_ids(token) for token in (tiny.PAD, "<learnable>", tiny.END)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def add_published_tokenizer(folder: Path) -> Path:
    """The published tokenizer, and embeddings for all of its vocabulary."""
    for file in PUBLISHED_TOKENIZER.iterdir():
        shutil.copyfile(file, folder / file.name)
    edit_json(folder / "config.json", vocab_size=51200, eos_token_id=50256, bos_token_id=50256)
    rows = torch.zeros(51200, 80)
    edit_tensors(
        folder, model__embed_tokens__weight=rows, lm_head__weight=rows.clone(), lm_head__bias=torch.zeros(51200)
    )
    return folder


def make_hollow(folder: Path, **changes: Any) -> Path:
    """A published checkpoint of true size, 6.4 GB, that takes no disk: a header, and a hole for the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    place = 0
    for name, shape in expected_shapes(FlashSlothConfig()).items():
        size = HALF_BYTES
        for side in shape:
            size *= side
        published = to_published(name)
        assert published is not None
        header[published] = {"dtype": "F16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + place)
    flat = {
        "architectures": ["FlashSlothForCausalLM"],
        "model_type": "phi",
        "vocab_size": 51200,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "partial_rotary_factor": 0.4,
        "resid_pdrop": 0.1,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "mm_vision_tower": "checkpoints/base/siglip",
        "mm_vision_select_layer": -2,
        "torch_dtype": "float16",
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(flat))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 50256, "eos_token_id": 50256}))
    return folder
