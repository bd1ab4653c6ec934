"""A conversation that remembers: its turns, its pictures, and the keys and values of everything already run.

In: questions, each with a picture or without. Out: answers.

Each turn writes the whole conversation down anew, and runs only what is new: the columns whose ids and marks stand
already in the cache stay, the rest is cut off. (The ids of an answer as it was generated may differ from those of its
text; then the cut falls where they part.) A cached turn is the same as one run in full, so nothing is lost by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flashsloth.inference.detokenizer import Detokenizer
from flashsloth.inference.errors import PromptError
from flashsloth.inference.generator import Job
from flashsloth.inference.options import Options
from flashsloth.inference.prompt import Messages, Prompt
from flashsloth.inference.vision import ImageFeatures, Picture, join_pictures

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth


class Conversation:
    """Questions and answers that build on one another; made by :meth:`FlashSloth.chat`.

    A turn is remembered once its answer is there. An answer that was stopped is remembered as far as it got.
    """

    def __init__(self, flashsloth: FlashSloth, image: Picture, options: Options) -> None:
        self._sloth = flashsloth
        self._options = options
        self._waiting = flashsloth.image_encoder.look(flashsloth.image_encoder.open(image, options.image_policy))
        self._seen: ImageFeatures | None = None
        self._messages: Messages = []
        self._turns: list[tuple[str, str]] = []
        self._cache: Any = None
        self._cached: list[tuple[int, ...]] = []  # id and marks of each column in the cache
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
        """
        self._check_free(len(self._turns))
        sloth = self._sloth
        sloth.writer.check_question(question)
        added = sloth.image_encoder.look(sloth.image_encoder.open(image, self._options.image_policy))
        sets = [pictures for pictures in (self._waiting, added) if pictures is not None]
        message = sloth.writer.user_message(question, sum(map(len, sets)))
        prompt = sloth.writer.write([*self._messages, message], self._options.system)
        sloth.generator.room(prompt, self._options)
        known = [] if self._seen is None else [self._seen]
        seen = join_pictures([*known, *sets]) if known or sets else None
        return self._run(question, message, prompt, seen)

    def _run(self, question: str, message: dict[str, Any], prompt: Prompt, seen: ImageFeatures | None) -> Iterator[str]:
        """Answer, and remember the turn when the answer is done or stopped."""
        self._check_free(prompt.turns - 1)
        sloth, answer = self._sloth, Detokenizer(self._sloth.processor.tokenizer)
        job = Job(prompt, seen)
        cache = self._cut_cache(job)
        self._cache, self._cached = None, []  # a cache that an error left half filled is never used
        self._streaming = stopped = whole = True
        try:
            yield from answer.pieces(sloth.generator.tokens(job, self._options, cache))
        except KeyboardInterrupt:
            whole = False
            raise
        except Exception:
            stopped = False
            raise
        finally:
            self._streaming = False
            if answer.ids and stopped:
                self._turns.append((question, answer.text))
                self._messages += [message, {"role": "assistant", "content": answer.text}]
                self._seen, self._waiting = seen, None
                if whole:
                    self._keep_cache(cache, prompt.columns(0, len(prompt)) + [(token, 0, 0, 0) for token in answer.ids])

    def _check_free(self, turns: int) -> None:
        if self._streaming or turns != len(self._turns):
            raise PromptError("another answer of this conversation is being read: read it to its end or close it first")

    def _cut_cache(self, job: Job) -> Any:
        """The cache, cut to the columns that the prompt begins with; at first, what is remembered of its pictures."""
        if self._cache is None:
            return self._sloth.generator.begin(job)
        wanted = job.prompt.columns(0, job.prompt.last_question_start())
        pairs = enumerate(zip(wanted, self._cached, strict=False))
        same = next((place for place, (new, old) in pairs if new != old), min(len(wanted), len(self._cached)))
        self._cache.crop(same - len(self._cached))
        return self._cache

    def _keep_cache(self, cache: Any, columns: list[tuple[int, ...]]) -> None:
        """Keep what was run, as far as it is known which columns it holds."""
        if cache is None:
            return
        held = cache.get_seq_length()  # the last token of an answer was never run, and so is not held
        known = min(held, len(columns))
        cache.crop(known - held)
        self._cache, self._cached = cache, columns[:known]
