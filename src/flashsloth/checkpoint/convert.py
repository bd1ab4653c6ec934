"""One layout to the other, bit for bit.

In: a checkpoint, published or ours, in safetensors or `.bin` files. Out: a folder in the layout asked for, with all
that belongs beside the weights. Tensors keep their bytes and change their names alone, so the way back gives what was
there.

Bytes are copied a piece at a time, never a whole model held. The folder appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file

from flashsloth.files import LFS_POINTER, is_lfs_pointer
from flashsloth.media.limits import cause
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG, appearing_folder, is_adapter, local_folder, split_hub_options
from flashsloth.model.loading.preflight import check_json_files, config_of, refuse_differences, tensor_differences
from flashsloth.model.loading.published_config import flat_config, is_published_dict, published_config
from flashsloth.model.loading.published_processor import (
    generation_settings,
    has_tokenizer,
    published_processor,
    write_published_companions,
)
from flashsloth.model.loading.safetensors_files import (
    INDEX,
    WEIGHTS,
    CheckpointError,
    StoredTensor,
    load_tensors,
    read_header,
    read_json,
    stored_dtype,
    stored_tensors,
    weight_map,
)
from flashsloth.model.loading.weight_names import by_our_names, to_published

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

OURS, PUBLISHED = "flashsloth", "published"
_MODEL_CLASS = "FlashSlothForConditionalGeneration"
_BIN_INDEX = "pytorch_model.bin.index.json"
_BIN_SCRATCH = "bin"


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: str = OURS,
    max_shard_size: int | str | None = None,
    **options: Any,
) -> Path:
    """Write a checkpoint in the other layout (or, of `.bin` files, in safetensors).

    Args:
        source: a folder, or a name on the hub.
        target: a folder that does not exist yet, or is empty.
        to: "flashsloth" or "published".
        max_shard_size: bytes, or as in "2GB"; by default the source's own sharding.
        **options: of the hub (`revision`, ...), and, for a published source, fields of :class:`FlashSlothConfig`.

    Returns:
        The target.

    Raises:
        CheckpointError: if the source is not whole, the target is not empty, or the published layout cannot hold the
            model.
    """
    if to not in (OURS, PUBLISHED):
        raise CheckpointError(f"to is {to!r}, expected {OURS!r} or {PUBLISHED!r}")
    hub, overrides = split_hub_options(options)
    folder = local_folder(source, **hub)
    target = Path(target)
    with appearing_folder(target) as work:
        check_json_files(folder)
        if is_adapter(folder):
            raise CheckpointError(f"{folder} is an adapter: `flashsloth merge` makes a checkpoint of it and its base")
        tensors = _safetensors_of(folder, work)
        flat = read_json(folder / CONFIG)
        if is_published_dict(flat):
            config = published_config(folder, tensors=tensors, **overrides)
            named = by_our_names(tensors)
        elif flat.get("model_type") == FlashSlothConfig.model_type:
            config = config_of(folder)
            named = dict(tensors)
        else:
            raise CheckpointError(f"{folder} holds a model of type {flat.get('model_type')!r}, expected a FlashSloth")
        differences = tensor_differences(folder, config, named)
        if differences.lacks_stage_2:
            logger.warning("%s has no query tokens and no EmbQ (stage 1), and so will its copy", folder)
        refuse_differences(folder, differences)
        if to == PUBLISHED:
            text = json.dumps(flat_config(config, stored_dtype(tensors.values())), indent=2, sort_keys=True)
            (work / CONFIG).write_text(text + "\n", encoding="utf-8")
            write_published_companions(folder, work, config)
            for name in named:
                if to_published(name) is None:
                    raise CheckpointError(f"the published layout has no place for {name}")
            named = {str(to_published(name)): tensor for name, tensor in named.items()}
        else:
            _write_ours(folder, work, config, is_published=is_published_dict(flat))
        _write_shards(folder, work, named, max_shard_size)
        shutil.rmtree(work / _BIN_SCRATCH, ignore_errors=True)
    logger.info("%s: %d tensors in the %s layout", target, len(tensors), to)
    return target


def _write_ours(folder: Path, work: Path, config: FlashSlothConfig, *, is_published: bool) -> None:
    """Configuration, generation settings and processor."""
    from flashsloth.model.processing_flashsloth import FlashSlothProcessor

    config.architectures = [_MODEL_CLASS]
    config.save_pretrained(work)
    generation_settings(config).save_pretrained(work)
    if not has_tokenizer(folder):
        logger.warning("%s has no tokenizer, so its copy gets no processor", folder)
    elif is_published:
        published_processor(folder, config).save_pretrained(work)
    else:
        FlashSlothProcessor.from_pretrained(folder).save_pretrained(work)


def _write_shards(
    folder: Path, work: Path, named: Mapping[str, StoredTensor], max_shard_size: int | str | None
) -> None:
    """The weights, and the index where there are several files."""
    if max_shard_size is None:
        groups: dict[Path, list[str]] = {}
        for name, tensor in named.items():
            groups.setdefault(tensor.file, []).append(name)
        count = len(groups)
        files = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
        shards = dict(zip(files if count > 1 else [WEIGHTS], groups.values(), strict=True))
    else:
        shards = _by_size(named, max_shard_size)
    for file, names in shards.items():
        loaded = load_tensors(named[name] for name in names)
        save_file({name: loaded[named[name].name] for name in names}, work / file, metadata={"format": "pt"})
    if len(shards) > 1:
        metadata = read_json(folder / INDEX).get("metadata", {}) if (folder / INDEX).is_file() else {}
        metadata["total_size"] = sum(tensor.nbytes for tensor in named.values())
        places = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
        (work / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _by_size(named: Mapping[str, StoredTensor], most: int | str) -> dict[str, list[str]]:
    """File -> names, in shards of at most so many bytes; a tensor larger than that has one of its own."""
    try:
        if isinstance(most, int) and most < 1:
            raise ValueError("it is less than 1")
        split = split_state_dict_into_shards_factory(
            dict(named),
            get_storage_size=lambda tensor: tensor.nbytes,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=most,
        )
    except ValueError as error:
        raise CheckpointError(
            f"max_shard_size is {most!r}, expected a number of bytes, 1 or more, or one such as '2GB'"
        ) from error
    return split.filename_to_tensors


def _safetensors_of(folder: Path, work: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder; `.bin` files are first rewritten, one by one, nothing in them executed."""
    bins = sorted(folder.glob("pytorch_model*.bin"))
    if any(folder.glob("*.safetensors")) or not bins:
        return stored_tensors(folder)
    if (folder / _BIN_INDEX).is_file():
        listed = set(weight_map(folder / _BIN_INDEX).values())
        missing = sorted(listed - {file.name for file in bins})
        if missing:
            raise CheckpointError(f"{folder}: shards {', '.join(missing)} are missing")
    scratch = work / _BIN_SCRATCH
    scratch.mkdir()
    tensors: dict[str, StoredTensor] = {}
    for number, file in enumerate(bins):
        state = _bin_state(file)
        rewritten = scratch / f"{number:05d}.safetensors"
        save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, rewritten)
        del state
        tensors.update((tensor.name, tensor) for tensor in read_header(rewritten))
    return tensors


def _bin_state(file: Path) -> dict[str, torch.Tensor]:
    """What a `.bin` file holds, nothing in it executed.

    Raises:
        CheckpointError: if the file is damaged, or holds something else than tensors.
    """
    import torch

    if is_lfs_pointer(file):
        raise CheckpointError(f"{file} is {LFS_POINTER}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch and pickle have no kind of their own for damaged files
        raise CheckpointError(f"{file} cannot be read as tensors ({cause(error)}): copy it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise CheckpointError(f"{file} holds something else than tensors by name")
    return state
