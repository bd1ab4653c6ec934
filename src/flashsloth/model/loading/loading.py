"""Loading, strictly: every tensor the model has comes from a file, and every tensor of the files goes into the model.

In: a folder or a name on the hub, in our layout or the published one. Out: a model, a configuration or a processor. The
work is transformers'; here names are translated and what it reports is judged.

One exception is made, with a warning: stage 1 does not train the query tokens and EmbQ, so a published checkpoint that
lacks all of them (or a conversion of one) is taken for one of stage 1, and they are initialized randomly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flashsloth.media.limits import cause
from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.loading.folders import CONFIG, local_folder, read_config_dict, split_hub_options
from flashsloth.model.loading.non_finite import ADVICE, needless_quantization, non_finite_weights, wrong_dtypes
from flashsloth.model.loading.preflight import (
    check_before_loading,
    check_generation,
    check_json_files,
    config_of,
    joined,
)
from flashsloth.model.loading.published_config import is_published, is_published_dict, published_config
from flashsloth.model.loading.published_processor import published_processor
from flashsloth.model.loading.safetensors_files import CheckpointError, StoredTensor, load_tensors, stored_tensors
from flashsloth.model.loading.weight_names import allowed_missing_keys, by_our_names, to_published

logger = logging.getLogger(__name__)

_CONFIG_FIELDS = frozenset(FlashSlothConfig.__annotations__) - {"sub_configs"}
_BASE_PREFIX = "model."
_HEAD = "lm_head."


def load_model(load: Callable[..., Any], name_or_path: Any, *args: Any, **options: Any) -> Any:
    """Load a model of either layout.

    Args:
        load: transformers' own `from_pretrained`, bound to the model's class.
        name_or_path: a folder or a name on the hub.
        *args: for the model's constructor.
        **options: transformers' (`dtype`, `device_map`, `attn_implementation`, `revision`, ...); for the published
            layout also fields of :class:`FlashSlothConfig`, as `image_grid=2`. With `output_loading_info=True` what is
            missing or unexpected is the caller's to judge: it stands in the report that comes beside the model.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape; each is named, with its file.
    """
    if options.get("trust_remote_code"):
        raise CheckpointError("trust_remote_code is refused: a FlashSloth checkpoint needs no code but this package's")
    hub, others = split_hub_options(options)
    flat = None if name_or_path is None else read_config_dict(name_or_path, **hub)
    if flat is None:  # nothing of ours to judge: an adapter, a state_dict, or an error that transformers words
        return load(name_or_path, *args, **options)
    wants_info = others.pop("output_loading_info", False)
    tolerates_shapes = others.pop("ignore_mismatched_sizes", False)
    others |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    published = is_published_dict(flat)
    stored = _stored(name_or_path)
    if flat.get("quantization_config") is None:
        _refuse(name_or_path, wrong_dtypes(stored.values()))
    elif stored and (problems := needless_quantization(flat, stored.values())):
        raise CheckpointError(f"{name_or_path}: {problems[0]}")
    with without_report():
        if published:
            folder = local_folder(name_or_path, **hub)
            check_json_files(folder)
            model, info = _load_published(load, folder, str(name_or_path), args, others)
        else:
            _check_ours(Path(name_or_path), others, tolerates_shapes=tolerates_shapes)
            model, info = load(name_or_path, *args, **hub, **others)
    judged = {**info, "missing_keys": (), "unexpected_keys": ()} if wants_info else info
    _judge(model, judged, name_or_path, published=published, tolerates_shapes=tolerates_shapes)
    _check_sound(model, name_or_path, published=published)
    return (model, info) if wants_info else model


def load_config(name_or_path: Any, **options: Any) -> FlashSlothConfig:
    """The configuration of a checkpoint of either layout; options as for :func:`load_model`."""
    hub, overrides = split_hub_options(options)
    if is_published(name_or_path, **hub):
        return published_config(local_folder(name_or_path, **hub), **overrides)
    return config_of(name_or_path, **options)


def load_processor(name_or_path: Any, **options: Any) -> Any:
    """The processor of a checkpoint of either layout; options as for :func:`load_model`.

    Raises:
        CheckpointError: if there is none that works.
    """
    from flashsloth.model.processing_flashsloth import FlashSlothProcessor

    hub, overrides = split_hub_options(options)
    if is_published(name_or_path, **hub):
        folder = local_folder(name_or_path, **hub)
        return published_processor(folder, published_config(folder, **overrides))
    if Path(name_or_path).is_dir():
        check_json_files(Path(name_or_path))
    try:
        return FlashSlothProcessor.from_pretrained(name_or_path, **options)
    except Exception as error:  # tokenizers and transformers meet odd files with any kind of error
        raise CheckpointError(
            f"{name_or_path} has no usable processor ({cause(error)}): save it beside the model"
        ) from error


def _check_ours(folder: Path, options: Mapping[str, Any], *, tolerates_shapes: bool) -> None:
    """Look through the files of a folder in our layout before transformers makes room for what they say."""
    if not folder.is_dir() or "subfolder" in options or not (folder / CONFIG).is_file():
        return  # a name on the hub, which `inference.load` makes a folder of first
    check_json_files(folder)
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return
    named = stored_tensors(folder)
    config = options.get("config")
    if not isinstance(config, FlashSlothConfig):
        config = config_of(folder, **{key: options[key] for key in _CONFIG_FIELDS & set(options)})
    check_generation(folder, config.text_config.vocab_size)
    if not tolerates_shapes and any(name.startswith(_BASE_PREFIX) for name in named):
        check_before_loading(folder, config, named)


def _load_published(
    load: Callable[..., Any], folder: Path, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Hand transformers the published tensors under our names, with the configuration they imply."""
    tensors = stored_tensors(folder)
    overrides = {key: options.pop(key) for key in _CONFIG_FIELDS & set(options)}
    config = options.pop("config", None)
    if config is None:
        config = published_config(folder, tensors=tensors, **overrides)
    named = by_our_names(tensors)
    check_before_loading(folder, config, named, lambda name: to_published(name) or name)
    loaded = by_our_names(load_tensors(tensors.values()))
    model, info = load(None, *args, config=config, state_dict=loaded, **options)
    model.name_or_path = model.config.name_or_path = name  # transformers was given tensors, not a name
    return model, info


