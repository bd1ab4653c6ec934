"""A base and its adapter to one model, and to an ordinary checkpoint that is proved to compute the same.

In: an adapter's folder, and its base where that is not the one written down. Out: a model whose every tensor has the
type that it has in the base; or a folder as any other checkpoint's.

Sums are made in float32, by PEFT, and rounded once. An adapter that was learned over a quantized base is folded into
the base as it is stored, not into what the quantization left of it. The proof compares the logits of one small batch
with pictures, drawn from a fixed seed, before and after: a question about a picture, one about two, one about none.

Legend: B rows, T positions, V vocabulary, n positions that are no padding.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from flashsloth.checkpoint.adapter import PEFT_EXTRA, AdapterError, AdapterFolder, base_digest, read_adapter
from flashsloth.model.loading import by_our_names, is_published, load_processor
from flashsloth.model.loading.folders import appearing_folder
from flashsloth.model.loading.safetensors_files import TORCH_DTYPES, stored_tensors
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

SEED = 0
QUESTIONS = (("What is in the picture?", 1), ("Which of the two is larger?", 2), ("What can you do?", 0))
"""A question, and how many pictures it is about."""
PICTURE_SIZE = (96, 64)
logger = logging.getLogger(__name__)
MERGING_TOLERANCE = 1e-4
"""How far float32 sums in another order may bring logits apart, as a share of the largest logit."""
ROUNDING_TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The same once every weight is rounded to the base's type: some tens of that type's own precision."""


@dataclass(frozen=True)
class Difference:
    """How far two sets of logits are apart.

    Attributes:
        largest: the largest absolute difference.
        scale: the largest absolute logit of the expected ones.
        same_choice: share of positions with the same likeliest token.
    """

    largest: float
    scale: float
    same_choice: float

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest logit."""
        return self.largest / self.scale if self.scale else self.largest


def proof_batch(processor: Any) -> dict[str, torch.Tensor]:
    """The batch, as the processor writes it."""
    noise = np.random.default_rng(SEED)
    width, height = PICTURE_SIZE
    chats = []
    for question, count in QUESTIONS:
        pictures = [Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)) for _ in range(count)]
        content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": question}]
        chats.append([{"role": "user", "content": content}])
    encoded = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_tensors="pt", padding_side="right", add_generation_prompt=True
    )
    return dict(encoded)


@torch.no_grad()
def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """float32 [n, V], at the n positions of the batch that are no padding."""
    device = next(model.parameters()).device
    logits = model.eval()(**{name: values.to(device) for name, values in batch.items()}).logits  # [B, T, V]
    return logits.float().cpu()[batch["attention_mask"].bool()]


def compare(found: torch.Tensor, expected: torch.Tensor) -> Difference:
    """How far `found` is from `expected`, float32 [n, V] both; what is not a number is infinitely far."""
    apart = (found - expected).abs().max().item()
    return Difference(
        largest=apart if np.isfinite(apart) else float("inf"),
        scale=expected.abs().max().item(),
        same_choice=(found.argmax(-1) == expected.argmax(-1)).double().mean().item(),
    )


@dataclass(frozen=True)
class Merge:
    """What `merge` did.

    Attributes:
        folder: the new checkpoint.
        base: the folder of the base.
        effect: what the adapter changes: base with it, beside base without.
        merging: the merged model in float32, beside base with adapter.
        rounding: the checkpoint as it was written, beside base with adapter.
        coarsest: the base's coarsest type, which `rounding` is due to.
    """

    folder: Path
    base: Path
    effect: Difference
    merging: Difference
    rounding: Difference
    coarsest: torch.dtype

    @property
    def dtype(self) -> str:
        """That type's name."""
        return str(self.coarsest).removeprefix("torch.")

    @property
    def tolerance(self) -> float:
        """What `rounding` may be at most, as a share of the largest logit."""
        return ROUNDING_TOLERANCES[self.coarsest]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        steps = {name: dataclasses.asdict(getattr(self, name)) for name in ("effect", "merging", "rounding")}
        tolerances = {"merging_tolerance": MERGING_TOLERANCE, "rounding_tolerance": self.tolerance}
        return {"folder": str(self.folder), "base": str(self.base), "dtype": self.dtype, **steps, **tolerances}


def merge(
    adapter: str | os.PathLike[str],
    out: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    *,
    replace: bool = False,
) -> Merge:
    """Fold an adapter into its base and write the result, once it is proved to compute the same.

    Args:
        adapter: the adapter's folder, or its name on the hub.
        out: a folder that does not exist yet, or is empty.
        base: where the base is; None for what the adapter says.
        replace: whether a checkpoint at `out` makes way.

    Raises:
        AdapterError: for a wrong base, an adapter that does not fit, or a proof that fails; nothing is written then.
        CheckpointError: if `out` is taken.
    """
    found = read_adapter(adapter)
    base_folder = found.base_folder(base)
    _check_apart(Path(out), found.path, base_folder)
    processor = load_processor(found.path)
    with appearing_folder(Path(out), replace=replace) as work:
        check_base(found, base_folder)
        wrapped = _with_adapter(found, base_folder)
        batch = proof_batch(processor)
        expected = logits_of(wrapped, batch)
        with wrapped.disable_adapter():
            effect = compare(logits_of(wrapped, batch), expected)
        model = _folded(wrapped)
        merging = compare(logits_of(model, batch), expected)
        _check_difference(merging, MERGING_TOLERANCE, "folding it in")
        dtypes = _stored_dtypes(base_folder)
        coarsest = _round(model, dtypes)
        model.save_pretrained(work)
        processor.save_pretrained(work)
        _check_written(work, model)
        rounding = compare(logits_of(model.float(), batch), expected)
        _check_difference(rounding, ROUNDING_TOLERANCES[coarsest], f"rounding to {coarsest}")
    logger.info("%s: %s folded into %s", out, found.path, base_folder)
    return Merge(Path(out), base_folder, effect, merging, rounding, coarsest)


