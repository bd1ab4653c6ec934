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
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch

from flashsloth.errors import PromptError
from flashsloth.inference.detokenizer import Detokenizer
from flashsloth.inference.engine.broken import broken_answer
from flashsloth.inference.engine.config import EngineConfig, cache_budget
from flashsloth.inference.engine.graph_runner import make_runner
from flashsloth.inference.engine.model_runner import ModelRunner
from flashsloth.inference.engine.scheduler import NO_ROW, Scheduler, Sequence
from flashsloth.inference.kv_cache import LayerStates, round_columns
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import Prompt, context_of, end_ids_of, pad_id_of, token_limit
from flashsloth.inference.request import FinishReason, Request, RequestOutput
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState, new_seed, sampled_ids
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import ImageEncoder, ImageFeatures
from flashsloth.model.loading.finite_weights import all_finite
from flashsloth.model.modeling_flashsloth import FlashSlothForConditionalGeneration

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
Clock = Callable[[], float]
Chosen = tuple[list[bool], list[Sampled | Exception]]
"""Of each sequence, whether its logits are finite, and its token or what went wrong with it."""


class Engine:
    """Answers requests, many at once.

    Args:
        model: ready to answer.
        tokenizer: its tokenizer.
        image_encoder: of the same model.
        prefixes: where keys and values of prompts' beginnings are kept.
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
        self._model, self._tokenizer, self._image_encoder, self._prefixes = model, tokenizer, image_encoder, prefixes
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
        self._weights = 0  # the model's state, as of this step

    def add_request(self, request: Request) -> int:
        """Let a request wait for its turn.

        Raises:
            PromptError: if it can never be answered: its prompt leaves no room, or it does not fit into the cache.
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
                f"the prompt and its answer may take {round_columns(columns):,} positions, and the cache has room for "
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
        self._take_in()
        self._drop_unwanted()
        self._advance(self.runner.sequences)
        self._start(self.scheduler.admit())
        return self._collect_outputs()

    def token_limit(self, prompt: Prompt, params: SamplingParams) -> int:
        """The most tokens that an answer to a prompt may have.

        Raises:
            PromptError: if the prompt leaves no room in the model's context.
        """
        return token_limit(prompt, self.context, params.max_tokens)

    def _positions(self) -> int:
        """Positions that there is memory for, over all rows."""
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

    def _take_in(self) -> None:
        """What other threads have asked for since the last step."""
        aborted = {self._aborted.popleft() for _ in range(len(self._aborted))}  # first: what they name was added before
        self.scheduler.waiting.extend(self._added.popleft() for _ in range(len(self._added)))
        if aborted:
            for one in self.scheduler:
                one.aborted |= one.request_id in aborted

    def _drop_unwanted(self) -> None:
        """End what was aborted, or is past its deadline."""
        now = self._clock()
        for one in list(self.scheduler):
            if one.aborted:
                self._end(one, FinishReason.ABORT)
            elif one.deadline is not None and now >= one.deadline:
                self._end(one, FinishReason.TIMEOUT)

    def _advance(self, sequences: list[Sequence]) -> None:
        """A token more for each; where the pass fails, it is run again for each alone."""
        together = [list(sequences)] if self.runner.runs_again else [[one] for one in sequences]
        for those in together:
            for some, chosen in self._run(those, self._next_tokens):
                self._take_tokens(some, *chosen)

    def _next_tokens(self, sequences: list[Sequence]) -> Chosen:
        return self._chosen(self.runner.decode(sequences), [one.sampling for one in sequences])

    def _start(self, newcomers: list[Sequence]) -> None:
        """Encode pictures, run prompts and choose first tokens."""
        if not newcomers:
            return
        self._weights = self._image_encoder.weights_state()
        self._encode([one for one in newcomers if one.request.pictures is not None])
        alive = [one for one in newcomers if one.finish_reason is None]
        leaders, followers = self._shared(self._gathered(alive))
        self._prefill(leaders)
        for one in followers:  # whose leader may have ended meanwhile, and another may lead
            one.leader = None
        self._prefill(self._led(followers))

    def _encode(self, sequences: list[Sequence]) -> None:
        """Run the encoder on pictures that are new, all of a step together."""

        def encode(some: list[Sequence]) -> list[ImageFeatures | None]:
            shown = [one.request.pictures for one in some if one.request.pictures is not None]
            return self._image_encoder.encode_prepared(shown)

        for some, found in self._run(sequences, encode):
            for one, pictures in zip(some, found, strict=True):
                one.pictures = pictures

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

    def _gathered(self, newcomers: list[Sequence]) -> list[Sequence]:
        """One sequence of each request, with the others beside it: their prompts are the same, and run once."""
        if not self.runner.shares_prefixes:
            return newcomers
        firsts: dict[int, Sequence] = {}
        for one in newcomers:
            first = firsts.setdefault(one.request_id, one)
            if first is not one:
                first.siblings.append(one)
        return list(firsts.values())

    def _shared(self, newcomers: list[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
        """Those whose prompt is run now, and those who begin with what one of the others leaves."""
        leaders: list[Sequence] = []
        followers: list[Sequence] = []
        leading: dict[Hashable, Sequence] = {}
        for one in self._led(newcomers):
            whole = one.leader is not None or one.known_length >= one.prefix_length
            if not whole and one.prefix in leading:
                leading[one.prefix].shared = True
                followers.append(one)
                continue
            leaders.append(one)
            if not whole and self.runner.shares_prefixes:
                leading[one.prefix] = one
        return leaders, followers

    def _led(self, newcomers: list[Sequence]) -> list[Sequence]:
        """Newcomers with what is known of their beginnings: kept, or in the row of one who runs."""
        if not self.runner.shares_prefixes:
            return newcomers
        rows = {one.prefix: one for one in self.runner.sequences}
        for one in newcomers:
            if one.states is None and one.prefix_length:
                one.leader = rows.get(one.prefix)
                one.shared = one.leader is not None
                if one.leader is None:
                    one.states = self._longest_kept(one)
        return newcomers

    def _longest_kept(self, sequence: Sequence) -> LayerStates | None:
        """Keys and values before a sequence's last question, or before an earlier one's, that were kept."""
        for stop in reversed(sequence.request.prompt.question_starts()):
            if stop and (states := self._prefixes.get(self._prefix_key(sequence, stop))) is not None:
                kept: LayerStates = states
                return kept
        return None

    def _prefill(self, sequences: list[Sequence]) -> None:
        """Run prompts; where a pass fails, each of its prompts is run again alone."""
        try:
            for some, logits in self.runner.prefill(sequences):
                for one in some:
                    self._keep_prefix(one)
                joined, logits = self._with_siblings(some, logits)
                chosen = self._chosen(logits, [one.sampling for one in joined])
                for one in some:
                    one.siblings = []
                self._take_tokens(joined, *chosen)
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
            self._prefill([one])

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

    def _keep_prefix(self, sequence: Sequence) -> None:
        """Keep keys and values before a sequence's question, if they are new; its pass is over and went well."""
        if not self.runner.shares_prefixes or not sequence.prefix_length:
            return
        if not (sequence.request.keeps_prefix or sequence.shared):
            return
        key = self._prefix_key(sequence, sequence.prefix_length)
        size = sequence.prefix_length * self.runner.position_bytes
        if size <= self._prefixes.limit and self._prefixes.get(key) is None:
            self._prefixes.put(key, self.runner.states(sequence, sequence.prefix_length), size)

    def _prefix_key(self, sequence: Sequence, stop: int) -> Hashable:
        return "prefix", self._weights, sequence.prefix_until(stop)

    def _take_tokens(self, sequences: list[Sequence], sound: list[bool], sampled: list[Sampled | Exception]) -> None:
        """Give each its token, and end those that have come to their end."""
        ended: list[tuple[Sequence, FinishReason, Exception | None]] = []
        for one, fine, token in zip(sequences, sound, sampled, strict=True):
            if not fine:
                ended.append((one, FinishReason.ERROR, self._explained(one)))
            elif isinstance(token, Exception):
                ended.append((one, FinishReason.ERROR, token))
            elif reason := self._add_token(one, token):
                ended.append((one, reason, None))
        for one, reason, error in ended:  # all have their tokens now: rows may move
            self._end(one, reason, error)

    def _chosen(self, logits: torch.Tensor, states: list[SamplingState]) -> Chosen:
        """Of each sequence, whether its logits are finite, and its token."""
        sound = [True] * len(states)
        likeliest = None if self.sampler.needs_logits(states) else self.runner.likeliest(logits)
        if likeliest is not None:
            return sound, [Sampled(token) for token in likeliest]
        if not all_finite(logits):
            rows = logits.isfinite().all(dim=-1, keepdim=True)
            sound = rows[:, 0].tolist()
            logits = torch.where(rows, logits, 0)
        return sound, self.sampler(logits, states)

    def _explained(self, sequence: Sequence) -> Exception:
        """Where NaN or infinity came from, or why that cannot be told."""
        try:
            return broken_answer(self._model, sequence.request.prompt, sequence.pictures, sequence.sampling.tokens)
        except Exception as error:  # the pass that looks for it may fail as any other
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
        """Let a sequence go, with its last tokens."""
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


__all__ = ["Engine"]
