"""An answer on an accelerator whose logits were not finite: run once more, the plain way, to see where it begins.

In: a model, and the answer as far as it came. Out: the error that names the layer.
"""

from __future__ import annotations

from typing import Any

import torch

from flashsloth.inference.accelerator.slots import Answering
from flashsloth.inference.prompt import pad_left
from flashsloth.model.checkpoint.soundness import fault_of
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.non_finite import NonFiniteError, explained


def broken_answer(model: FlashSlothForConditionalGeneration, answering: Answering) -> NonFiniteError:
    """The error of an answer that could not be made."""
    job = answering.job
    inputs: dict[str, Any] = pad_left([job.prompt], 0, model.device)
    told = torch.tensor([answering.ids], dtype=torch.long, device=model.device)  # [1, t]
    for name, values in inputs.items():
        filler = {"input_ids": told, "attention_mask": torch.ones_like(told)}.get(name, torch.zeros_like(told))
        inputs[name] = torch.cat([values, filler], dim=1)
    if job.seen is not None:
        features = job.seen.features
        for part, tensor in (("vision encoder", features.last_hidden_state), ("projector", features.pooler_output)):
            if fault_of(tensor):
                return NonFiniteError(
                    f"the model computed NaN or infinity in {model.dtype}: the first such output is the {part}'s, for "
                    f"this picture; load the model in float32; if it stays, the checkpoint is damaged"
                )
        row = torch.zeros(len(job.seen), dtype=torch.long, device=model.device)
        inputs |= {"mm_encoder_outputs": {"image": features}, "image_row": row}
    return explained(model, lambda: model(**inputs, use_cache=False, logits_to_keep=1))


__all__ = ["broken_answer"]
