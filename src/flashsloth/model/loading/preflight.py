"""What is wrong with a checkpoint's files, found before any of it is loaded or any memory taken.

In: a folder in our layout or the published one; its configuration and the headers of its weight files. Out: nothing, or
a :class:`CheckpointError` of one line that names the file and the field, what was found and what was expected.

Legend: V vision width, D language-model width, E query width, Q query tokens a turn, p side of a patch in px.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flashsloth.files import LFS_POINTER, is_lfs_pointer
from flashsloth.media.limits import cause
from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG
from flashsloth.model.loading.safetensors_files import TORCH_DTYPES, CheckpointError, StoredTensor, read_json
from flashsloth.model.loading.weight_names import allowed_missing_keys

JSON_FILES = (
    *(CONFIG, "generation_config.json", "processor_config.json", "preprocessor_config.json", "vision_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    "adapter_config.json",
)
"""Files beside the weights that hold a JSON object wherever they are there."""
_NAMED = 5
"""Tensors named in an error before it says how many more."""


class _Size(NamedTuple):
    """A number of the configuration that a stored tensor shows: the field, which tensor (by our names), which side."""

    field: str
    tensor: str
    side: int


_TOWER, _DECODER = r"model\.vision_tower\.", r"model\.language_model\."
_SIZES = (
    _Size("num_query_tokens", r"model\.query_tokens\.weight", 0),  # [Q, D]
    _Size("query_size", r"model\.embedded_query\.down_image\.weight", 0),  # [E, V]
    _Size("vision_config.hidden_size", r"model\.projector\.linear_1\.weight", 1),  # [D, V]
    _Size("text_config.hidden_size", r"model\.projector\.linear_2\.weight", 0),  # [D, D]
    _Size("vision_config.patch_size", rf"{_TOWER}embeddings\.patch_embedding\.weight", -1),  # [V, 3, p, p]
    _Size("vision_config.intermediate_size", rf"{_TOWER}encoder\.layers\.0\.mlp\.fc1\.weight", 0),
    _Size("text_config.intermediate_size", rf"{_DECODER}layers\.0\.mlp\.(fc1|gate_proj)\.weight", 0),
    _Size("text_config.vocab_size", rf"lm_head\.weight|{_DECODER}(embed_tokens|wte|embed_in)\.weight", 0),
)
_LAYERS = (
    ("text_config", rf"{_DECODER}(?:layers|h)\.(\d+)\."),
    ("vision_config", rf"{_TOWER}encoder\.layers\.(\d+)\."),
)


def check_json_files(folder: Path) -> None:
    """Every small file that is there is the JSON object it should be.

    Raises:
        CheckpointError: for the first that is not.
    """
    for name in JSON_FILES:
        if (folder / name).exists():
            read_json(folder / name)
    template = folder / "chat_template.jinja"
    if template.is_file() and is_lfs_pointer(template):
        raise CheckpointError(f"{template} is {LFS_POINTER}")


def config_of(name_or_path: Any, **options: Any) -> FlashSlothConfig:
    """The configuration of a checkpoint in our layout.

    Raises:
        CheckpointError: if a field has another type, or a size, that no model can have.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        said = read_json(folder / CONFIG)
        _check_finite(folder / CONFIG, said, "")
        _check_dtype(folder / CONFIG, said)
    try:
        return FlashSlothConfig.from_pretrained(name_or_path, **options)
    except OSError:  # of the hub or the disk: its own words
        raise
    except Exception as error:  # transformers meets wrong types with any kind of error
        raise CheckpointError(
            f"{folder / CONFIG}: {str(error) if isinstance(error, ValueError) else cause(error)}"
        ) from error