def _judge(model: Any, info: Mapping[str, Any], name_or_path: Any, *, published: bool, tolerates_shapes: bool) -> None:
    """Raise for what does not fit, warn of what is initialized randomly."""
    has_head = hasattr(model, "lm_head")
    prefix = "" if has_head else _BASE_PREFIX  # the base model's own names lack it
    shapes = {prefix + name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = {prefix + name for name in info["missing_keys"]}
    if drawn := allowed_missing_keys(model.config, missing, shapes):
        logger.warning("%s has no query tokens and no EmbQ (stage 1): they are initialized randomly", name_or_path)
        missing -= drawn
    unexpected = {name for name in info["unexpected_keys"] if has_head or not name.startswith(_HEAD)}
    misshapen = [] if tolerates_shapes else list(info["mismatched_keys"])
    if not (missing or unexpected or misshapen):
        return
    stored = _stored(name_or_path)

    def place(name: str) -> str:
        """The name as the file has it, after the file's."""
        own = to_published(name) or name if published else name
        return f"{stored[own].file.name}: {own}" if own in stored else own

    problems = [f"{place(name)} is missing, expected {shapes.get(name)}" for name in sorted(missing)]
    for name, found, expected in sorted(misshapen, key=str):
        problems.append(f"{place(prefix + name)} is {list(found)}, expected {list(expected)}")
    problems += [f"{place(name)} is unexpected" for name in sorted(unexpected)]
    raise CheckpointError(f"{name_or_path} does not hold this model: {joined(problems)}")


def _check_sound(model: Any, name_or_path: Any, *, published: bool) -> None:
    """Refuse weights that are not finite; a quantized checkpoint's are its own."""
    if getattr(model.config, "quantization_config", None) is not None:
        return
    stored = by_our_names(_stored(name_or_path), published=published)
    if not hasattr(model, "lm_head"):
        stored = {name.removeprefix(_BASE_PREFIX): held for name, held in stored.items()}
    _refuse(name_or_path, non_finite_weights(model, stored))


def _refuse(name_or_path: Any, problems: list[str]) -> None:
    if problems:
        raise CheckpointError(f"{name_or_path} cannot be computed with: {joined(problems)}; {ADVICE}")


@contextmanager
def without_report() -> Iterator[None]:
    """Keep transformers from logging its table of what does not fit; the caller judges that."""
    report_logger = logging.getLogger("transformers.modeling_utils")

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    report_logger.addFilter(is_no_report)
    try:
        yield
    finally:
        report_logger.removeFilter(is_no_report)


def _stored(name_or_path: Any) -> dict[str, StoredTensor]:
    """A local folder's tensors, to say which file is meant; nothing where they cannot be had."""
    folder = Path(name_or_path)
    try:
        return stored_tensors(folder) if folder.is_dir() else {}
    except CheckpointError:
        return {}
