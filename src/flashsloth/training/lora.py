"""LoRA and QLoRA for a stage: the language model learns through an adapter, the parts around it learn fully.

In: a model, the stage, and the base it came from. Out: PEFT's model around it, for Trainer, and after training a folder
(see `checkpoint/adapter.py`). The model that was given changes in place and stays what hooks and reports see. An
adapter that is trained on keeps what it has learned; every key by which the stage would make another adapter of it is
named.

    language_model   every targeted layer W becomes W + alpha / rank * B A; A and B learn
    other parts      copied, and the copy learns (PEFT's `modules_to_save`)
    head             rests, unless the recipe's own `trains` names it

For QLoRA (Dettmers et al. 2023, arXiv 2305.14314) the frozen W is held in NF4 by bitsandbytes: blocks of 64 weights
share a scale, scales are themselves kept in eight bits, and a layer unpacks its weight when it is used. Gradients pass
through to what came before; the packed weight has none. On a processor these are its plain kernels, which need only
torch.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from flashsloth.checkpoint.adapter import (
    ADAPTER_WEIGHTS,
    UNQUANTIZED,
    AdapterError,
    AdapterFolder,
    Base,
    base_digest,
    is_adapter,
    read_adapter,
)
from flashsloth.checkpoint.merge_adapter import check_base, require_peft
from flashsloth.model.backbones import decoder_layers
from flashsloth.model.loading import by_our_names, is_published
from flashsloth.model.loading.folders import find_folder
from flashsloth.model.loading.safetensors_files import stored_tensors
from flashsloth.model.loading.weight_names import is_stage_2_only
from flashsloth.training.recipe import StageRun
from flashsloth.training.recipe_fields import AUTO, HEAD, NF4, TARGETED_PART, AdapterSettings
from flashsloth.training.stages import PARTS

logger = logging.getLogger(__name__)

BLOCK_SIZE = 64
"""Weights that share a scale. On a processor bitsandbytes mixes up the scales of rows that are no whole blocks."""
QLORA_EXTRA = "pip install 'flashsloth[qlora]'"
_INFERENCE_FLAG = "support_avx512bf16_for_cpu"
"""Where it is set, bitsandbytes repacks a weight at the first evaluation on a processor, for a kernel that has no
gradients: what trains after that would get none."""
_LOW_RANK = re.compile(r"(?P<layer>.+)\.lora_A\.weight")
"""A matrix of an adapter, by the name that PEFT saves it under."""
_BLOCK = re.compile(r"(?P<stack>.+?)\.\d+\.(?P<layer>.+)")
"""A layer's full name: the decoder's blocks, a block's number, the layer in it."""
_STAGE_2_PARTS = {"query_tokens", "embq"}


def quantize_layers(model: nn.Module, names: list[str], compute_dtype: torch.dtype) -> None:
    """Exchange linear layers for four-bit ones, in place; they compute in `compute_dtype`.

    Raises:
        AdapterError: where bitsandbytes is not installed, or a layer's rows are not whole blocks.
    """
    bitsandbytes = require_bitsandbytes()
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    ragged = [f"{name} ({layer.in_features})" for name, layer in layers.items() if layer.in_features % BLOCK_SIZE]
    if ragged:
        raise AdapterError(
            f"quantize: nf4 needs layers of a multiple of {BLOCK_SIZE} inputs, unlike {ragged[0]}: use none"
        )
    for name in names:  # one by one, so that each makes room for the next
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, _packed(bitsandbytes, layers.pop(name), compute_dtype))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it before it looks at the layers


def _packed(bitsandbytes: Any, layer: nn.Linear, compute_dtype: torch.dtype) -> Any:
    """One layer, packed where it is; on another device it is moved packed."""
    packed = bitsandbytes.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=compute_dtype,
        quant_type="nf4",
        compress_statistics=True,
        device="meta",
    )
    packed.weight = bitsandbytes.nn.Params4bit(
        layer.weight.data,
        requires_grad=False,
        quant_type="nf4",
        blocksize=BLOCK_SIZE,
        compress_statistics=True,
        module=packed,
    )
    packed.bias = layer.bias
    packed = packed.to(layer.weight.device)
    setattr(packed, _INFERENCE_FLAG, False)
    return packed


def require_bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise AdapterError(f"quantize: nf4 needs bitsandbytes: {QLORA_EXTRA}") from error
    return bitsandbytes


