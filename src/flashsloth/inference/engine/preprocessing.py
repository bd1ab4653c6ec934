"""Pictures of many questions, opened and resized by threads while earlier ones are answered.

In: (picture, question) pairs, and how each is to be answered. Out: the prepared pictures of each, or why there are
none. A picture that is asked about again soon is opened once.
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
from flashsloth.inference.vision import PreparedPictures, picture_key

PICTURES_HELD = 32
"""Different pictures whose pixels, or features, are held for further questions."""

Prepare = Callable[[Any, Options], PreparedPictures]
Made = Callable[[int, "Future[PreparedPictures]"], None]


class Preprocessing:
    """Prepares pictures ahead; a context that ends its threads.

    Args:
        prepare: opens a picture and makes its views.
        made: called, by any thread, with the place of a pair and what became of its picture.
        workers: threads.
    """

    def __init__(self, prepare: Prepare, made: Made, workers: int) -> None:
        self._prepare, self._made = prepare, made
        self._threads = ThreadPoolExecutor(workers, "flashsloth preprocessing", compute_alone)
        self._pictures: OrderedDict[Hashable, tuple[Any, Future[PreparedPictures]]] = OrderedDict()

    def __enter__(self) -> Preprocessing:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def start(self, place: int, pair: Any, options: Options) -> None:
        """Let the picture of a pair be worked on, under the pair's place."""
        try:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise PromptError(f"pair {place} is {type(pair).__name__}; expected (picture, question)")
            picture = self._picture(pair[0], options)
        except (ValueError, TypeError, OSError, RecursionError) as error:  # of anything but a pair, or a picture
            picture = Future()
            picture.set_exception(error)
        picture.add_done_callback(partial(self._made, place))

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
