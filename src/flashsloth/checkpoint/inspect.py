"""What a checkpoint or an adapter is, told from its files, and whether its numbers are finite.

In: a folder or a name on the hub, whole or damaged. Out: a :class:`CheckpointInfo` of a checkpoint in our layout or the
published one: layout, variant, stage, parameters by part, types, files, vocabulary, sizes; an :class:`AdapterInfo` of
an adapter: rank, targets, fully trained parts, base. Both say what is missing or wrong. Weights are read to see whether
they are finite numbers, and EmbQ's three small norms to tell whether it was ever trained.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashsloth.checkpoint.adapter import AdapterFolder, read_adapter
from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.configuration_flashsloth import STANDARD_GRID, FlashSlothConfig
from flashsloth.model.generation import plain_cache
from flashsloth.model.loading.folders import CONFIG, local_folder, split_hub_options
from flashsloth.model.loading.non_finite import needless_quantization, non_finite_tensors, wrong_dtypes
from flashsloth.model.loading.preflight import check_sizes, config_of, joined, tensor_differences
from flashsloth.model.loading.published_config import is_published_dict, published_config
from flashsloth.model.loading.safetensors_files import (
    CheckpointError,
    StoredTensor,
    read_header,
    read_json,
    stored_tensors,
)
from flashsloth.model.loading.token_ids import tokenizer_ids
from flashsloth.model.loading.weight_names import by_our_names

PARTS = {
    "vision encoder": "model.vision_tower.",
    "SAP": "model.spatial_attention_pooling.",
    "projector": "model.projector.",
    "query tokens": "model.query_tokens.",
    "EmbQ": "model.embedded_query.",
    "language model": "model.language_model.",
    "head": "lm_head.",
}
"""Part -> how our names of its tensors begin."""
_NORMS = "model.embedded_query.norm_"
_ONE = {"F32": b"\x00\x00\x80\x3f", "F16": b"\x00\x3c", "BF16": b"\x80\x3f", "F64": b"\x00" * 6 + b"\xf0\x3f"}
"""The number one in each type, little-endian: what a norm's weight is before training."""
_GENERATION = "generation_config.json"
_PREFIX = "base_model.model."
"""How PEFT's names begin."""
_MATRIX = re.compile(r"(?P<layer>.+)\.lora_[AB]\.weight")
_LOW_RANK = "low-rank matrices"
_PROCESSOR = "processor_config.json"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is.

    Attributes:
        path: the folder.
        layout: "flashsloth" or "published".
        variant: "base" (one view a picture) or "HD".
        stage: 2 if the query tokens and EmbQ are there and trained, 1 if not.
        parameters: part -> how many numbers.
        dtypes: type, as safetensors names it -> how many numbers.
        files: weight file -> bytes.
        vocabulary: embedding rows, the tokenizer's tokens, and the ids that matter.
        sizes: everything else that has a number.
        remarks: what is missing or wrong, a line each; empty for a checkpoint with nothing to say about.
        faults: those of them for which it cannot be loaded.
    """

    path: str
    layout: str
    variant: str
    stage: int
    parameters: dict[str, int]
    dtypes: dict[str, int]
    files: dict[str, int]
    vocabulary: dict[str, int | None]
    sizes: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def total_parameters(self) -> int:
        """Numbers in all."""
        return sum(self.parameters.values())

    @property
    def total_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything, totals included, as JSON can hold it."""
        totals = {"total_parameters": self.total_parameters, "total_bytes": self.total_bytes}
        return {**dataclasses.asdict(self), **totals}


def inspect_checkpoint(name_or_path: str | Path, **options: Any) -> CheckpointInfo:
    """Say what a checkpoint is.

    Args:
        name_or_path: a folder, or a name on the hub (which is fetched).
        **options: the hub's (`revision`, `cache_dir`, ...), and, for the published layout, fields of
            :class:`FlashSlothConfig` that its files do not tell.

    Raises:
        CheckpointError: if there is no such checkpoint, or it is no FlashSloth.
    """
    hub, overrides = split_hub_options(options)
    folder = local_folder(name_or_path, **hub)
    flat = read_json(folder / CONFIG)
    published = is_published_dict(flat)
    if not published and flat.get("model_type") != FlashSlothConfig.model_type:
        raise CheckpointError(f"{folder} holds a model of type {flat.get('model_type')!r}, expected a FlashSloth")
    tensors, remarks = _readable_tensors(folder)
    config = published_config(folder, tensors=tensors, **overrides) if published else config_of(folder)
    named = by_our_names(tensors, published=published)
    trained = _embq_is_trained(named)
    faults = [*remarks, *_tensor_faults(folder, config, named)]
    faults += needless_quantization(flat, tensors.values())
    if flat.get("quantization_config") is None:
        faults += [*wrong_dtypes(tensors.values()), *non_finite_tensors(tensors.values())]
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    several = [f"several types: {', '.join(dtypes)}"] if len(dtypes) > 1 else []
    remarks = [*faults, *several, *_companion_remarks(folder, config, published=published)]
    if plain_cache(config.text_config) is None:
        remarks.append(
            "its language model answers a request at a time: its layers keep another kind of state than keys and values"
        )
    if not trained:
        remarks.append("the query tokens and EmbQ are absent or untrained: train stage 2 before asking questions")
    return CheckpointInfo(
        path=str(folder),
        layout="published" if published else FlashSlothConfig.model_type,
        variant="base" if config.image_grid == STANDARD_GRID else "HD",
        stage=2 if trained else 1,
        parameters=_parameters(named),
        dtypes=dict(_count((tensor.dtype, tensor.size) for tensor in tensors.values())),
        files={file.name: file.stat().st_size for file in sorted({tensor.file for tensor in tensors.values()})},
        vocabulary=_vocabulary(folder, config),
        sizes=_sizes(config),
        remarks=remarks,
        faults=faults,
    )


