"""Features of a frozen encoder, computed once and read back from disk: one file a picture.

In: pictures as the processor made them. Out: their features F, from disk where they are there, from the encoder where
not, and then on disk, up to a bound.

    worker   pixels -> key -> file read -> batch: features that were found, pixels of the others      FeatureCollator
    device   pixels of the others -> encoder -> files written; all features -> SAP, projector, ...    reading_features

A file's name is a digest of the pixels, which holds the picture and its preprocessing; its folder's is one of the
encoder's weights and of how it computes. Files are written aside and renamed: several workers, processes and
runs may share a folder. Fresh features are rounded as stored ones are, so what is learned does not depend on what the
folder happened to hold.

Legend: N pictures of a batch, W views a picture, P patches a view, V vision width.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from flashsloth.errors import FlashSlothError
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration, FlashSlothModel
from flashsloth.model.outputs import FlashSlothImageFeatures
from flashsloth.planning.machine import readable
from flashsloth.training import distributed
from flashsloth.training.recipe import StageRun
from flashsloth.training.recipe_fields import FeatureCache

logger = logging.getLogger(__name__)

BATCH_KEY = "cached_features"
"""What a batch calls the features that were found, and the keys of all."""
TENSOR = "features"
SUFFIX, ASIDE = ".safetensors", ".tmp"
GIGA = 1e9
FILE_HEADER = 128
"""Bytes of a file beside its numbers: safetensors' header."""
FINGERPRINT_LETTERS = 16
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk, and of a used-up quota."""


class FeatureStoreError(FlashSlothError, ValueError):
    """Features cannot be kept as a recipe asks."""


class FeatureStore:
    """One encoder's files in a folder. Small, and can be handed to worker processes."""

    def __init__(self, cache: FeatureCache, model: FlashSlothModel, precision: str, processes: int = 1) -> None:
        """Open a folder.

        Args:
            cache: where, and how much.
            model: whose encoder it is; all its weights have to be here.
            precision: what the encoder computes in, by any name: other features for another name.
            processes: that write at the same time, each a share of what is left.

        Raises:
            FeatureStoreError: if the encoder learns or is random, or the folder cannot be written.
        """
        _check_encoder(model.vision_tower)
        config = model.config
        self.dtype = getattr(torch, cache.dtype)
        self.shape = (config.num_views * config.num_patches, config.vision_config.hidden_size)
        self.root, self.max_bytes = Path(str(cache.folder)).expanduser(), int(cache.max_gb * GIGA)
        fingerprint = encoder_fingerprint(model, f"{precision}, kept in {cache.dtype}")
        self.folder = self.root / fingerprint[:FINGERPRINT_LETTERS]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeatureStoreError(f"feature_cache.folder {self.root} cannot be made: {error.strerror}") from error
        self.used = _bytes_below(self.root)
        self.left = max(0, self.max_bytes - self.used) // processes
        self._is_full_said = False

    @property
    def picture_bytes(self) -> int:
        """Of one picture's file."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize + FILE_HEADER

    def announce(self, pictures: int | None) -> None:
        """Say what the files take, and refuse what the disk does not have room for.

        Args:
            pictures: that will come, at most; None where that is not known.

        Raises:
            FeatureStoreError: if the disk has less room than the files may take.
        """
        allowed = max(0, self.max_bytes - self.used)
        wanted = allowed if pictures is None else min(allowed, pictures * self.picture_bytes)
        free = shutil.disk_usage(self.folder).free
        all_of_them = "" if pictures is None else f"; {pictures:,} are {readable(pictures * self.picture_bytes, 'B')}"
        logger.info(
            "features of a picture take %s%s; %s holds %s and may hold %s",
            readable(self.picture_bytes, "B"),
            all_of_them,
            self.root,
            readable(self.used, "B"),
            readable(self.max_bytes, "B"),
        )
        if wanted > free:
            raise FeatureStoreError(
                f"feature_cache may write {readable(wanted, 'B')} into {self.root}, whose disk has "
                f"{readable(free, 'B')} free: lower max_gb, or choose another folder"
            )

    def key(self, pixels: torch.Tensor) -> bytes:
        """The name of a picture's features, of its pixels float [W, 3, size, size] on a processor."""
        return hashlib.sha256(pixels.contiguous().numpy().tobytes()).digest()

    def read(self, key: bytes) -> torch.Tensor | None:
        """Features [W*P, V], or None where they are not there, or not whole."""
        path = self._path(key)
        try:
            features = load_file(path)[TENSOR]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError) as error:
            logger.warning("%s is damaged (%s): computed again", path, error)
            return None
        return features if tuple(features.shape) == self.shape else None

    def write(self, key: bytes, features: torch.Tensor) -> None:
        """Keep features [W*P, V], if there is room left.

        Raises:
            FeatureStoreError: if the disk is full, or gone.
        """
        if self.left < self.picture_bytes:
            if not self._is_full_said:
                logger.info("the feature cache holds its %s: the rest is computed", readable(self.max_bytes, "B"))
            self._is_full_said = True
            return
        path = self._path(key)
        aside = path.with_name(f"{path.name}.{os.getpid()}{ASIDE}")
        try:
            path.parent.mkdir(exist_ok=True)
            save_file({TENSOR: features.contiguous()}, aside)
            os.replace(aside, path)
        except (OSError, SafetensorError) as error:
            aside.unlink(missing_ok=True)
            raise self._not_written(error) from error
        self.left -= self.picture_bytes

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def _not_written(self, error: Exception) -> FeatureStoreError:
        free = shutil.disk_usage(self.root).free
        is_full = getattr(error, "errno", None) in FULL or free < self.picture_bytes
        reason = "its disk is full" if is_full else " ".join(str(error).split())
        return FeatureStoreError(
            f"features cannot be written into {self.root}: {reason} ({readable(free, 'B')} free): free some, lower "
            f"feature_cache.max_gb, or leave feature_cache out"
        )