def merged_model(
    adapter: str | os.PathLike[str], base: str | os.PathLike[str] | None = None
) -> FlashSlothForConditionalGeneration:
    """The model that `merge` would write, on the CPU, without the proof.

    Raises:
        AdapterError: for a wrong base, or an adapter that does not fit it.
    """
    found = read_adapter(adapter)
    base_folder = found.base_folder(base)
    check_base(found, base_folder)
    model = _folded(_with_adapter(found, base_folder))
    _round(model, _stored_dtypes(base_folder))
    return model


def check_base(adapter: AdapterFolder, base_folder: Path) -> None:
    """Refuse a base that is not the one an adapter was made for; warn where nobody can know.

    Raises:
        AdapterError: if its digest is another.
    """
    if adapter.base is None or adapter.base.digest is None:
        logger.warning("%s has no digest of its base: %s is taken for it unchecked", adapter.path, base_folder)
        return
    found = base_digest(base_folder)
    if found != adapter.base.digest:
        raise AdapterError(
            f"{base_folder} is not the base of {adapter.path}: its weights have the digest {_short(found)}, expected "
            f"{_short(adapter.base.digest)}, those of {adapter.base.name!r}: name the right one with --base"
        )


def _with_adapter(adapter: AdapterFolder, base_folder: Path) -> Any:
    """Base and adapter side by side, in float32, strictly: every tensor of the adapter in its place, none left out."""
    peft = require_peft()
    adapter.check_values()
    from peft.utils import get_peft_model_state_dict

    model = FlashSlothForConditionalGeneration.from_pretrained(base_folder, dtype=torch.float32)
    stored = {tensor.name: tensor.shape for tensor in adapter.tensors()}
    try:
        wrapped = peft.PeftModel.from_pretrained(model, adapter.path, is_trainable=False)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(f"{adapter.path} does not fit {base_folder}: {reason}") from error
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if stored != expected:
        differing = sorted(name for name in stored.keys() | expected.keys() if stored.get(name) != expected.get(name))
        found = f"{len(differing)} tensors differ, such as {differing[0]}"
        raise AdapterError(f"{adapter.path} does not fit {base_folder}: {found}")
    return wrapped.eval()


def _folded(wrapped: Any) -> FlashSlothForConditionalGeneration:
    """The base model with the adapter in its weights."""
    model = wrapped.merge_and_unload()
    assert isinstance(model, FlashSlothForConditionalGeneration)
    return model.eval()


def _stored_dtypes(base_folder: Path) -> dict[str, torch.dtype]:
    """Our name of each of a base's tensors -> its type."""
    named = by_our_names(stored_tensors(base_folder), published=is_published(base_folder))
    known = {name: TORCH_DTYPES[tensor.dtype] for name, tensor in named.items() if tensor.dtype in TORCH_DTYPES}
    return {name: getattr(torch, dtype) for name, dtype in known.items()}


@torch.no_grad()
def _round(model: FlashSlothForConditionalGeneration, dtypes: Mapping[str, torch.dtype]) -> torch.dtype:
    """Give every tensor its type in the base, or, where the base lacks it, the commonest. Returns the coarsest type."""
    kinds = list(dtypes.values())
    common = max(set(kinds), key=kinds.count)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtypes.get(name, common))
    model.config.dtype = common
    return max({*kinds, common}, key=lambda dtype: torch.finfo(dtype).eps)


def _check_written(folder: Path, model: FlashSlothForConditionalGeneration) -> None:
    """Hold the files against the model, bit for bit."""
    state = model.state_dict()
    for name, tensor in stored_tensors(folder).items():
        wanted = state[name].detach().contiguous()
        if tensor.read_bytes() != wanted.view(torch.uint8).numpy().tobytes():
            raise AdapterError(f"{name} was not written as it was computed: is the disk at fault?")


def _check_difference(difference: Difference, tolerance: float, what: str) -> None:
    if not difference.relative <= tolerance:
        raise AdapterError(
            f"{what} changed logits by up to {difference.largest:.3g}, {difference.relative:.2g} of the largest "
            f"({difference.scale:.3g}); expected at most {tolerance:.0e} of it: nothing was written"
        )


def _check_apart(out: Path, *sources: Path) -> None:
    """Keep what is read from being replaced."""
    for source in sources:
        if out.resolve() == source.resolve() or out.resolve() in source.resolve().parents:
            raise AdapterError(f"{out} holds what is to be merged ({source}): choose another folder")


def require_peft() -> Any:
    """PEFT, or how to get it.

    Raises:
        AdapterError: where it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise AdapterError(f"adapters need peft: {PEFT_EXTRA}") from error
    return peft


def _short(digest: str) -> str:
    """Enough of a digest to tell two apart."""
    return digest[: digest.index(":") + 13] if ":" in digest else digest