def check_same_adapter(
    before: AdapterFolder, settings: AdapterSettings, trains: tuple[str, ...], names: list[str]
) -> None:
    """Refuse to train an adapter on as another one than it is, or beside another base than its own.

    Args:
        before: the adapter.
        settings, trains, names: the stage's; full names of the layers that it puts an adapter on.

    Raises:
        AdapterError: naming every key that differs.
    """
    check_base(before, before.base_folder())
    layers = {found["layer"] for tensor in before.tensors() if (found := _LOW_RANK.fullmatch(tensor.name))}
    full = before.settings.get("modules_to_save") or []
    parts = sorted([TARGETED_PART, *(part for part, module in PARTS.items() if module in full)])
    held = UNQUANTIZED if before.base is None else before.base.quantize
    compared = (
        ("adapter.rank", before.settings["r"], settings.rank),
        ("adapter.alpha", float(before.settings["lora_alpha"]), settings.scale),
        ("adapter.targets", _last_names(layers), _last_names(names)),
        ("adapter.quantize", held, settings.quantize),
        ("trains", parts, sorted(trains)),
    )
    different = [f"{key} is {now}, that of the adapter {was}" for key, was, now in compared if was != now]
    if different:
        raise AdapterError(
            f"{before.path} cannot be trained on as it is asked to: {'; '.join(different)}: set them to the adapter's, "
            f"or merge it with `flashsloth merge` and start another one from the result"
        )


def load_adapter_weights(learner: Any, before: AdapterFolder) -> None:
    """Give PEFT's model around a base the weights of an adapter, every one of them.

    Raises:
        AdapterError: if any is missing or too many.
    """
    from peft import set_peft_model_state_dict
    from peft.utils import get_peft_model_state_dict

    there = {tensor.name for tensor in before.tensors()}
    odd = sorted(there ^ set(get_peft_model_state_dict(learner, save_embedding_layers=False)))
    if odd:
        raise AdapterError(f"{before.path} does not fit its base: {len(odd)} tensors are missing or left, as {odd[0]}")
    set_peft_model_state_dict(learner, load_file(before.path / ADAPTER_WEIGHTS))
    logger.info("training the adapter of %s on", before.path)


def _last_names(layers: Iterable[str]) -> list[str]:
    """Such as `q_proj`, each once."""
    return sorted({layer.rpartition(".")[2] for layer in layers})


def add_adapter(
    model: Any, trains: tuple[str, ...], settings: AdapterSettings, base: Base, half_precision: bool = False
) -> Any:
    """Let a model learn through an adapter.

    Args:
        model: a FlashSlothForConditionalGeneration, whole, in float32; changed in place.
        trains: the stage's parts, `language_model` among them.
        settings: the adapter's.
        base: what the model was loaded from.
        half_precision: whether the stage computes in bfloat16. What is frozen in the decoder's
            blocks is then held in it.

    Returns:
        PEFT's model around it.

    Raises:
        AdapterError: for targets that are not there, a head that is tied, a package that is missing.
    """
    peft = require_peft()
    if HEAD in trains and model.config.tie_word_embeddings:
        raise AdapterError(
            "trains names head, which is one tensor with the embedding in this model, and that stays as it is under an "
            "adapter: take head out of trains"
        )
    names = target_names(model, settings.targets)
    compute_dtype = torch.bfloat16 if half_precision else torch.float32
    if settings.quantize == NF4:
        quantize_layers(model, target_names(model, AUTO), compute_dtype)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scale,
        lora_dropout=settings.dropout,
        target_modules=_pattern(names),
        modules_to_save=[PARTS[part] for part in trains if part != TARGETED_PART],
        base_model_name_or_path=base.name,
    )
    wrapped = _model_class()(model, config)
    wrapped.base = base
    if half_precision:
        for module in decoder_layers(model.get_submodule(PARTS[TARGETED_PART])).modules():
            # autocast would round the frozen matrices of the decoder's blocks before each product in any case
            if type(module) is nn.Linear and not any(parameter.requires_grad for parameter in module.parameters()):
                module.to(compute_dtype)
    count = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    logger.info("an adapter of rank %d on %d layers: %.2f M parameters learn", settings.rank, len(names), count / 1e6)
    return wrapped


def find_base(name: str, quantize: str, trains: tuple[str, ...]) -> Base:
    """The base that a recipe names, with the digest of its tensors: a folder's full path, or a name as it is.

    Raises:
        AdapterError: if it is an adapter itself, or lacks parts that the stage does not train.
    """
    folder = find_folder(name)
    if is_adapter(folder):
        raise AdapterError(
            f"{folder} is an adapter itself: merge it with `flashsloth merge`, and start from the result"
        )
    stored = by_our_names(stored_tensors(folder), published=is_published(folder))
    if not any(is_stage_2_only(tensor) for tensor in stored) and not set(trains) >= _STAGE_2_PARTS:
        raise AdapterError(
            f"{folder} has no query tokens and no EmbQ (stage 1), so an adapter's stage must train both: trains is "
            f"{list(trains)}"
        )
    is_local = Path(name).expanduser().is_dir()
    return Base(str(folder.resolve()) if is_local else name, base_digest(folder), quantize)


