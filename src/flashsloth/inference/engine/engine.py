"""The engine: requests in, tokens out; all answers are made here.

    engine.add_request(request) -> request id      checked before it waits
    engine.step() -> list of RequestOutput         what one step brought
    engine.abort(request id)

Every answer ends in exactly one of stop, length, abort, timeout and error, and nothing that happens to one reaches
another: a pass that fails is run again for each of its sequences alone, and the one that fails ends in error.

`step()` is called by one thread (see `engine_thread.py`), or by hand where no thread runs; `add_request` and `abort`
may be called by any thread at any time.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import Detokenizer
from flashsloth.inference.engine.config import EngineConfig, cache_budget
from flashsloth.inference.engine.graph_runner import make_runner
from flashsloth.inference.engine.model_runner import ModelRunner, non_finite_answer
from flashsloth.inference.engine.prefix_cache import PrefixCache
from flashsloth.inference.engine.scheduler import NO_ROW, Scheduler, Sequence
from flashsloth.inference.kv_cache import LayerStates, round_columns
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import Prompt, context_of, end_ids_of, pad_id_of, token_limit
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState, new_seed, sampled_ids
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import ImageEncoder, ImageFeatures
from flashsloth.model.loading.non_finite import all_finite
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Clock = Callable[[], float]
Sampling = tuple[list[bool], list[Sampled | Exception]]
"""Of each sequence, whether its logits are finite, and its token or what went wrong with it."""


class Engine:
    """Answers requests, many at once.

    Args:
        model: ready to answer.
        tokenizer: its tokenizer.
        image_encoder: of the same model.
        prefixes: where keys and values of prompts' prefixes are kept.
        config: limits.
        clock: seconds that deadlines are counted in.
    """

    def __init__(
        self,
        model: FlashSlothForConditionalGeneration,
        tokenizer: Any,
        image_encoder: ImageEncoder,
        prefixes: PictureCache,
        config: EngineConfig | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = EngineConfig() if config is None else config
        self._model, self._tokenizer, self._image_encoder = model, tokenizer, image_encoder
        self._prefixes = PrefixCache(prefixes)
        self._clock = clock
        self.end_ids, self.context = end_ids_of(model, tokenizer), context_of(model)
        self.sampler = Sampler(*sampled_ids(model))
        self._cache_bytes = cache_budget(self.config, model.device)
        self.runner: ModelRunner = make_runner(model, pad_id_of(tokenizer), self.config, self._cache_bytes)
        if self.runner.encode is not None:
            image_encoder.encode = self.runner.encode
        self.scheduler = Scheduler(self.config, self._positions())
        self._ids = itertools.count()
        self._added: deque[Sequence] = deque()  # no lock: who aborts may be a finalizer, which runs anywhere
        self._aborted: deque[int] = deque()
        self._stops: dict[int, Detokenizer] = {}  # id of a sequence with stop strings -> its text
        self._outputs: list[RequestOutput] = []

    def add_request(self, request: Request) -> int:
        """Let a request wait for its turn.

        Raises:
            PromptError: if it can never be answered: its prompt fills the context, or it does not fit into the cache.
        """
        limit = self.token_limit(request.prompt, request.params)
        longest = max(map(len, request.choices), default=0)
        if token_limit(request.prompt, self.context, longest) < longest:
            raise PromptError(
                f"the prompt has {len(request.prompt):,} tokens and the longest choice {longest:,}, and this model's "
                f"context is {self.context:,}: shorten the text, or the choice"
            )
        self.sampler.check(request.params)
        request_id = next(self._ids)
        sequences = self._sequences(request_id, request, limit)
        columns = max(one.most_columns for one in sequences)
        if not self.scheduler.can_ever_fit(columns):
            raise PromptError(
                f"the prompt and its answer may take {round_columns(columns):,} positions, and the cache holds "
                f"{self._positions():,}: ask for fewer tokens, or give the engine more memory (cache_bytes)"
            )
        self._added.extend(sequences)
        return request_id

    def abort(self, request_id: int) -> None:
        """End a request's answers where they are; nothing happens where they have ended."""
        self._aborted.append(request_id)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._added) or not self.scheduler.is_idle

    def step(self) -> list[RequestOutput]:
        """One more token for every sequence that runs, and a first one for those that may start."""
        self._receive()
        self._end_unwanted()
        self._decode(self.runner.sequences)
        if admitted := self.scheduler.admit():
            self._encode(admitted)
            self._prefill(admitted)
        return self._collect_outputs()

    def token_limit(self, prompt: Prompt, params: SamplingParams) -> int:
        """The most tokens that an answer to a prompt may have.

        Raises:
            PromptError: if the prompt fills the model's context.
        """
        return token_limit(prompt, self.context, params.max_tokens)

    def _positions(self) -> int:
        """Positions that the cache may hold, over all rows."""
        if not self.runner.position_bytes:
            return self.config.max_rows * (self.context or 1 << 30)
        return self._cache_bytes // self.runner.position_bytes

    def _sequences(self, request_id: int, request: Request, limit: int) -> list[Sequence]:
        """A request's answers, or its choices, which are scored as if they were answers."""
        params, now = request.params, self._clock()
        seed = new_seed() if params.seed is None else params.seed
        deadline = None if params.deadline is None else now + params.deadline
        forced = request.choices or ((),) * params.n
        return [
            Sequence(
                request_id,
                request,
                SamplingState(params, seed, index, forced=tokens),
                len(tokens) or limit,
                deadline,
                states=request.states,
            )
            for index, tokens in enumerate(forced)
        ]

    def _receive(self) -> None:
        """What other threads have added and aborted since the last step."""
        aborted = {self._aborted.popleft() for _ in range(len(self._aborted))}  # first: what they name was added before
        self.scheduler.waiting.extend(self._added.popleft() for _ in range(len(self._added)))
        if aborted:
            for one in self.scheduler:
                one.aborted |= one.request_id in aborted

    def _end_unwanted(self) -> None:
        """End what was aborted, or is past its deadline."""
        now = self._clock()
        for one in list(self.scheduler):
            if one.aborted:
                self._end(one, FinishReason.ABORT)
            elif one.deadline is not None and now >= one.deadline:
                self._end(one, FinishReason.TIMEOUT)

    def _decode(self, running: list[Sequence]) -> None:
        """One more token for each; where the pass fails, it is run again for each alone."""

        def decode(some: list[Sequence]) -> Sampling:
            return self._sample(self.runner.decode(some), [one.sampling for one in some])

        together = [list(running)] if self.runner.runs_again else [[one] for one in running]
        for those in together:
            for some, sampling in self._run(those, decode):
                self._add_tokens(some, *sampling)

    def _encode(self, admitted: list[Sequence]) -> None:
        """Run the encoder on pictures that are new, all of a step together."""
        self._prefixes.weights = self._image_encoder.weights_state()

        def encode(some: list[Sequence]) -> list[ImageFeatures | None]:
            shown = [one.request.pictures for one in some if one.request.pictures is not None]
            return self._image_encoder.encode_prepared(shown)

        for some, found in self._run([one for one in admitted if one.request.pictures is not None], encode):
            for one, pictures in zip(some, found, strict=True):
                one.pictures = pictures

    def _prefill(self, admitted: list[Sequence]) -> None:
        """Run prompts and sample first tokens; of prompts that share a prefix, first one, then the others."""
        alive = [one for one in admitted if one.finish_reason is None]
        leaders, followers = self._prefixes.split(alive, self.runner)
        self._run_prompts(leaders)
        self._run_prompts(self._prefixes.find(followers, self.runner))

    def _run(
        self, sequences: list[Sequence], run: Callable[[list[Sequence]], Made]
    ) -> Iterator[tuple[list[Sequence], Made]]:
        """What `run` makes of sequences together; where it fails, of each alone, and who fails alone ends in error."""
        if not sequences:
            return
        try:
            made = run(sequences)
        except Exception as error:
            failure = error
        else:
            yield sequences, made
            return
        if len(sequences) == 1:
            self._end(sequences[0], FinishReason.ERROR, failure)
            return
        del failure  # with the tensors of the pass, which may be what memory is short of
        for one in sequences:
            yield from self._run([one], run)

    def _run_prompts(self, sequences: list[Sequence]) -> None:
        """Run prompts; where a pass fails, each of its prompts is run again alone."""
        try:
            for some, logits in self.runner.prefill(sequences):
                for one in some:
                    self._prefixes.keep(one, self.runner)
                joined, logits = self._with_siblings(some, logits)
                sampling = self._sample(logits, [one.sampling for one in joined])
                for one in some:
                    one.siblings = []
                self._add_tokens(joined, *sampling)
            return
        except Exception as error:
            failure = error
        left = [one for one in sequences if one.finish_reason is None and not one.sampling.tokens]
        if len(sequences) == 1:
            for one in (*left, *sequences[0].siblings):
                self._end(one, FinishReason.ERROR, failure)
            return
        del failure  # with the tensors of the pass, which may be what memory is short of
        for one in left:
            for held in (one, *one.siblings):
                if held.row != NO_ROW:
                    self.runner.release(held)
        for one in left:
            self._run_prompts([one])

    def _with_siblings(self, sequences: list[Sequence], logits: torch.Tensor) -> tuple[list[Sequence], torch.Tensor]:
        """Sequences whose prompt has been run, and after them those of the same requests; logits of all."""
        joined, rows = list(sequences), list(range(len(sequences)))
        for row, one in enumerate(sequences):
            self.runner.fork(one, one.siblings)
            for other in one.siblings:
                other.attention = one.attention
            joined += one.siblings
            rows += [row] * len(one.siblings)
        return joined, logits if len(rows) == len(logits) else logits[rows]

    def _add_tokens(self, sequences: list[Sequence], finite: list[bool], sampled: list[Sampled | Exception]) -> None:
        """Give each its token, and end those that are complete."""
        ended: list[tuple[Sequence, FinishReason, Exception | None]] = []
        for one, is_finite, token in zip(sequences, finite, sampled, strict=True):
            if not is_finite:
                ended.append((one, FinishReason.ERROR, self._non_finite(one)))
            elif isinstance(token, Exception):
                ended.append((one, FinishReason.ERROR, token))
            elif reason := self._add_token(one, token):
                ended.append((one, reason, None))
        for one, reason, error in ended:  # all have their tokens now: rows may move
            self._end(one, reason, error)

    def _sample(self, logits: torch.Tensor, states: list[SamplingState]) -> Sampling:
        """Of each sequence, whether its logits are finite, and its token."""
        finite = [True] * len(states)
        greedy = None if self.sampler.needs_logits(states) else self.runner.greedy_tokens(logits)
        if greedy is not None:
            return finite, [Sampled(token) for token in greedy]
        if not all_finite(logits):
            rows = logits.isfinite().all(dim=-1, keepdim=True)
            finite = rows[:, 0].tolist()
            logits = torch.where(rows, logits, 0)
        return finite, self.sampler(logits, states)

    def _non_finite(self, sequence: Sequence) -> Exception:
        """Where NaN or infinity came from, or why that is not known."""
        try:
            return non_finite_answer(self._model, sequence.request.prompt, sequence.pictures, sequence.sampling.tokens)
        except Exception as error:  # the pass that finds the layer may fail as any other
            return error

    def _add_token(self, sequence: Sequence, token: Sampled) -> FinishReason | None:
        """Why a sequence ends with this token; None if it goes on."""
        sequence.sampling.tokens.append(token.token)
        sequence.new.append(token)
        full = len(sequence.sampling.tokens) == sequence.limit
        if sequence.sampling.forced:
            return FinishReason.STOP if full else None
        if token.token in self.end_ids or self._stopped(sequence, token.token):
            return FinishReason.STOP
        return FinishReason.LENGTH if full else None

    def _stopped(self, sequence: Sequence, token: int) -> bool:
        """Whether a stop string has come."""
        stop = sequence.sampling.params.stop
        if not stop:
            return False
        text = self._stops.setdefault(id(sequence), Detokenizer(self._tokenizer, stop))
        text.add(token)
        return text.stopped

    def _end(self, sequence: Sequence, reason: FinishReason, error: Exception | None = None) -> None:
        """End a sequence: free its row, and output its last tokens."""
        sequence.finish_reason, sequence.error = reason, error
        states = None
        if sequence.row != NO_ROW:
            if sequence.request.keep_states and error is None:
                states = self._copied_states(sequence)
            self.runner.release(sequence, clean=error is not None)
        self.scheduler.remove(sequence)
        self._stops.pop(id(sequence), None)
        self._outputs.append(self._output(sequence, states))

    def _copied_states(self, sequence: Sequence) -> LayerStates | None:
        """Keys and values of all that was run; None where there is no memory for a copy, and they are run again."""
        try:
            return self.runner.states(sequence, sequence.position)
        except (RuntimeError, MemoryError):
            logger.warning("keys and values of an answer could not be kept for the next question", exc_info=True)
            return None

    def _collect_outputs(self) -> list[RequestOutput]:
        """What the step brought: ends, and new tokens of those who go on."""
        outputs, self._outputs = self._outputs, []
        outputs += [self._output(one, None) for one in self.scheduler.running if one.new and one.request.streams]
        return outputs

    def _output(self, sequence: Sequence, states: LayerStates | None) -> RequestOutput:
        tokens, sequence.new = tuple(sequence.new), []
        return RequestOutput(
            sequence.request_id,
            sequence.sampling.index,
            tokens,
            sequence.finish_reason,
            sequence.error,
            sequence.sampling.seed,
            states,
            sequence.attention,
        )
