"""Lets another image-text-to-text model of transformers answer a benchmark, by its own processor and chat template.

In: a folder or a name on the hub. Out: replies, one item after the other, so that none hangs on its neighbours.
Nothing in a checkpoint is executed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from flashsloth.errors import LoadError
from flashsloth.evaluation.answerer import (
    IMAGE_POLICY,
    Asked,
    Reply,
    prompt_parts,
    read_pictures,
    short_name,
    weights_digest,
)
from flashsloth.evaluation.item import Item
from flashsloth.evaluation.settings import TaskSettings
from flashsloth.inference.load import DTYPES, choose_device, choose_dtype, no_progress_bar
from flashsloth.media import open_picture
from flashsloth.media.limits import cause
from flashsloth.model.loading.folders import CONFIG, find_folder
from flashsloth.model.loading.safetensors_files import read_json, weight_files


class TransformersAnswerer:
    """A model of transformers in this process.

    Args:
        model: a folder, or a name on the hub.
        name: in reports; None for what its folder is called.
        device, dtype: see `flashsloth.inference.load.load`.

    Raises:
        LoadError, CheckpointError: where it cannot be loaded, or is no such model.
    """

    packages: tuple[str, ...] = ("torch", "transformers", "tokenizers", "pillow")

    def __init__(self, model: str, name: str | None = None, *, device: str = "auto", dtype: str = "auto") -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = find_folder(model)
        self.name = name or short_name(model)
        self._device = choose_device(device)
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        stored = DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)
        size = sum(file.stat().st_size for file in weight_files(folder))
        self._dtype = choose_dtype(dtype, self._device, stored, size)
        self._digest = weights_digest(folder)
        try:
            with no_progress_bar():
                self._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
                loaded = AutoModelForImageTextToText.from_pretrained(folder, dtype=self._dtype, trust_remote_code=False)
        except Exception as error:  # whatever a model's own files may make of their classes
            raise LoadError(
                f"{model} cannot be loaded as an image-text-to-text model of transformers ({cause(error)})"
            ) from error
        self._model = loaded.to(self._device).eval()

    def describe(self) -> dict[str, Any]:
        """See :class:`Answerer`."""
        dtype = str(self._dtype).removeprefix("torch.")
        return {"kind": "transformers", "name": self.name, "digest": self._digest, "dtype": dtype}

    def answers(self, items: Iterable[Item], settings: TaskSettings, seed: int) -> Asked:
        """See :class:`Answerer`."""
        for place, item in enumerate(items):
            try:
                yield place, self._answer(item, settings, seed)
            except Exception as error:  # of this item alone: a picture, a prompt too long, memory
                yield place, error

    @torch.inference_mode()
    def _answer(self, item: Item, settings: TaskSettings, seed: int) -> Reply:
        pictures = [open_picture(one, image_policy=IMAGE_POLICY) for one in read_pictures(item)]
        content = [
            {"type": "image", "image": pictures[part]} if isinstance(part, int) else {"type": "text", "text": part}
            for part in prompt_parts(item)
        ]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._device, self._dtype)
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": settings.top_p}
        chosen = drawn if settings.temperature else {"do_sample": False}
        ids = self._model.generate(**inputs, max_new_tokens=settings.max_tokens, **chosen)[0]  # [T]
        tokens = ids[inputs["input_ids"].shape[1] :].tolist()
        text = self._processor.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(text, len(tokens), self._reason(tokens, settings.max_tokens))

    def _reason(self, tokens: list[int], most: int) -> str:
        ends = self._model.generation_config.eos_token_id
        ended = bool(tokens) and tokens[-1] in (ends if isinstance(ends, list) else [ends])
        return "length" if len(tokens) == most and not ended else "stop"
