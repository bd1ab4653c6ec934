"""An answer whose logits were not finite: run once more, alone and without a cache, to see where it begins.

In: a model, and the answer as far as it came. Out: the error that names the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from flashsloth.inference.prompt import Prompt, pad_right
from flashsloth.inference.vision import ImageFeatures, picture_inputs
from flashsloth.model.loading.finite_weights import describe_non_finite
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration
from flashsloth.model.non_finite import NonFiniteError, explained


def broken_answer(
    model: FlashSlothForConditionalGeneration, prompt: Prompt, pictures: ImageFeatures | None, tokens: Sequence[int]
) -> NonFiniteError:
    """The error of an answer that could not be made.

    Args:
        model: that made NaN or infinity of it.
        prompt: what was asked.
        pictures: what the model sees in its pictures; None without.
        tokens: of the answer so far.
    """
    if pictures is not None:
        features = pictures.features
        for part, tensor in (("vision encoder", features.last_hidden_state), ("projector", features.pooler_output)):
            if describe_non_finite(tensor):
                return NonFiniteError(
                    f"the model computed NaN or infinity in {model.dtype}: the first such output is the {part}'s, for "
                    f"this picture; load the model in float32; if it stays, the checkpoint is damaged"
                )
    inputs = {
        **pad_right([prompt.followed_by(tokens)], 0, model.device),  # one row: nothing is padded
        **picture_inputs([pictures], model.device),
    }
    return explained(model, lambda: model(**inputs, use_cache=False, logits_to_keep=1))


__all__ = ["broken_answer"]
