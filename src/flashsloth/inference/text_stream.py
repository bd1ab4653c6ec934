"""An answer piece by piece, as it is made.

In: what comes back for a request. Out: pieces of text that, joined, are the answer's text; then the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from flashsloth.inference.answer import Answer, Collector
from flashsloth.inference.detokenizer import Detokenizer
from flashsloth.inference.engine.engine_thread import Reply
from flashsloth.inference.errors import PromptError
from flashsloth.inference.request import FinishReason, Request, RequestOutput


class TextStream(Iterator[str]):
    """Pieces of an answer's text. Closing or dropping it ends the answer.

    Args:
        reply: of the engine.
        collector: of the request's outputs.
        request: which is answered.

    Attributes:
        last: the output that the answer ended with; None while it goes on.
    """

    def __init__(self, reply: Reply, collector: Collector, request: Request) -> None:
        self.last: RequestOutput | None = None
        self._collector = collector
        self._text = Detokenizer(collector.tokenizer, request.params.stop)
        self._reply = reply
        self._outputs = iter(reply)

    def __next__(self) -> str:
        """The next piece, never empty.

        Raises:
            EngineError: if the engine has failed.
            Exception: what the answer ended in, where it is an error.
        """
        while self.last is None:
            try:
                output = next(self._outputs)
            except BaseException:  # Ctrl-C, or the engine has failed
                self.close()
                raise
            piece = self._take(output)
            if output.error is not None:
                raise output.error
            if piece:
                return piece
        raise StopIteration

    @property
    def text(self) -> str:
        """What has come so far, white space at its ends and what may become a stop string left out."""
        return self._text.text

    @property
    def tokens(self) -> list[int]:
        """Ids that have come so far."""
        return self._text.ids

    @property
    def answer(self) -> Answer:
        """The whole answer, once it has ended or was closed.

        Raises:
            PromptError: before.
            Exception: what the answer ended in, where it is an error.
        """
        if self.last is None:
            raise PromptError("the answer is still being made: read its pieces to the end, or close it, before")
        return self._collector.answers()[0]

    def close(self) -> None:
        """End the answer where it is."""
        if self.last is None:
            self._outputs.close()
            self._reply.abort()  # outputs of which none was read do nothing when they are closed
            self._take(RequestOutput(self._reply.request_id, 0, finish_reason=FinishReason.ABORT))

    def _take(self, output: RequestOutput) -> str:
        """The text that became certain with an output."""
        self._collector.add(output)
        piece = "".join([self._text.add(one.token) for one in output.tokens])
        if output.finish_reason is None:
            return piece
        self.last = output
        return piece + self._text.finish()


__all__ = ["TextStream"]
