"""What a client asks for, in our own words, whichever interface it came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsloth.inference.options import Options
from flashsloth.inference.prompt import Messages


@dataclass(frozen=True)
class Asked:
    """What a client asks for, in our own words.

    Attributes:
        messages: of user and assistant in turn, the last a user's; `{"type": "image"}` is a picture's place.
        pictures: data URLs or addresses, one for each place, in order.
        options: how to answer; the system text is among them.
        form: that answers shall have, as `response_format` or `text.format` says it; None for any.
        param, form_param: the parts of the body that hold the messages and the form, for errors.
    """

    messages: Messages
    pictures: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    form: Mapping[str, Any] | None = None
    param: str = "messages"
    form_param: str = "response_format"

    @property
    def answers(self) -> int:
        """How many rows of the engine it takes."""
        return len(self.options.choices) or self.options.params.n
