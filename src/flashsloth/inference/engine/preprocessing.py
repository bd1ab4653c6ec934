"""Requests of many questions, made by threads while earlier ones are answered.

In: (picture, question) pairs, and how each is to be answered. Out: a :class:`Request` for each, or why there is none.
Opening and resizing pictures and writing prompts happen here, outside the engine's thread; a picture that is asked
about again soon is opened once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from flashsloth.errors import PromptError
from flashsloth.inference.engine.engine_thread import compute_alone
from flashsloth.inference.options import Options
from flashsloth.inference.request import Request
from flashsloth.inference.vision import PreparedPictures, picture_key

PICTURES_HELD = 32
"""Different pictures whose pixels, or features, are held for further questions."""

Prepare = Callable[[Any, Options], PreparedPictures]
Write = Callable[[PreparedPictures, str, Options], Request]
Made = Callable[[int, "Future[Request]"], None]


class Preprocessing:
    """Makes requests ahead; a context that ends its threads.

    Args:
        prepare: opens a picture and makes its views.
        write: makes the request of a question about prepared pictures.
        made: called, by any thread, with the place of a pair and what became of it.
        workers: threads.
    """

    def __init__(self, prepare: Prepare, write: Write, made: Made, workers: int) -> None:
        self._prepare, self._write, self._made = prepare, write, made
        self._threads = ThreadPoolExecutor(workers, "flashsloth preprocessing", compute_alone)
        self._pictures: OrderedDict[Hashable, tuple[Any, Future[PreparedPictures]]] = OrderedDict()

    def __enter__(self) -> Preprocessing:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def start(self, place: int, pair: Any, options: Options) -> None:
        """Let a pair of a picture and a question be worked on, under its place."""
        try:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise PromptError(f"pair {place} is {type(pair).__name__}; expected (picture, question)")
            request = self._threads.submit(self._request, self._picture(pair[0], options), pair[1], options)
        except (ValueError, TypeError, OSError, RecursionError) as error:  # of anything but a pair, or a picture
            request = Future()
            request.set_exception(error)
        request.add_done_callback(partial(self._made, place))

    def _picture(self, picture: Any, options: Options) -> Future[PreparedPictures]:
        """A picture on its way, the same for all who ask about it; it is held, so that no other gets its `id`."""
        key = picture_key(picture), options.resolution
        if key in self._pictures:
            self._pictures.move_to_end(key)
        else:
            self._pictures[key] = picture, self._threads.submit(self._prepare, picture, options)
            if len(self._pictures) > PICTURES_HELD:
                self._pictures.popitem(last=False)
        return self._pictures[key][1]

    def _request(self, picture: Future[PreparedPictures], question: str, options: Options) -> Request:
        return self._write(picture.result(), question, options)  # no deadlock: the picture came first
