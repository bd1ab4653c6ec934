"""What `load()` returns: pictures and questions in, answers out.

    answer        one question, one answer
    stream        the same, piece by piece
    answer_many   many questions about one picture: it is looked at once, and its part of the prompt run once
    answer_batch  questions about many pictures, in batches
    chat          a conversation that remembers

All of them take a picture as a path, bytes, data URL, PIL image, array or tensor, a list of those, or None for none.
The same question gets the same answer from all of them, up to the rounding of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import torch

from flashsloth.inference.chat import Conversation
from flashsloth.inference.detokenizer import Detokenizer, text_of
from flashsloth.inference.errors import PromptError
from flashsloth.inference.generator import Generator, Job
from flashsloth.inference.options import AnswerOptions, Options
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import PromptWriter
from flashsloth.inference.vision import ImageEncoder, Picture, picture_key
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

if TYPE_CHECKING:
    from flashsloth.inference.accelerator.warm_up import WarmUp

PICTURES_HELD = 32
"""Different pictures that a batch holds in memory at a time, with their features."""
PAIRS_HELD = 512


class FlashSloth:
    """A model with its processor, ready to answer.

    Args:
        model: the model, on its device, in its precision.
        processor: the processor it was trained with.
        name: what it is called in reports: where it was loaded from.
        pictures: where what was seen is kept, for pictures that are asked about again.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        processor: Any,
        name: str = "flashsloth",
        pictures: PictureCache | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.pictures = PictureCache() if pictures is None else pictures
        self.image_encoder = ImageEncoder(model, processor.image_processor, self.pictures)
        self.writer = PromptWriter(processor)
        self.generator = Generator(model, processor.tokenizer, self.pictures)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """A copy, here or in another process, has weights and caches of its own; what was recorded is made again."""
        engine = self.generator.engine
        return _made_again, (self.model, self.processor, self.name, self.pictures, engine and engine.settings)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype

    def answer(self, image: Picture, question: str, **options: Unpack[AnswerOptions]) -> str:
        """Answer one question about a picture, several pictures, or (None) nothing but itself.

        Args:
            image: see the module's docstring.
            question: a text.
            **options: see :class:`AnswerOptions`.

        Raises:
            PictureError, PromptError: where the picture, the question or the options cannot be used.
        """
        checked = Options.of(options)
        return text_of(self.generator.run_one(self._job(image, question, checked), checked), self.processor.tokenizer)

    def stream(self, image: Picture, question: str, **options: Unpack[AnswerOptions]) -> Iterator[str]:
        """As :meth:`answer`, piece by piece: the pieces joined are what it returns. Mistakes are raised at the call."""
        checked = Options.of(options)
        job = self._job(image, question, checked)
        return Detokenizer(self.processor.tokenizer).pieces(self.generator.tokens(job, checked))

    def answer_many(self, image: Picture, questions: Sequence[str], **options: Unpack[AnswerOptions]) -> list[str]:
        """Answer many questions about the same picture, each on its own."""
        if isinstance(questions, str):
            raise PromptError("questions is one text; expected a list of them, or call answer")
        return self.answer_batch([(image, question) for question in questions], **options)

    def answer_batch(self, pairs: Iterable[tuple[Picture, str]], **options: Unpack[AnswerOptions]) -> list[str]:
        """Answer (picture, question) pairs of any mixture, in their order.

        Pairs that name the same picture, by the same path or as the same object, share one look at it.
        """
        answers = dict(self.answer_as_ready(pairs, **options))
        return [answers[place] for place in range(len(answers))]

    def answer_as_ready(
        self, pairs: Iterable[tuple[Picture, str]], **options: Unpack[AnswerOptions]
    ) -> Iterator[tuple[int, str]]:
        """As :meth:`answer_batch`, for any number of pairs: yields (place in `pairs`, answer) as batches get done.

        `pairs` is read as it is needed; pictures are held until their questions are answered.
        """
        return self._answer_windows(pairs, Options.of(options))

    def chat(self, image: Picture = None, **options: Unpack[AnswerOptions]) -> Conversation:
        """A conversation; `image`, if any, goes with its first question, and the options with all of them."""
        return Conversation(self, image, Options.of(options))

    def _job(self, image: Picture, question: str, options: Options) -> Job:
        self.writer.check_question(question)
        pictures = self.image_encoder.open(image, options.image_policy)
        prompt = self.writer.write([self.writer.user_message(question, len(pictures))], options.system)
        self.generator.room(prompt, options)
        return Job(prompt, self.image_encoder.look(pictures))

    def warm_up(self, batch: int = 1, columns: int | None = None) -> WarmUp:
        """Pay for compiling and recording now, so that no answer has to (on an accelerator; elsewhere little is left).

        Args:
            batch: the most answers at once that shall find everything ready.
            columns: the longest prompt with its answer, in tokens; None for one picture and a usual answer.

        Returns:
            What it took.
        """
        from flashsloth.inference.accelerator.warm_up import warm_up

        return warm_up(self, batch, columns)

    def _answer_windows(self, pairs: Iterable[tuple[Picture, str]], options: Options) -> Iterator[tuple[int, str]]:
        if self.generator.engine is not None:
            from flashsloth.inference.accelerator.pairs import answer_pairs

            if (answers := answer_pairs(self, pairs, options)) is not None:
                yield from answers
                return
        done = 0
        for window in _windows(pairs):
            for place, ids in self.generator.run(self._jobs(window, options), options):
                yield done + place, text_of(ids, self.processor.tokenizer)
            done += len(window)

    def _jobs(self, pairs: list[tuple[Picture, str]], options: Options) -> list[Job]:
        """Every pair's prompt and features; a picture that comes again is opened and looked at once."""
        for _, question in pairs:
            self.writer.check_question(question)
        sources: dict[Hashable, Picture] = {}
        for picture, _ in pairs:
            sources.setdefault(picture_key(picture), picture)
        opened = [self.image_encoder.open(source, options.image_policy) for source in sources.values()]
        seen = dict(zip(sources, self.image_encoder.encode_each(opened), strict=True))
        groups = {key: number for number, key in enumerate(sources)}
        jobs = []
        for picture, question in pairs:
            key = picture_key(picture)
            message = self.writer.user_message(question, len(seen[key] or ()))
            jobs.append(Job(self.writer.write([message], options.system), seen[key], groups[key]))
        return jobs


def _windows(pairs: Iterable[tuple[Picture, str]]) -> Iterator[list[tuple[Picture, str]]]:
    """Cut a stream of pairs so that each part has at most `PICTURES_HELD` pictures and `PAIRS_HELD` pairs."""
    window: list[tuple[Picture, str]] = []
    keys: set[Hashable] = set()
    for place, pair in enumerate(pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PromptError(f"pair {place} is {type(pair).__name__}; expected (picture, question)")
        key = picture_key(pair[0])
        if len(window) == PAIRS_HELD or (key not in keys and len(keys) == PICTURES_HELD):
            yield window
            window, keys = [], set()
        window.append((pair[0], pair[1]))
        keys.add(key)
    if window:
        yield window


def _made_again(
    model: FlashSlothForConditionalGeneration, processor: Any, name: str, pictures: PictureCache, settings: Any
) -> FlashSloth:
    """What a copied or unpickled :class:`FlashSloth` is, with an engine where the original had one."""
    sloth = FlashSloth(model, processor, name, pictures)
    if settings is not None:
        from flashsloth.inference.accelerator import accelerate

        accelerate(sloth.generator, sloth.image_encoder, settings)
    return sloth
