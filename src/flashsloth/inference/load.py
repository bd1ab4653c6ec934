"""Loading: a name to a :class:`FlashSloth` that answers.

In: nothing (the small model inside the package), a folder, or a name on the Hugging Face hub: in our layout, in the
published one, or an adapter, which is merged into its base; and "auto" or a name for device and precision. Out: the
model on its device in its precision, with its processor. Nothing in a checkpoint is ever executed, and transformers
draws no progress bar meanwhile in the thread that loads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

from flashsloth.checkpoint.adapter import is_adapter, read_adapter
from flashsloth.errors import LoadError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.picture_cache import DEFAULT_BYTES, PictureCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.prompt import PromptWriter
from flashsloth.kernels import SpeedError, check_quantization
from flashsloth.kernels.capabilities import multiplies_bfloat16
from flashsloth.kernels.optimize import speed_up
from flashsloth.media.limits import cause
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading import CheckpointError, is_published, load_processor
from flashsloth.model.loading.folders import CONFIG, SHIPPED, find_folder, shipped_folder
from flashsloth.model.loading.non_finite import ADVICE, non_finite_weights
from flashsloth.model.loading.preflight import check_processor
from flashsloth.model.loading.safetensors_files import read_json
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.prompt_layout import prompt_ids

AUTO = "auto"
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
LARGE_BYTES = 1 << 30
"""Weights of half-precision checkpoints beyond this stay halved on a processor; below, float32 costs nothing."""
PROCESSOR_FILE = "processor_config.json"
WEIGHT_FILES, UNSAFE_WEIGHT_FILES = "*.safetensors", "*.bin"

_lock = threading.Lock()
_inside: list[int] = []  # threads, each as often as it has entered
_hook_before: Callable[..., Any] | None = None


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = AUTO,
    dtype: str | torch.dtype = AUTO,
    quantize: str | None = None,
    optimize: bool = True,
    picture_cache: int = DEFAULT_BYTES,
    engine: EngineConfig | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> FlashSloth:
    """Load a FlashSloth.

    Args:
        name_or_path: a folder, or a name on the hub such as "Tongbo/FlashSloth-3.2B"; None, or "nano" where no folder
            has that name, for the small model that comes with the package.
        device: "auto" (cuda, then mps, then cpu), or a torch device.
        dtype: "auto" (bfloat16 on an accelerator; on a processor float32, or bfloat16 for a large checkpoint stored in
            half precision where the processor is good at it), "float32", "bfloat16" or "float16".
        quantize: "int8" or "int4" for a language model of half or a quarter of the bytes; answers change a little.
        optimize: make the model faster for answering (see :mod:`flashsloth.kernels`). It cannot be trained or
            moved then.
        picture_cache: bytes kept of pictures that may be asked about again; 0 for none.
        engine: how many answers are made at once, and in how much memory; None for the defaults.
        adapter: of this model, or, where none is named, of the one that the adapter names; it is merged in.

    Raises:
        LoadError: if there is no such checkpoint, it holds something else, or the device or precision cannot be had.
        AdapterError: if it is an adapter that cannot be merged into its base.
        SpeedError: if the model cannot be quantized, or is to be without `optimize`.
        CheckpointError: if the hub does not have it, or its weights are not those of its configuration.
    """
    if quantize is not None and not optimize:
        raise SpeedError(f"quantize={quantize!r} needs optimize=True: without it a model stays as it was saved")
    if engine is not None and not isinstance(engine, EngineConfig):
        raise LoadError(f"engine is {type(engine).__name__}; expected an EngineConfig")
    chosen_quantization = check_quantization(quantize)
    chosen_device = choose_device(device)
    cache = PictureCache(picture_cache)
    named = name_or_path if adapter is None else adapter
    folder = shipped_folder() if named is None else find_folder(named)
    base = None if adapter is None else name_or_path
    whole = folder if adapter is None and not is_adapter(folder) else read_adapter(folder).base_folder(base)
    settings = _read_config(whole)
    stored = DTYPES.get(str(settings.get("dtype") or settings.get("torch_dtype")).removeprefix("torch."), torch.float32)
    chosen_dtype = choose_dtype(dtype, chosen_device, stored, _weight_bytes(whole))
    try:
        with no_progress_bar():
            model = _load_model(folder, whole, chosen_dtype)
    except OSError as error:
        raise LoadError(f"{folder} cannot be loaded ({cause(error)}): copy the checkpoint again") from error
    name = SHIPPED if named is None else os.fspath(named)
    processor = _load_processor(folder, model)
    if model.config.prompt_ids is None:
        with suppress(ValueError):  # a template of another kind: the model refuses ids alone
            model.config.prompt_ids = prompt_ids(processor)
    if whole != folder and (problems := non_finite_weights(model, {})):
        raise LoadError(f"{folder} merged into {whole} gives weights that are not finite: {problems[0]}; {ADVICE}")
    model = model.to(chosen_device)
    if optimize:
        speed_up(model, quantize=chosen_quantization)
    return FlashSloth(model, processor, name, cache, EngineConfig(cuda_graphs=optimize) if engine is None else engine)


def _load_model(folder: Path, whole: Path, dtype: torch.dtype) -> FlashSlothForConditionalGeneration:
    """A checkpoint, or an adapter with `whole`, its base, as `flashsloth merge` would make one of them."""
    if whole == folder:
        loaded: FlashSlothForConditionalGeneration = FlashSlothForConditionalGeneration.from_pretrained(
            folder, dtype=dtype
        )
        return loaded
    from flashsloth.checkpoint.merge_adapter import merged_model

    return merged_model(folder, whole).to(dtype)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise LoadError(f"{folder} has no {CONFIG}: it is not a checkpoint; give the folder that holds one")
    settings = read_json(path)
    kind = settings.get("model_type")
    if kind != FlashSlothConfig.model_type and not is_published(folder):
        raise LoadError(
            f"{folder} holds a model of type {kind!r}, expected {FlashSlothConfig.model_type!r}: "
            f"`flashsloth new` joins a vision encoder and a language model into one"
        )
    return settings


def _weight_bytes(folder: Path) -> int:
    """Bytes of all weights."""
    sizes = [file.stat().st_size for file in folder.glob(WEIGHT_FILES)]
    if not sizes:
        found = any(folder.glob(UNSAFE_WEIGHT_FILES))
        advice = "`flashsloth convert` makes them of .bin files" if found else "copy or download the whole checkpoint"
        raise LoadError(f"{folder} has no weights ({WEIGHT_FILES}): {advice}")
    return sum(sizes)


def _load_processor(folder: Path, model: FlashSlothForConditionalGeneration) -> Any:
    """The processor, tried on a picture of one pixel: settings of the wrong type fail here, not later.

    Raises:
        LoadError, CheckpointError: if it does not work, or not with this model.
    """
    if not is_published(folder) and not (folder / PROCESSOR_FILE).is_file():
        raise LoadError(f"{folder} has no {PROCESSOR_FILE}: save the processor beside the model")
    processor = load_processor(folder)
    try:
        check_processor(folder, processor, model.config)
        pixels = processor.image_processor(Image.new("RGB", (1, 1)), return_tensors="pt")["pixel_values"]
        writer = PromptWriter(processor)
        prompt = writer.write([writer.user_message("What is this?", 1)], None)
    except CheckpointError:
        raise
    except Exception as error:  # a setting of the wrong type may raise anything
        raise LoadError(f"{folder} has no usable processor ({cause(error)}): save it beside the model") from error
    if not pixels.isfinite().all():
        raise LoadError(f"{folder}: image_mean and image_std in {PROCESSOR_FILE} do not make numbers of pixels")
    if not prompt.turns or not any(prompt.image_index):
        raise LoadError(f"{folder} has a chat template that writes no picture and question: save the processor again")
    return processor


def choose_device(device: str | torch.device) -> torch.device:
    """The device asked for, or with "auto" the best there is: cuda, then mps, then cpu.

    Raises:
        LoadError: if there is no such device.
    """
    if device == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise LoadError(f"device is {device!r}; expected auto, cpu, cuda, cuda:0 or mps") from error
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if chosen.type not in found:
        raise LoadError(f"device is {str(device)!r}, which models are not run on here; expected {' or '.join(found)}")
    if (chosen.index or 0) >= found[chosen.type]:
        here = ", ".join(name for name, count in found.items() if count)
        raise LoadError(f"device {str(device)!r} is not available; this machine and this torch have: {here}")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device, stored: torch.dtype, stored_bytes: int) -> torch.dtype:
    """The precision asked for, or with "auto" the one that is right and fast on `device`.

    On an accelerator bfloat16: as fast as float16 there, and Phi's attention scores overflow float16. On a processor
    float32, unless a large checkpoint is stored in half the bits and the processor multiplies bfloat16 itself.

    Raises:
        LoadError: if there is no such precision.
    """
    if dtype == AUTO:
        halved = stored.itemsize < torch.float32.itemsize and stored_bytes > LARGE_BYTES
        on_accelerator = device.type != "cpu"
        return torch.bfloat16 if on_accelerator or (halved and multiplies_bfloat16()) else torch.float32
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise LoadError(f"dtype is {dtype!r}; expected auto, {', '.join(list(DTYPES)[:3])} or their short names")
    return chosen


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """A block in which this thread draws none of transformers' bars."""
    global _hook_before
    here = threading.get_ident()
    with _lock:
        if not _inside:
            _hook_before = set_tqdm_hook(_hook)
        _inside.append(here)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(here)
            if not _inside and (current := set_tqdm_hook(_hook_before)) is not _hook:
                set_tqdm_hook(current)  # another one was set meanwhile: it stays


def _hook(factory: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    if threading.get_ident() in _inside:
        return EmptyTqdm(*args, **settings)
    return factory(*args, **settings) if _hook_before is None else _hook_before(factory, args, settings)
