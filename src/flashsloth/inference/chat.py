"""A conversation that remembers: its turns, its pictures, and the keys and values of everything already run.

In: questions, each with a picture or without. Out: answers.

Each turn writes the whole conversation down again, and runs only what is new: the positions whose ids and marks stand
already in what was kept stay, the rest is cut off. (The ids of an answer as it was generated may differ from those of
its text; then the cut falls where they part.) A kept turn is the same as one run in full, so nothing is lost by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flashsloth.errors import PromptError
from flashsloth.inference.answer import TextStream
from flashsloth.inference.kv_cache import LayerStates
from flashsloth.inference.options import Options
from flashsloth.inference.prompt import Message, Messages, Prompt
from flashsloth.inference.request import FinishReason, Request
from flashsloth.inference.vision import Picture, PreparedPictures, join_prepared
from flashsloth.inference.visual_attention import Attention

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth


class Conversation:
    """Questions and answers that build on one another; made by :meth:`FlashSloth.chat`.

    A turn is remembered once it is answered. An answer that was stopped is remembered as far as it got.

    Attributes:
        attention: of the last turn, in all pictures so far, where the options ask for it.
    """

    def __init__(self, flashsloth: FlashSloth, image: Picture, options: Options) -> None:
        self._sloth = flashsloth
        self._options = options
        self.attention: tuple[Attention, ...] = ()
        self._weights = flashsloth.image_encoder.weights_state()
        self._waiting = self._sloth.prepare(image, self._options)
        self._pictures = PreparedPictures()
        self._messages: Messages = []
        self._turns: list[tuple[str, str]] = []
        self._states: LayerStates | None = None
        self._cached: list[tuple[int, ...]] = []  # id and marks of each position in the states
        self._streaming = False

    @property
    def turns(self) -> list[tuple[str, str]]:
        """(question, answer) of every turn so far."""
        return list(self._turns)

    def ask(self, question: str, image: Picture = None) -> str:
        """The answer to the next question; `image` joins the conversation with it."""
        return "".join(self.stream(question, image))

    def stream(self, question: str, image: Picture = None) -> Iterator[str]:
        """As :meth:`ask`, piece by piece. Read it to its end, or close it to stop the answer there.

        Raises:
            PictureError, PromptError: at the call; the conversation is then as it was.
            EngineError: if the engine has failed.
        """
        self._check_free(len(self._turns))
        self._sloth.engine_thread.check()
        if self._sloth.image_encoder.weights_state() != self._weights:
            raise PromptError("the model's weights have changed since this conversation began: start another")
        writer = self._sloth.writer
        writer.check_question(question)
        added = join_prepared([self._waiting, self._sloth.prepare(image, self._options)])
        message = writer.user_message(question, len(added))
        prompt = writer.write([*self._messages, message], self._options.system, self._options.resolution)
        self._sloth.engine.token_limit(prompt, self._options.params)
        return self._run(question, message, prompt, join_prepared([self._pictures, added]))

    def _run(self, question: str, message: Message, prompt: Prompt, pictures: PreparedPictures) -> Iterator[str]:
        """Answer, and remember the turn when the answer is done or stopped."""
        self._check_free(prompt.turns - 1)
        self._streaming = True
        try:
            states, self._states = self._known(prompt), None
            params, attention = self._options.params, self._options.attention
            shown = pictures if len(pictures) else None
            request = Request(prompt, shown, params, states, keep_states=True, streams=True, attention=attention)
            collector = self._sloth.collector(request, self._options)
            reply = self._sloth.engine_thread.submit(request)
            pieces = TextStream(reply, collector, request, reply.abort)
            try:
                yield from pieces
            finally:
                pieces.close()
                self._remember(question, message, prompt, pictures, pieces)
        finally:
            self._streaming = False

    def _check_free(self, turns: int) -> None:
        if self._streaming or turns != len(self._turns):
            raise PromptError("another answer of this conversation is being read: read it to its end or close it first")

    def _known(self, prompt: Prompt) -> LayerStates | None:
        """Keys and values of the prompt's prefix, as far as they were kept."""
        if self._states is None:
            return None
        wanted = prompt.columns(0, prompt.last_question_start())
        pairs = enumerate(zip(wanted, self._cached, strict=False))
        same = next((place for place, (new, old) in pairs if new != old), min(len(wanted), len(self._cached)))
        return [(keys[:, :, :same], values[:, :, :same]) for keys, values in self._states] if same else None

    def _remember(
        self, question: str, message: Message, prompt: Prompt, pictures: PreparedPictures, pieces: TextStream
    ) -> None:
        """Remember a turn; nothing of one that ended in an error, or before its first token."""
        end = pieces.last
        if end is None or end.finish_reason == FinishReason.ERROR or not pieces.tokens:
            return
        self._turns.append((question, pieces.text))
        self.attention = pieces.answer.attention
        self._messages += [message, {"role": "assistant", "content": pieces.text}]
        self._pictures, self._waiting = pictures, PreparedPictures()
        if end.states is not None:
            self._states = end.states
            self._cached = prompt.columns(0, len(prompt)) + [(token, 0, 0, 0) for token in pieces.tokens]
            del self._cached[end.states[0][0].shape[2] :]  # the last token of an answer was never run