def _readable_tensors(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Every tensor that can be read, and what hinders the others."""
    try:
        return stored_tensors(folder), []
    except CheckpointError as error:
        remarks = [str(error)]
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors.update((tensor.name, tensor) for tensor in read_header(file))
        except CheckpointError as error:
            if str(error) not in remarks:
                remarks.append(str(error))
    if not tensors:
        raise CheckpointError("; ".join(remarks))
    return tensors, remarks


def _embq_is_trained(named: Mapping[str, StoredTensor]) -> bool:
    """Whether EmbQ is there and one of its norms has moved: they are ones and zeros before the first step."""
    norms = [tensor for name, tensor in named.items() if name.startswith(_NORMS)]
    for tensor in norms:
        one = _ONE.get(tensor.dtype)
        content = tensor.read_bytes()
        untouched = content == (one or b"") * tensor.size if tensor.name.endswith(".weight") else not any(content)
        if one is None or not untouched:
            return True
    return False


def _parameters(named: Mapping[str, StoredTensor]) -> dict[str, int]:
    """Part -> numbers; "other" only if there is something no part owns."""
    counts = _count((_part(name), tensor.size) for name, tensor in named.items())
    return {part: counts[part] for part in (*PARTS, "other") if part in PARTS or counts[part]}


def _part(name: str) -> str:
    return next((part for part, prefix in PARTS.items() if name.startswith(prefix)), "other")


def _count(pairs: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for key, number in pairs:
        total[key] += number
    return total


def _vocabulary(folder: Path, config: FlashSlothConfig) -> dict[str, int | None]:
    text: Any = config.text_config
    ids = tokenizer_ids(folder)
    return {
        "embedding_rows": text.vocab_size,
        "tokens": None if ids is None else len(ids),
        "image_token_id": config.image_token_id,
        "query_token_id": config.query_token_id,
        "anchor_token_id": config.anchor_token_id,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
    }


def _sizes(config: FlashSlothConfig) -> dict[str, Any]:
    text: Any = config.text_config
    vision: Any = config.vision_config
    return {
        "vision_model": vision.model_type,
        "vision_hidden_size": vision.hidden_size,
        "vision_layers": config.num_vision_layers,
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "patches_per_view": config.num_patches,
        "views_per_image": config.num_views,
        "tokens_per_image": config.num_image_tokens,
        "query_tokens": config.num_query_tokens,
        "query_size": config.query_size,
        "embq_layer": config.embq_layer,
        "embq_heads": config.embq_num_heads,
        "language_model": text.model_type,
        "hidden_size": text.hidden_size,
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "context": text.max_position_embeddings,
    }


def _tensor_faults(folder: Path, config: FlashSlothConfig, named: Mapping[str, StoredTensor]) -> list[str]:
    """What the tensors lack, have too many of, or have in another shape."""
    try:
        check_sizes(folder, config, named)
    except CheckpointError as error:
        return [str(error)]  # every shape would say it again, and no model can be made of absurd sizes
    found = tensor_differences(folder, config, named)
    missing = [f"{name} {list(shape)}" for name, shape in found.missing.items()]
    unexpected = [f"{tensor.name} in {tensor.file.name}" for tensor in found.unexpected]
    listed = {
        "missing tensors": missing,
        "unexpected tensors": unexpected,
        "shapes that do not fit config.json": found.misshapen,
    }
    return [f"{what}: {joined(tensors)}" for what, tensors in listed.items() if tensors]


def _companion_remarks(folder: Path, config: FlashSlothConfig, *, published: bool) -> list[str]:
    """What is missing or wrong beside the weights; of a published folder, what loading makes good."""
    text: Any = config.text_config
    made_good = " (made good when loading)" if published else ""
    remarks = []
    if not (folder / _GENERATION).is_file():
        remarks.append(f"no {_GENERATION}{made_good}")
    else:
        settings = read_json(folder / _GENERATION)
        end = settings.get("eos_token_id")
        if end != text.eos_token_id:
            remarks.append(f"{_GENERATION} ends answers with {end}, expected {text.eos_token_id}{made_good}")
        placeholders = {config.image_token_id, config.query_token_id}
        suppressed = settings.get("suppress_tokens")
        if not published and not placeholders <= set(suppressed if isinstance(suppressed, list) else ()):
            remarks.append(f"{_GENERATION} does not suppress the placeholders {sorted(placeholders)}")
    ids = tokenizer_ids(folder)
    if ids is None:
        remarks.append("no tokenizer: neither tokenizer.json nor vocab.json")
    elif not (folder / "tokenizer.json").is_file():
        remarks.append(f"no tokenizer.json{made_good}")
    if not (folder / "processor_config.json").is_file():
        remarks.append(f"no processor{made_good if ids is not None else ''}")
    if ids is None:
        return remarks
    for token, expected in ((QUERY_TOKEN, config.query_token_id), (IMAGE_TOKEN, config.image_token_id)):
        found = ids.get(token)
        if found != expected and not (published and found is None):
            remarks.append(f"the tokenizer numbers {token} {found}, config.json {expected}")
    if (highest := max(ids.values())) >= text.vocab_size:
        remarks.append(f"the tokenizer has ids up to {highest}, but there are {text.vocab_size} embedding rows")
    return remarks


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is.

    Attributes:
        path: the folder.
        base: the base's name; None where nobody wrote it down.
        base_digest: of its tensors.
        quantize: how the language model was held while the adapter learned.
        rank, alpha, dropout: LoRA's.
        targets: last name of a layer with an adapter -> how many layers of that name.
        parameters: the low-rank matrices, and each fully trained part -> how many numbers.
        dtypes: type, as safetensors names it -> how many numbers.
        files: weight file -> bytes.
        remarks: what is missing or wrong, a line each.
        faults: those of them for which it cannot be folded in.
    """

    path: str
    base: str | None
    base_digest: str | None
    quantize: str | None
    rank: int
    alpha: float
    dropout: float
    targets: dict[str, int]
    parameters: dict[str, int]
    dtypes: dict[str, int]
    files: dict[str, int]
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def total_parameters(self) -> int:
        """Numbers in all."""
        return sum(self.parameters.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything, totals included, as JSON can hold it; `kind` tells it from a whole checkpoint."""
        totals = {"total_parameters": self.total_parameters, "total_bytes": sum(self.files.values())}
        return {"kind": "adapter", **dataclasses.asdict(self), **totals}


def inspect_adapter(name_or_path: str | os.PathLike[str]) -> AdapterInfo:
    """Say what an adapter is.

    Raises:
        AdapterError: if it is none, or its files are damaged.
    """
    found = read_adapter(name_or_path)
    targets, parameters, dtypes = Counter[str](), Counter[str](), Counter[str]()
    layers = set()
    tensors = found.tensors()
    faults = [*wrong_dtypes(tensors), *non_finite_tensors(tensors)]
    for tensor in tensors:
        name = tensor.name.removeprefix(_PREFIX)
        matrix = _MATRIX.fullmatch(name)
        if matrix is not None:
            layers.add(matrix["layer"])
        parameters[_LOW_RANK if matrix is not None else _part(name)] += tensor.size
        dtypes[tensor.dtype] += tensor.size
    for layer in sorted(layers):
        targets[layer.rpartition(".")[2]] += 1
    return AdapterInfo(
        path=str(found.path),
        base=None if found.base is None else found.base.name,
        base_digest=None if found.base is None else found.base.digest,
        quantize=None if found.base is None else found.base.quantize,
        rank=found.settings["r"],
        alpha=found.settings["lora_alpha"],
        dropout=found.settings["lora_dropout"],
        targets=dict(targets),
        parameters={part: parameters[part] for part in (_LOW_RANK, *PARTS, "other") if parameters[part]},
        dtypes=dict(dtypes),
        files={file.name: file.stat().st_size for file in sorted({tensor.file for tensor in tensors})},
        remarks=[*faults, *_remarks(found)],
        faults=faults,
    )


def _remarks(found: AdapterFolder) -> list[str]:
    remarks = []
    if found.base is None:
        remarks.append("no base is written down: name it when you merge")
    elif found.base.digest is None:
        remarks.append("no digest of its base is written down: whatever fits will be taken for it")
    if found.base is not None and Path(found.base.name).is_absolute() and not Path(found.base.name).is_dir():
        remarks.append("its base is not there any more: say where it is now with `flashsloth merge --base`")
    if not (found.path / _PROCESSOR).is_file():
        remarks.append(f"no {_PROCESSOR}: copy the base's processor into the folder")
    return remarks
