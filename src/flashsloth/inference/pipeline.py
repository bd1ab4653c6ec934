"""What `load()` returns: pictures and questions in, answers out.

    answer           one question, one answer
    stream           the same, piece by piece
    answer_many      many questions about one picture: it is encoded once, and its part of the prompt run once
    answer_batch     questions about many pictures
    answer_as_ready  the same for any number of them, each as soon as it is done
    chat             a conversation that remembers

All of them take a picture as a path, bytes, data URL, PIL image, array or tensor, a list of those, or None for none,
and answer through one engine (`engine/`), which several threads may ask at the same time. The same question gets the
same answer from all of them, alone and among others, up to the rounding of floating-point sums.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

import torch
from PIL import Image

from flashsloth.errors import AnswerError, PromptError
from flashsloth.inference.answer import Answer, Collector, TextStream
from flashsloth.inference.batch import Batch
from flashsloth.inference.chat import Conversation
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.engine.engine_thread import EngineThread
from flashsloth.inference.options import AnswerOptions, Options
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.picture_resolution import (
    AUTO,
    check_resolution,
    hd_options,
    shown_resolution,
    standard_options,
)
from flashsloth.inference.prompt import Messages, Prompt, PromptWriter, Question
from flashsloth.inference.request import Request
from flashsloth.inference.vision import ImageEncoder, Picture, PreparedPictures
from flashsloth.inference.visual_attention import Attention, attention_of
from flashsloth.model.attention_maps import AttentionWeights
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

if TYPE_CHECKING:
    from flashsloth.inference.engine.warmup import WarmUp

OnError = Literal["raise", "return"]
"""What becomes of an answer that could not be made: an error after all others, or the error in its place."""


class FlashSloth:
    """A model with its processor, ready to answer.

    Args:
        model: the model, on its device, in its precision.
        processor: the processor it was trained with.
        name: what it is called in reports: where it was loaded from.
        pictures: keeps features and prefixes of pictures that are asked about again.
        config: the engine's limits.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        processor: Any,
        name: str = "flashsloth",
        pictures: PictureCache | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.pictures = PictureCache() if pictures is None else pictures
        self.config = EngineConfig() if config is None else config
        self.image_encoder = ImageEncoder(model, processor.image_processor, self.pictures)
        self.writer = PromptWriter(processor)
        self._lock = threading.Lock()
        self._thread: EngineThread | None = None

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """A copy, here or in another process, has weights, caches and an engine of its own."""
        return FlashSloth, (self.model, self.processor, self.name, self.pictures, self.config)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype

    @property
    def engine_thread(self) -> EngineThread:
        """Through which all answers are made; the engine is made when it is first needed."""
        with self._lock:
            if self._thread is None:
                tokenizer = self.processor.tokenizer
                self._thread = EngineThread(
                    Engine(self.model, tokenizer, self.image_encoder, self.pictures, self.config)
                )
            return self._thread

    @property
    def engine(self) -> Engine:
        """The engine; it may be stepped by hand as long as nothing is answered in another way."""
        return self.engine_thread.engine

    def answer(self, image: Picture, question: Question, **options: Unpack[AnswerOptions]) -> Any:
        """Answer one question about a picture, several pictures, or (None) nothing but itself.

        Args:
            image: see the module's docstring.
            question: a text; or, where pictures stand between texts, the parts of a message (see
                :data:`flashsloth.inference.prompt.Question`), with a place for each of `image`, in their order.
            **options: see :class:`AnswerOptions`.

        Returns:
            The answer's text; with `details`, `logprobs`, `choices` or `attention` an :class:`Answer`; with n above 1
            a list of n.

        Raises:
            PictureError, PromptError: where the picture, the question or the options cannot be used.
            EngineError: if the engine has failed.
        """
        checked = self.checked(options)
        started = time.monotonic()
        opened = self._open(image, question, checked)
        answers = self._answers(opened, question, standard_options(checked))
        if again := hd_options(checked, answers[0], time.monotonic() - started):
            answers = self._answers(opened, question, again)
        return _returned(answers, checked)

    def stream(self, image: Picture, question: Question, **options: Unpack[AnswerOptions]) -> TextStream:
        """As :meth:`answer`, piece by piece: the pieces joined are the answer's text.

        Mistakes are raised at the call. Closing or dropping the stream, or Ctrl-C, ends the answer. With resolution
        "auto" the call returns once it is decided whether HD is needed: the whole view's answer then comes as one
        piece, HD's piece by piece.
        """
        checked = self.checked(options)
        checked.require_one_text("stream")
        opened = self._open(image, question, checked)
        if checked.resolution == AUTO:
            started, first = time.monotonic(), standard_options(checked)
            request = self._request(opened, question, first)
            outputs = list(self.engine_thread.submit(request))
            [answer] = self.collector(request, first).collect(outputs)
            again = hd_options(checked, answer, time.monotonic() - started)
            if again is None:
                return TextStream(outputs, self.collector(request, first), request)
            checked = again
        request = self._request(opened, question, checked, streams=True)
        reply = self.engine_thread.submit(request)
        return TextStream(reply, self.collector(request, checked), request, reply.abort)

    def answer_many(
        self,
        image: Picture,
        questions: Sequence[Question],
        *,
        on_error: OnError = "raise",
        **options: Unpack[AnswerOptions],
    ) -> list[Any]:
        """Answer many questions about the same picture, each on its own."""
        if isinstance(questions, str):
            raise PromptError("questions is one text; expected a list of them, or call answer")
        return self.answer_batch([(image, question) for question in questions], on_error=on_error, **options)

    def answer_batch(
        self,
        pairs: Iterable[tuple[Picture, Question]],
        *,
        on_error: OnError = "raise",
        **options: Unpack[AnswerOptions],
    ) -> list[Any]:
        """Answer (picture, question) pairs of any mixture, in their order.

        Pairs that name the same picture, by the same path or as the same object, have it encoded once.

        Args:
            pairs: any number.
            on_error: "return" puts the error of an answer that could not be made into its place.
            **options: see :class:`AnswerOptions`.

        Raises:
            AnswerError: once all others are answered, if some could not be; it holds those that were made.
            PictureError, PromptError: if none could be answered, for one and the same reason.
        """
        found = dict(self.answer_as_ready(pairs, on_error="return", **options))
        _check_on_error(on_error)
        answers = [found[place] for place in range(len(found))]
        errors = {place: one for place, one in enumerate(answers) if isinstance(one, Exception)}
        if errors and on_error == "raise":
            raise _failure(answers, errors)
        return answers

    def answer_as_ready(
        self,
        pairs: Iterable[tuple[Picture, Question]],
        *,
        on_error: OnError = "raise",
        **options: Unpack[AnswerOptions],
    ) -> Iterator[tuple[int, Any]]:
        """As :meth:`answer_batch`, for any number of pairs: yields (place in `pairs`, answer) as answers get done.

        `pairs` is read as it is needed, and pictures are opened ahead by threads. An answer that could not be made is
        an error after all others, or, with `on_error="return"`, comes as an exception in its place.
        """
        _check_on_error(on_error)
        if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
            raise PromptError(f"pairs is {type(pairs).__name__}; expected (picture, question) pairs")
        return self._answer_pairs(pairs, self.checked(options), on_error)

    def chat(self, image: Picture = None, **options: Unpack[AnswerOptions]) -> Conversation:
        """A conversation; `image`, if any, goes with its first question, and the options with all of them."""
        checked = self.checked(options)
        checked.require_one_text("a conversation")
        if checked.details or checked.params.logprobs:
            what = "details" if checked.details else "logprobs"
            raise PromptError(f"a conversation returns texts: leave {what} out")
        if checked.resolution == AUTO:
            raise PromptError(
                'a conversation takes resolution "standard" or "hd", not "auto": choose one, or call answer'
            )
        return Conversation(self, image, checked)

    def request(self, image: Picture, question: Question, **options: Unpack[AnswerOptions]) -> Request:
        """What :meth:`answer` lets the engine answer: for callers that drive the engine themselves.

        It may hold features of its pictures already, and must be made again when weights have changed.
        """
        checked = self.checked(options)
        if checked.resolution == AUTO:
            raise PromptError('a request takes resolution "standard" or "hd", not "auto", which makes two: choose one')
        return self._request(self._open(image, question, checked), question, checked)

    def conversation_request(
        self, messages: Messages, pictures: PreparedPictures, options: Options, streams: bool = False
    ) -> Request:
        """What lets the engine answer the last message of a conversation.

        Args:
            messages: of user and assistant in turn, the last a user's; `{"type": "image"}` is a picture's place.
            pictures: one for each place, in order.
            options: as :meth:`checked` makes them; not with resolution "auto", which makes two requests.
            streams: whether tokens come as they are made.

        Raises:
            PromptError: if the conversation cannot be answered.
        """
        prompt = self.writer.write(messages, options.system, options.resolution)
        self.engine.token_limit(prompt, options.params)
        return self._asked(messages, prompt, pictures, options, streams)

    def warm_up(self, batch: int = 1) -> WarmUp:
        """Pay for what is paid once now, so that no answer has to.

        Args:
            batch: the most answers at once that shall find everything ready.

        Returns:
            What it took.
        """
        from flashsloth.inference.engine.warmup import warm_up

        return warm_up(self, batch)

    def checked(self, given: AnswerOptions) -> Options:
        """Options that this model can follow.

        Raises:
            TypeError, PromptError: for others.
        """
        options = Options.of(given)
        check_resolution(options.resolution, self.model.config)
        return options

    def _open(self, image: Picture, question: Question, options: Options) -> list[Image.Image]:
        """The pictures of a question that can be answered."""
        self.engine_thread.check()
        self.writer.check_question(question)
        return self.image_encoder.open(image, options.image_policy)

    def _answers(self, opened: list[Image.Image], question: Question, options: Options) -> list[Answer]:
        request = self._request(opened, question, options)
        return self.collector(request, options).collect(self.engine_thread.submit(request))

    def _request(
        self, opened: list[Image.Image], question: Question, options: Options, streams: bool = False
    ) -> Request:
        message = self.writer.user_message(question, len(opened))
        prompt = self.writer.write([message], options.system, options.resolution)
        self.engine.token_limit(prompt, options.params)  # first: a prompt that is too long costs no preparation
        pictures = self.image_encoder.prepare(opened, options.resolution)
        return self._asked([message], prompt, pictures, options, streams)

    def prepare(self, image: Picture, options: Options) -> PreparedPictures:
        """Pictures, opened and with their views made, for a request with these options."""
        return self.image_encoder.prepare(self.image_encoder.open(image, options.image_policy), options.resolution)

    def _write(self, pictures: PreparedPictures, question: Question, options: Options) -> Request:
        self.writer.check_question(question)
        message = self.writer.user_message(question, len(pictures))
        prompt = self.writer.write([message], options.system, options.resolution)
        return replace(self._asked([message], prompt, pictures, options), keeps_prefix=False)

    def _asked(
        self, messages: Messages, prompt: Prompt, pictures: PreparedPictures, options: Options, streams: bool = False
    ) -> Request:
        choices = tuple(
            self.writer.answer_ids(messages, choice, options.system, options.resolution) for choice in options.choices
        )
        params = replace(options.params, logprobs=True) if choices else options.params
        shown = pictures if len(pictures) else None
        return Request(prompt, shown, params, choices=choices, streams=streams, attention=options.attention)

    def collector(self, request: Request, options: Options) -> Collector:
        """What gathers the outputs of a request that was made with these options."""
        sizes = [] if request.pictures is None else request.pictures.sizes

        def places(weights: AttentionWeights) -> tuple[Attention, ...]:
            return attention_of(weights, sizes, self.model.config, self.processor.image_processor)

        shown = None if request.pictures is None else shown_resolution(options.resolution, self.model.config)
        return Collector(request, self.processor.tokenizer, places, options.choices, options.per_token, shown)

    def _answer_pairs(self, pairs: Iterable[Any], options: Options, on_error: OnError) -> Iterator[tuple[int, Any]]:
        errors: dict[int, Exception] = {}
        batch = Batch(self.engine_thread, self.prepare, self._write, self.collector, options)
        for place, answers in batch.run(pairs):
            if not isinstance(answers, Exception):
                yield place, _returned(answers, options)
            elif on_error == "return":
                yield place, answers
            else:
                errors[place] = answers
        if errors:
            raise _failure([], errors)


def _returned(answers: list[Answer], options: Options) -> Any:
    """What a caller gets: a text, an answer, or several."""
    if options.params.n > 1:
        return answers
    return answers[0] if options.wants_details else answers[0].text


def _check_on_error(on_error: str) -> None:
    if on_error not in get_args(OnError):
        raise PromptError(f"on_error is {on_error!r}; expected one of {', '.join(get_args(OnError))}")


def _failure(answers: list[Any], errors: dict[int, Exception]) -> Exception:
    """One error for a batch: the only one there is, where all ended in it; else one that names the places."""
    first = errors[min(errors)]
    if len(errors) == len(answers) and len({f"{type(one).__name__} {one}" for one in errors.values()}) == 1:
        return first
    places = ", ".join(map(str, sorted(errors)[:PLACES_SHOWN])) + (", ..." if len(errors) > PLACES_SHOWN else "")
    failed = AnswerError(
        f"{len(errors)} of the batch could not be answered, at {places}; the first: {first}",
        [None if isinstance(one, Exception) else one for one in answers],
        errors,
    )
    failed.__cause__ = first
    return failed


PLACES_SHOWN = 8
