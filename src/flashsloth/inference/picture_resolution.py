"""How much of a picture an HD model is shown: the whole view, all of its views, or first the one and then the other.

    standard   the whole view alone: a fifth of HD's visual tokens, where a picture is cut into 2 x 2 tiles
    hd         the whole view and its tiles
    auto       standard; and where that answer is not sure, HD

How sure an answer is lies between 0 and 1 (:attr:`Answer.confidence`): the geometric mean of its tokens' probabilities,
or of choices, by how much the likeliest is more probable than the next. A model is often sure of what it gets wrong,
so measure a threshold on pictures like your own (`docs/resolution.md`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from flashsloth.errors import PromptError
from flashsloth.inference.request import FinishReason
from flashsloth.model.configuration_flashsloth import FlashSlothConfig

if TYPE_CHECKING:
    from flashsloth.inference.answer import Answer
    from flashsloth.inference.options import Options

Resolution = Literal["standard", "hd", "auto"]
STANDARD: Literal["standard"] = "standard"
HD: Literal["hd"] = "hd"
AUTO: Literal["auto"] = "auto"


def check_resolution(resolution: str | None, config: FlashSlothConfig) -> None:
    """Refuse what a model cannot take.

    Raises:
        PromptError: for tiles, where it takes one view.
    """
    if resolution in (HD, AUTO) and config.num_views == 1:
        raise PromptError(
            f"resolution is {resolution!r}, but this model takes one view of a picture: leave it out, or load an HD "
            f"model"
        )


def shown_resolution(resolution: str | None, config: FlashSlothConfig) -> str:
    """The resolution that pictures are shown at: by default all that the model takes."""
    return resolution or (STANDARD if config.num_views == 1 else HD)


def standard_options(options: Options) -> Options:
    """Of `auto`, how the whole view is asked about: with log-probabilities, of which confidence is made."""
    if options.resolution != AUTO:
        return options
    return replace(options, resolution=STANDARD, params=replace(options.params, logprobs=True))


def hd_options(options: Options, answer: Answer, seconds: float) -> Options | None:
    """Of `auto`, how HD is asked; None where the first answer stays, as without `auto`.

    That is one that is sure, that was cut short by its caller or its deadline, or that saw no picture.

    Args:
        options: as they were given.
        answer: to the whole view.
        seconds: that it took, of those that the deadline allows.
    """
    ended = answer.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    if options.resolution != AUTO or answer.resolution is None or not ended:
        return None
    if answer.confidence is None or answer.confidence >= options.resolution_threshold:
        return None
    params = replace(options.params, logprobs=True)
    if params.deadline is not None:
        left = params.deadline - seconds
        if left <= 0:
            return None
        params = replace(params, deadline=left)
    return replace(options, resolution=HD, params=params)