def check_packages(settings: AdapterSettings) -> None:
    """Find out before anything starts whether what an adapter needs is installed.

    Raises:
        AdapterError: naming it.
    """
    require_peft()
    if settings.quantize == NF4:
        require_bitsandbytes()


def target_names(model: Any, targets: Any) -> list[str]:
    """Full names of the linear layers that an adapter is put on.

    Args:
        model: a FlashSlothForConditionalGeneration.
        targets: `auto` for all inside the decoder's blocks, or a list of last names.

    Raises:
        AdapterError: if a name is not there, or there are no linear layers.
    """
    language_model = model.get_submodule(PARTS[TARGETED_PART])
    stack = decoder_layers(language_model)
    prefix = next(name for name, module in model.named_modules() if module is stack)
    linear = [f"{prefix}.{name}" for name, module in stack.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise AdapterError(f"{type(language_model).__name__} has no linear layers in its blocks: an adapter needs some")
    if targets == AUTO:
        return linear
    there = sorted({name.rpartition(".")[2] for name in linear})
    unknown = sorted(set(targets) - set(there))
    if unknown:
        raise AdapterError(
            f"adapter.targets names {unknown}, which {type(language_model).__name__} lacks: it has {there}"
        )
    return [name for name in linear if name.rpartition(".")[2] in targets]


def _pattern(names: list[str]) -> str:
    """An expression for these names, whatever the block's number: short to read in the adapter's configuration."""
    parted = [_BLOCK.fullmatch(name) for name in names]
    stack = {match["stack"] for match in parted if match is not None}.pop()
    layers = dict.fromkeys(match["layer"] for match in parted if match is not None)
    return rf"{re.escape(stack)}\.\d+\.({'|'.join(re.escape(layer) for layer in layers)})"


def learner_of(model: Any, stage: StageRun, base_name: str | None, half: bool, checkpoint: Path | None) -> Any:
    """What learns in a stage: the model itself, or, where the stage has an adapter, PEFT's model around it.

    Args:
        model: a FlashSlothForConditionalGeneration.
        stage: as the recipe says it.
        base_name: where the model was loaded from; an adapter is trained on.
        half: whether the stage computes in bfloat16.
        checkpoint: what the stage goes on from, if it was interrupted.

    Raises:
        AdapterError: see :func:`add_adapter`, :func:`find_base`, :func:`check_same_base`, :func:`check_same_adapter`.
    """
    if stage.adapter is None:
        return model
    assert base_name is not None  # the recipe was checked
    settings, trains = stage.adapter, stage.trains
    folder = find_folder(base_name)
    before = read_adapter(folder) if is_adapter(folder) else None
    base = find_base(base_name if before is None else str(before.base_folder()), settings.quantize, trains)
    if before is not None:
        check_same_adapter(before, settings, trains, target_names(model, settings.targets))
    if checkpoint is not None:
        check_same_base(checkpoint, base)
    learner = add_adapter(model, trains, settings, base, half)
    if before is not None and checkpoint is None:
        load_adapter_weights(learner, before)
    return learner


def check_same_base(checkpoint: Path, base: Base) -> None:
    """Refuse to go on from a checkpoint whose base is not the one at hand.

    Raises:
        AdapterError: if it was learned over other weights, or over the same ones held otherwise.
    """
    before = read_adapter(checkpoint).base
    assert before is not None
    if (before.digest, before.quantize) != (base.digest, base.quantize):
        raise AdapterError(
            f"{checkpoint} was learned over {before.name!r} ({before.digest}, quantize {before.quantize}), and would "
            f"go on over {base.name!r} ({base.digest}, quantize {base.quantize}): restore the base, or begin again"
        )


def _model_class() -> Any:
    """PEFT's model, but: it saves its base beside it, asks no hub whether the embedding grew, writes no empty card."""
    import peft

    class AdaptedFlashSloth(peft.PeftModel):
        base: Base

        def save_pretrained(
            self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **options: Any
        ) -> None:
            """As PEFT's: the adapter's configuration last, so that a folder with it is complete."""
            if is_main_process:
                Path(save_directory).mkdir(parents=True, exist_ok=True)
                self.base.save(Path(save_directory))
            options = {"save_embedding_layers": False, **options}
            super().save_pretrained(str(save_directory), is_main_process=is_main_process, **options)

        def create_or_update_model_card(self, output_dir: str) -> None:
            return None

    return AdaptedFlashSloth
