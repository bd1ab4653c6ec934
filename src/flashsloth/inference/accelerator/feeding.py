"""Pictures and questions made ready in threads while the accelerator works.

In: pairs of a picture and a question, of any number, read as they are needed. Out: answers to make, in order, as a
queue that `Engine.run` takes from.

    threads       open a picture, make its views, write the prompt      for the pairs ahead
    here          run the encoder on the views of several pictures, when answers are asked for

Pairs that name the same picture share its views, its features and the beginning of their prompts.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from flashsloth.inference.accelerator.settings import AcceleratorSettings
from flashsloth.inference.accelerator.slots import Answering
from flashsloth.inference.generator import Job
from flashsloth.inference.prompt import Prompt
from flashsloth.inference.vision import ImageEncoder, ImageFeatures, Picture, PreparedPictures, picture_key


@dataclass
class Shown:
    """A picture (or several, for one question) on its way.

    Attributes:
        source: as it was given; held, since what is another object later could look the same.
        group: a number of its own.
        prepared: opened, with its views, once that is done.
        pairs: how many of the pairs that are ahead name it.
        seen: what the model sees in it, once the encoder has run.
        looked: whether it has.
    """

    source: Picture
    group: int
    prepared: Future[PreparedPictures]
    pairs: int = 0
    seen: ImageFeatures | None = None
    looked: bool = False


@dataclass
class Pair:
    """A question on its way."""

    place: int
    shown: Shown
    prompt: Future[Prompt]


class Feeder:
    """A queue of answers to make. Use it as a context: its threads end with it.

    Args:
        pairs: pictures and questions.
        open_picture: decodes what a pair names.
        write: the prompt of a question about so many pictures; called in one thread at a time.
        room: the most tokens that an answer to a prompt may have; refuses what is too long.
        image_encoder: makes views and features.
        settings: how many threads, how far ahead, how many pictures at once.
    """

    def __init__(
        self,
        pairs: Iterator[tuple[Picture, Any]],
        open_picture: Callable[[Picture], list[Image.Image]],
        write: Callable[[Any, int], Prompt],
        room: Callable[[Prompt], int],
        image_encoder: ImageEncoder,
        settings: AcceleratorSettings,
    ) -> None:
        self._pairs = enumerate(pairs)
        self._open, self._write, self._room, self._image_encoder, self._settings = (
            open_picture,
            write,
            room,
            image_encoder,
            settings,
        )
        self._openers = ThreadPoolExecutor(settings.workers, thread_name_prefix="pictures")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._ahead: deque[Pair] = deque()
        self._shown: dict[Hashable, Shown] = {}
        self._groups = itertools.count()
        self._ended = False

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in (self._openers, self._writer):
            pool.shutdown(wait=True, cancel_futures=True)

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        return self._ended and not self._ahead

    def take(self, most: int, *, wait: bool) -> list[Answering]:
        """At most so many of the next answers to make; with `wait`, at least one where any are left.

        What is wrong with a picture or a question is raised here.
        """
        self._fill()
        taken: list[Pair] = []
        while self._ahead and len(taken) < most:
            ready = self._ahead[0].prompt.done()
            if not ready and not (wait and not taken):
                break
            self._ahead[0].prompt.result()
            taken.append(self._ahead.popleft())
        self._look([pair.shown for pair in taken])
        answers = [self._answering(pair) for pair in taken]
        for pair in taken:
            pair.shown.pairs -= 1
        self._forget()
        self._fill()
        return answers

    def _fill(self) -> None:
        """Start preparing pairs until enough are ahead."""
        while not self._ended and len(self._ahead) < self._settings.ahead:
            pair = next(self._pairs, None)
            if pair is None:
                self._ended = True
                return
            place, (picture, question) = pair
            shown = self._show(picture)
            self._ahead.append(Pair(place, shown, self._writer.submit(self._prompt, question, shown)))

    def _show(self, picture: Picture) -> Shown:
        key = picture_key(picture)
        if key not in self._shown:
            self._shown[key] = Shown(picture, next(self._groups), self._openers.submit(self._prepare, picture))
        self._shown[key].pairs += 1
        return self._shown[key]

    def _forget(self) -> None:
        """Pictures that no pair ahead names are not held."""
        for key in [key for key, shown in self._shown.items() if not shown.pairs]:
            del self._shown[key]

    def _prepare(self, picture: Picture) -> PreparedPictures:
        return self._image_encoder.prepare(self._open(picture))

    def _prompt(self, question: Any, shown: Shown) -> Prompt:
        prompt = self._write(question, len(shown.prepared.result()))
        self._room(prompt)  # what is too long is found out here
        return prompt

    def _look(self, shown: list[Shown]) -> None:
        """Run the encoder on all that is new, several pictures at a time."""
        new = {one.group: one for one in shown if not one.looked}
        seen = self._image_encoder.encode_prepared([one.prepared.result() for one in new.values()])
        for one, found in zip(new.values(), seen, strict=True):
            one.seen, one.looked = found, True

    def _answering(self, pair: Pair) -> Answering:
        prompt, shown = pair.prompt.result(), pair.shown
        job = Job(prompt, shown.seen, shown.group, shared=shown.seen is not None and shown.pairs > 1)
        return Answering(pair.place, job, self._room(prompt))


class Listed:
    """A queue of answers that are all known from the beginning."""

    def __init__(self, answers: list[Answering]) -> None:
        self._answers = deque(answers)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left."""
        return not self._answers

    def take(self, most: int, *, wait: bool) -> list[Answering]:
        """At most so many of the next."""
        return [self._answers.popleft() for _ in range(min(most, len(self._answers)))]


__all__ = ["Feeder", "Listed"]