def expected_shapes(config: FlashSlothConfig, file: Path = Path(CONFIG)) -> dict[str, tuple[int, ...]]:
    """Our name -> shape of every tensor a checkpoint of this configuration holds. No memory is taken.

    Args:
        config: the configuration.
        file: where it was read, for the error.

    Raises:
        CheckpointError: if no model can be made of the configuration.
    """
    import torch
    from transformers import AutoModelForImageTextToText  # which knows our class

    try:
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    except Exception as error:  # sizes that do not go together meet an error of any kind, somewhere in a layer
        raise CheckpointError(f"{file}: no model can be made of what it says ({cause(error)})") from error
    tied = set(model._tied_weights_keys) if config.tie_word_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def check_sizes(folder: Path, config: FlashSlothConfig, named: Mapping[str, StoredTensor]) -> None:
    """The sizes in the configuration are those of the stored tensors, as far as these show them.

    Args:
        folder: the checkpoint's.
        config: what its configuration says.
        named: the stored tensors by our names.

    Raises:
        CheckpointError: for those that are not.
    """
    problems = []
    for size in _SIZES:
        said: Any = config
        for part in size.field.split("."):
            said = getattr(said, part, None)
        for name, tensor in named.items():
            if not re.fullmatch(size.tensor, name) or len(tensor.shape) <= max(size.side, 0):
                continue
            if said is not None and said != tensor.shape[size.side]:
                stored = f"{tensor.name} in {tensor.file.name} has {tensor.shape[size.side]}"
                problems.append(f"{size.field} is {said}, but {stored}")
                break
    run = {"text_config": config.text_config.num_hidden_layers, "vision_config": config.num_vision_layers}
    for part, pattern in _LAYERS:
        stored_layers = {match[1] for name in named if (match := re.match(pattern, name))}
        said = getattr(config, part).num_hidden_layers
        if stored_layers and len(stored_layers) != run[part]:
            needs = "" if said == run[part] else f", of which {run[part]} are run"
            problems.append(
                f"{part}.num_hidden_layers is {said}{needs}, but the weights have {len(stored_layers)} layers"
            )
    if problems:
        raise CheckpointError(f"{folder / CONFIG}: {joined(problems)}")


class TensorDifferences(NamedTuple):
    """How stored tensors differ from a model's.

    Attributes:
        missing: our name -> shape of what a model has and the files lack.
        unexpected: the stored tensors that no model has.
        misshapen: what is stored in another shape, a line each.
        lacks_stage_2: whether query tokens and EmbQ are absent, as they may be in stage 1; `missing` leaves them out.
    """

    missing: dict[str, tuple[int, ...]]
    unexpected: list[StoredTensor]
    misshapen: list[str]
    lacks_stage_2: bool


def tensor_differences(folder: Path, config: FlashSlothConfig, named: Mapping[str, StoredTensor]) -> TensorDifferences:
    """Hold stored tensors, by our names, against the model that a configuration describes.

    Raises:
        CheckpointError: if sizes in the configuration are not those of the tensors, or no model can be made of it.
    """
    check_sizes(folder, config, named)
    expected = expected_shapes(config, folder / CONFIG)
    missing = set(expected) - set(named)
    allowed = allowed_missing_keys(config, missing, expected)
    return TensorDifferences(
        missing={name: expected[name] for name in sorted(missing - allowed)},
        unexpected=[named[name] for name in sorted(set(named) - set(expected))],
        misshapen=[
            f"{tensor.file.name}: {tensor.name} is {list(tensor.shape)}, expected {list(expected[name])}"
            for name, tensor in sorted(named.items())
            if name in expected and tensor.shape != expected[name]
        ],
        lacks_stage_2=bool(allowed),
    )


def check_before_loading(
    folder: Path,
    config: FlashSlothConfig,
    named: Mapping[str, StoredTensor],
    own_name: Callable[[str], str] = str,
) -> None:
    """Refuse what would not fit, before transformers makes room for it; the rest is judged after loading.

    Args:
        folder: the checkpoint's.
        config: what its configuration says.
        named: the stored tensors by our names.
        own_name: our name of a tensor -> the folder's.

    Raises:
        CheckpointError: if sizes or shapes differ, or a tensor is missing.
    """
    found = tensor_differences(folder, config, named)
    if (
        not found.unexpected or found.misshapen
    ):  # else transformers may know unexpected ones as old names of the missing
        refuse_differences(folder, found, own_name)