class FeatureCollator:
    """A stage's collator, whose batches bring features from disk in the place of pixels."""

    def __init__(self, collator: Callable[[list[Any]], dict[str, Any]], store: FeatureStore) -> None:
        self.collator, self.store = collator, store

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        batch = dict(self.collator(samples))
        pixels = batch.get("pixel_values")
        if pixels is None or not len(pixels):
            return batch
        del batch["pixel_values"]
        keys = [self.store.key(picture) for picture in pixels]
        found = [self.store.read(key) for key in keys]
        is_found = torch.tensor([features is not None for features in found])
        here = [features for features in found if features is not None]
        batch[BATCH_KEY] = {
            "key": torch.tensor([list(key) for key in keys], dtype=torch.uint8),  # [N, 32]
            "is_found": is_found,  # [N]
            "features": torch.stack(here) if here else torch.empty(0, *self.store.shape, dtype=self.store.dtype),
            "pixel_values": pixels[~is_found],
        }
        return batch


@contextmanager
def features_on_disk(model: FlashSlothForConditionalGeneration, stage: StageRun) -> Iterator[FeatureStore | None]:
    """While this is open, a stage with a `feature_cache` keeps features in it; gives its store, or None without one.

    Raises:
        FeatureStoreError: as :class:`FeatureStore` does.
    """
    if stage.feature_cache is None:
        yield None
        return
    computed = f"{stage.precision}, {stage.attention}"
    store = FeatureStore(stage.feature_cache, model.model, computed, distributed.count())
    with reading_features(model, store):
        yield store


def read_from(store: FeatureStore, trainer: Any) -> None:
    """Have a trainer's data come with features from disk, and say what they take there.

    Raises:
        FeatureStoreError: if the disk has too little room.
    """
    data = trainer.train_dataset
    store.announce(len(data) if hasattr(data, "__len__") else None)
    trainer.data_collator = FeatureCollator(trainer.data_collator, store)


@contextmanager
def reading_features(model: FlashSlothForConditionalGeneration, store: FeatureStore) -> Iterator[None]:
    """While this is open, `model` takes batches of a :class:`FeatureCollator`, and keeps what it has to compute."""

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kwargs = dict(kwargs)
        cached = kwargs.pop(BATCH_KEY, None)
        if cached is not None:
            features = _all_features(module, store, cached)
            kwargs["mm_encoder_outputs"] = {"image": FlashSlothImageFeatures(last_hidden_state=features)}
        return args, kwargs

    hook = model.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def _all_features(model: FlashSlothModel, store: FeatureStore, cached: dict[str, torch.Tensor]) -> torch.Tensor:
    """Features [N, W*P, V] in the pictures' order: those found, and those of the encoder, which are kept."""
    is_found, found = cached["is_found"], cached["features"]
    dtype = next(model.spatial_attention_pooling.parameters()).dtype  # that of who takes them
    if bool(is_found.all()):
        return found.to(dtype)
    with torch.autocast(found.device.type, dtype=torch.bfloat16) if dtype == torch.bfloat16 else nullcontext():
        fresh = model.encode_pictures(cached["pixel_values"]).to(store.dtype)  # [missing, W*P, V]
    missing = (~is_found).nonzero().flatten().tolist()
    keys, kept = cached["key"].cpu(), fresh.cpu()
    for place, features in zip(missing, kept, strict=True):
        store.write(bytes(keys[place].tolist()), features)
    everything = fresh.new_empty(len(is_found), *store.shape)
    everything[is_found], everything[~is_found] = found.to(fresh.dtype), fresh
    return everything.to(dtype)


def encoder_fingerprint(model: FlashSlothModel, computed: str) -> str:
    """A digest of the encoder's weights, of its configuration, and of what it computes in."""
    digest = hashlib.sha256(computed.encode())
    digest.update(json.dumps(model.config.vision_tower_config().to_dict(), sort_keys=True, default=str).encode())
    for name, parameter in model.vision_tower.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_encoder(encoder: nn.Module) -> None:
    """Refuse an encoder whose features change from step to step."""
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        raise FeatureStoreError(
            "feature_cache keeps features of a frozen encoder, and this stage trains the vision encoder: leave "
            "feature_cache out, or vision_encoder out of trains"
        )
    drops = [name for name, module in encoder.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    drops += [name for name in ("attention_dropout", "dropout") if getattr(encoder.config, name, None)]
    if drops:
        raise FeatureStoreError(f"feature_cache needs an encoder without dropout, and this one drops in {drops[0]}")


def _bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError:  # renamed by another process meanwhile
                continue
    return total
