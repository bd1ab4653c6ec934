"""FlashSloth as a model of lmms-eval 0.7.3, which finds it by an entry point and is nothing that this package needs.

    python -m lmms_eval --model flashsloth --model_args pretrained=FOLDER,dtype=float32 --tasks pope --log_samples ...

In: lmms-eval's requests. Out: an answer each, with its tokens counted, the same as `FlashSloth.answer_batch` gives.
Several processes (`accelerate launch`) have a model and a share of the requests each, as lmms-eval divides them.
"""

from __future__ import annotations

import atexit
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from flashsloth.errors import FlashSlothError
from flashsloth.evaluation.answerer import IMAGE_POLICY
from flashsloth.evaluation.lmms_eval_request import ChatQuestion, answer_options, chat_question, device_of
from flashsloth.evaluation.task import EvaluationError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.load import load


class LmmsEvalError(FlashSlothError, ImportError):
    """lmms-eval is not installed."""


try:
    from lmms_eval.api.instance import GenerationResult, TokenCounts
    from lmms_eval.api.model import lmms
except ImportError as error:
    raise LmmsEvalError(
        f"this is a model of lmms-eval, which cannot be imported ({error}): pip install lmms-eval==0.7.3"
    ) from error


class Asked(NamedTuple):
    """One request: its place among all, and what is asked how."""

    place: int
    question: ChatQuestion
    options: dict[str, Any]


class FlashSlothModel(lmms):
    """See the module; the arguments are those of `--model_args`.

    Args:
        pretrained: a folder, or a name on the hub; without it, the small model.
        adapter: an adapter's folder, whose base it names, in place of `pretrained`.
        device, dtype, quantize: as of :func:`flashsloth.load`; `--device` is the same.
        resolution: of an HD model, see `AnswerOptions`.
        seed: of the draws, where a task has a temperature; a repeated request draws with the next one.
        batch_size: answers made at once; 1, which lmms-eval passes where nothing is said, and "auto" leave it to the
            engine.

    Raises:
        EvaluationError: for both `pretrained` and `adapter`, or a batch size that is no number.
        LoadError, AdapterError, SpeedError, CheckpointError: as of :func:`flashsloth.load`.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        adapter: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        resolution: str | None = None,
        seed: int = 0,
        batch_size: int | str = 1,
    ) -> None:
        super().__init__()
        if pretrained is not None and adapter is not None:
            raise EvaluationError(
                f"pretrained={pretrained} and adapter={adapter}: expected one; an adapter names its base"
            )
        name = pretrained if adapter is None else adapter
        own_device = device_of(device, os.environ.get("LOCAL_RANK"), torch.cuda.device_count())
        self._sloth = load(
            None if name is None else str(name),
            device=own_device,
            dtype=dtype,
            quantize=quantize,
            engine=_engine(batch_size),
        )
        atexit.register(_leave_process_group)
        self._seed = seed
        self._always = {"details": True, "image_policy": IMAGE_POLICY}
        if resolution is not None:
            self._always["resolution"] = resolution

    @property
    def device(self) -> torch.device:
        """Where lmms-eval counts what its processes have."""
        return self._sloth.device

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Answers, in the requests' order.

        Raises:
            EvaluationError: for what a task asks and FlashSloth cannot do; once all others are answered, where a
                request could not be: a score without it would be another one's.
        """
        found: dict[int, Any] = {}
        failed: list[str] = []
        with tqdm(total=len(requests), desc="flashsloth", disable=self.rank != 0) as bar:
            for options, asked in itertools.groupby(self._asked(requests), lambda one: one.options):
                places: list[int] = []
                for number, answer in self._sloth.answer_as_ready(
                    _pairs(asked, places), on_error="return", **self._always, **options
                ):
                    place = places[number]
                    if isinstance(answer, Exception):
                        failed.append(f"{requests[place].args[4]} {requests[place].args[3]}: {answer}")
                    else:
                        found[place] = GenerationResult(answer.text, TokenCounts(output_tokens=len(answer.tokens)))
                    bar.update()
        if failed:
            raise EvaluationError(f"{len(failed)} of {len(requests)} could not be answered; the first, {failed[0]}")
        return [found[place] for place in range(len(requests))]

    def _asked(self, requests: Sequence[Any]) -> Iterator[Asked]:
        """Requests as they are needed; a request that is there again comes after all others, with the next seed."""
        seen: Counter[tuple[Any, ...]] = Counter()
        rounds = []
        for place, request in enumerate(requests):
            _, _, _, document, task, split = request.args
            rounds.append((seen[task, split, document], place))
            seen[task, split, document] += 1
        for repetition, place in sorted(rounds):
            _, messages_of, settings, document, task, split = requests[place].args
            question = chat_question(messages_of(self.task_dict[task][split][document]))
            options = answer_options(settings)
            if options["temperature"]:
                options["seed"] = self._seed + repetition
            if question.system is not None:
                options["system"] = question.system
            yield Asked(place, question, options)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """Not to be had: a task's later rounds ask about earlier answers."""
        raise EvaluationError(
            "this task has several rounds, which FlashSloth is not asked through lmms-eval: leave it out"
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Not to be had: nothing of the paper's is measured so."""
        raise EvaluationError("this task compares likelihoods; expected one that asks for answers (generate_until)")


def _leave_process_group() -> None:
    """End the group that lmms-eval leaves open: its threads may abort a process that ends before the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _pairs(asked: Iterator[Asked], places: list[int]) -> Iterator[tuple[Any, Any]]:
    """(pictures, question) of each, its place noted."""
    for one in asked:
        places.append(one.place)
        yield one.question.pictures or None, one.question.question


def _engine(batch_size: int | str) -> EngineConfig | None:
    """An engine of so many rows; None for its own number.

    Raises:
        EvaluationError: for anything but a number from 1, or "auto".
    """
    if str(batch_size) in ("1", "auto"):
        return None
    if not str(batch_size).isdecimal() or int(batch_size) == 0:
        raise EvaluationError(f"batch_size is {batch_size!r}; expected a number from 1, or auto")
    return EngineConfig(max_rows=int(batch_size))