def refuse_differences(folder: Path, found: TensorDifferences, own_name: Callable[[str], str] = str) -> None:
    """Raise CheckpointError for whatever differs, with the folder's own names of what is missing."""
    problems = [f"{own_name(name)} is missing, expected {list(shape)}" for name, shape in found.missing.items()]
    problems += found.misshapen
    problems += [f"{tensor.file.name}: {tensor.name} is unexpected" for tensor in found.unexpected]
    if problems:
        raise CheckpointError(f"{folder} does not hold this model: {joined(problems)}")


def check_processor(folder: Path, processor: Any, config: FlashSlothConfig) -> None:
    """The processor writes what the model of this configuration reads.

    Args:
        folder: the checkpoint's.
        processor: the processor it was saved with.
        config: the model's.

    Raises:
        CheckpointError: if they count, cut or number otherwise.
    """
    images, side = processor.image_processor, config.vision_config.image_size
    tokenizer = processor.tokenizer
    last = max(tokenizer.get_vocab().values())
    pairs = (
        ("num_image_tokens", processor.num_image_tokens, config.num_image_tokens),
        ("num_query_tokens", processor.num_query_tokens, config.num_query_tokens),
        ("image_grid", images.image_grid, config.image_grid),
        ("size", images.size, {"height": side, "width": side}),
        (f"the tokenizer's {IMAGE_TOKEN}", tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), config.image_token_id),
        (f"the tokenizer's {QUERY_TOKEN}", tokenizer.convert_tokens_to_ids(QUERY_TOKEN), config.query_token_id),
    )
    for name, found, expected in pairs:
        if found != expected:
            raise CheckpointError(f"{folder}: {name} is {found} in the processor, expected {expected} by {CONFIG}")
    if last >= config.text_config.vocab_size:
        rows = config.text_config.vocab_size
        raise CheckpointError(f"{folder}: the tokenizer has ids up to {last}, expected less than vocab_size, {rows}")


def check_generation(folder: Path, vocab_size: int) -> None:
    """The ids in the generation settings are ids.

    Args:
        folder: the checkpoint's.
        vocab_size: embedding rows.

    Raises:
        CheckpointError: for one that is not.
    """
    file = folder / "generation_config.json"
    settings = read_json(file) if file.is_file() else {}
    for name in ("eos_token_id", "pad_token_id", "bos_token_id", "suppress_tokens"):
        value = settings.get(name)
        tokens = value if isinstance(value, list) else [] if value is None else [value]
        is_list = name != "suppress_tokens" or value is None or isinstance(value, list)
        if not is_list or not all(type(token) is int and token < vocab_size for token in tokens):
            raise CheckpointError(f"{file}: {name} is {value!r}, expected token ids below {vocab_size}")
    from transformers import GenerationConfig

    try:
        GenerationConfig(**settings)
    except Exception as error:  # values of other types meet an error of any kind
        raise CheckpointError(f"{file}: {cause(error)}") from error


def joined(problems: list[str]) -> str:
    """The first few problems on one line, and how many more there are."""
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "; ".join(problems[:_NAMED]) + more


def _check_finite(file: Path, value: Any, field: str) -> None:
    """No NaN, which Python reads and JSON does not have."""
    if isinstance(value, float) and math.isnan(value):
        raise CheckpointError(f"{file}: {field} is NaN, expected a number")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        _check_finite(file, part, f"{field}.{name}" if field else str(name))


def _check_dtype(file: Path, said: dict[str, Any]) -> None:
    for field in ("dtype", "torch_dtype"):
        dtype = said.get(field)
        if dtype is not None and str(dtype).removeprefix("torch.") not in TORCH_DTYPES.values():
            raise CheckpointError(f"{file}: {field} is {dtype!r}, expected one of {', '.join(TORCH_DTYPES.values())}")
