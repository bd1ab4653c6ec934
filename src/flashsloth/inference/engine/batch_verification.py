"""Verification on one's own device that an answer is the same alone and among others.

In: a FlashSloth, and how many requests. Out: a :class:`Report`.

Requests are drawn: 0 to 3 pictures, prompts of many lengths, answers of 1 to 200 tokens that no end token cuts short,
greedy and drawn; they arrive at random steps, and some are aborted, come to their deadline, or are poisoned (a mask
that fails). All run together; then each runs alone, in an engine that has kept nothing.

Tokens must be the same. Where one differs, the rest is not compared, and it must have been near: in float32, the two
likeliest of the answer alone within 1e-4 of one another; in other precisions within the rounding that is measured
(what logits differ by between a pass with a cache and one without, both alone). A drawn token may differ where its draw
was as near to a border. What was aborted, or came to its deadline, must have begun as it does alone; what is poisoned
ends in an error, and nothing else does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from flashsloth.errors import FlashSlothError, PromptError
from flashsloth.inference.engine.config import EngineConfig
from flashsloth.inference.engine.engine import Engine
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.prompt import pad_right
from flashsloth.inference.request import FinishReason, Request
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState, draw_border, sampled_ids
from flashsloth.inference.sampling_params import SamplingParams
from flashsloth.inference.vision import ImageEncoder, join_prepared, picture_inputs
from flashsloth.kernels.cpu_linear import QuantizedLinear

if TYPE_CHECKING:
    from flashsloth.inference.pipeline import FlashSloth

LONGEST = 200
MOST_PICTURES = 3
FLOAT32_GAP = 1e-4
NEWCOMERS = (0, 0, 0, 1, 1, 2, 4)
"""How many requests arrive at a step; one of these."""
LEAST_ROWS = 8
"""Rows that a step must have on average, or nothing was proven."""
ROUNDING_SAMPLES, ROUNDING_TOKENS = 8, 24
SHOWN = 5
WORDS = "what is the colour of big small thing left right above under red blue circle square how many there"


class PoisonError(FlashSlothError, RuntimeError):
    """What a poisoned request's mask raises."""


@dataclass
class Trial:
    """One request that is tried.

    Attributes:
        number: of all.
        request: as the engine gets it among others.
        alone: the same, with pictures that no encoder has run on.
        arrival: at which step.
        aborted_after, late_after: tokens after which it is aborted, or its deadline comes; None for never.
        poisoned_at: the token at which its mask fails; None for never.
        together: its tokens among others.
        end, error: how it ended among others.
        ends: how often it ended.
    """

    number: int
    request: Request
    alone: Request
    arrival: int
    aborted_after: int | None = None
    late_after: int | None = None
    poisoned_at: int | None = None
    together: list[int] = field(default_factory=list)
    end: FinishReason | None = None
    error: Exception | None = None
    ends: int = 0


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        requests, tokens, steps: that ran together.
        mean_rows: sequences of a step, on average.
        rounding: by which logits may differ.
        near: tokens that differed where they might.
        broken: what breaks the rule, a line each.
    """

    requests: int
    tokens: int
    steps: int
    mean_rows: float
    rounding: float
    near: int
    broken: list[str]

    @property
    def holds(self) -> bool:
        """Whether the rule was kept, by enough sequences side by side."""
        return not self.broken and self.mean_rows >= LEAST_ROWS


class ManualClock:
    """Seconds that pass only when `now` is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class RecordingSampler(Sampler):
    """Keeps the logits of each step, raw: float [n, K]."""

    def __init__(self, model: Any) -> None:
        super().__init__(*sampled_ids(model))
        self.kept: list[torch.Tensor] = []

    def __call__(self, logits: torch.Tensor, states: Any) -> list[Sampled | Exception]:
        self.kept.append(logits.float().cpu().clone())
        return super().__call__(logits, states)


def verify_batch(sloth: FlashSloth, requests: int, seed: int = 0) -> Report:
    """Answer random requests together and alone, and compare.

    Args:
        sloth: whose model and device.
        requests: how many.
        seed: of all that is drawn.

    Raises:
        PromptError: for fewer than one request.
    """
    if requests < 1:
        raise PromptError(f"requests is {requests}; expected at least 1")
    trials = _trials(sloth, requests, random.Random(seed))
    steps, rows = _run_together(sloth, trials)
    quantized = any(isinstance(module, QuantizedLinear) for module in sloth.model.modules())
    exact = sloth.dtype == torch.float32 and not quantized
    rounding = FLOAT32_GAP if exact else measured_rounding(sloth, trials)
    near, broken = 0, []
    for trial in trials:
        verdict = _compare(sloth, trial, rounding)
        near += verdict == ""
        broken += [f"request {trial.number}: {verdict}"] if verdict else []
    tokens = sum(len(trial.together) for trial in trials)
    return Report(requests, tokens, steps, rows / max(steps, 1), rounding, near, broken)


def measured_rounding(sloth: FlashSloth, trials: list[Trial]) -> float:
    """The largest difference of a logit between a pass with a cache and one without; both are alone."""
    largest = 0.0
    for trial in trials[:ROUNDING_SAMPLES]:
        tokens, kept = _run_alone(sloth, trial, min(trial.request.params.max_tokens, ROUNDING_TOKENS))
        request = trial.request
        pictures = None if request.pictures is None else request.pictures.features
        inputs = pad_right([request.prompt.followed_by(tokens[:-1])], 0, sloth.device)  # one row: nothing is padded
        inputs |= picture_inputs([pictures], sloth.device)
        with torch.no_grad():
            whole = sloth.model(**inputs, use_cache=False, logits_to_keep=len(tokens)).logits[0]
        largest = max(largest, float((whole.float().cpu() - torch.cat(kept)).abs().max()))
    return largest


def _trials(sloth: FlashSloth, requests: int, chance: random.Random) -> list[Trial]:
    pictures = [_picture(chance) for _ in range(max(4, requests // 8))]
    prepared = [sloth.image_encoder.prepare([picture]) for picture in pictures]
    trials, step = [], 0
    for number in range(requests):
        while not (newcomers := chance.choice(NEWCOMERS)):
            step += 1
        step += chance.random() < 1 / newcomers
        trials.append(_trial(sloth, number, step, prepared, chance))
    return trials


def _trial(sloth: FlashSloth, number: int, arrival: int, prepared: list[Any], chance: random.Random) -> Trial:
    shown = [chance.choice(prepared) for _ in range(chance.choice((0, 1, 1, 1, 2, MOST_PICTURES)))]
    question = " ".join(chance.choice(WORDS.split()) for _ in range(chance.randint(1, 30))) + "?"
    kind = chance.random()
    length = chance.randint(1, LONGEST)
    drawn = chance.random() < 0.5
    poisoned_at = chance.randrange(length) if kind < 0.05 else None
    params = SamplingParams(
        max_tokens=length,
        temperature=chance.choice((0.7, 1.0, 1.5)) if drawn else 0.0,
        top_p=chance.choice((1.0, 0.9)) if drawn else 1.0,
        top_k=chance.choice((0, 40)) if drawn else 0,
        seed=chance.getrandbits(32),
        mask=None if poisoned_at is None else _poison(poisoned_at, sloth.model.config.text_config.vocab_size),
        deadline=1.0 if 0.05 <= kind < 0.1 else None,
    )
    prompt = sloth.writer.write([sloth.writer.user_message(question, len(shown))], None)
    request, alone = (Request(prompt, join_prepared(shown) if shown else None, params) for _ in range(2))
    trial = Trial(number, request, alone, arrival, poisoned_at=poisoned_at)
    if 0.05 <= kind < 0.1:
        trial.late_after = chance.randrange(length)
    elif 0.1 <= kind < 0.2:
        trial.aborted_after = chance.randrange(length)
    return trial


def _poison(place: int, vocabulary: int) -> Callable[[Any], torch.Tensor]:
    def mask(tokens: Any) -> torch.Tensor:
        if len(tokens) == place:
            raise PoisonError("poisoned")
        return torch.ones(vocabulary, dtype=torch.bool)

    return mask


def _picture(chance: random.Random) -> Image.Image:
    size = chance.randint(20, 400), chance.randint(20, 400)
    pixels = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size)


def _engine(sloth: FlashSloth, keep: int, clock: ManualClock) -> Engine:
    cache = PictureCache(keep)
    encoder = ImageEncoder(sloth.model, sloth.processor.image_processor, cache)
    engine = Engine(sloth.model, sloth.processor.tokenizer, encoder, cache, EngineConfig(), clock)
    engine.end_ids = []  # answers get the length that was drawn
    return engine


def _run_together(sloth: FlashSloth, trials: list[Trial]) -> tuple[int, int]:
    """All at once, each from its arrival on: (steps, rows of all steps)."""
    clock = ManualClock()
    engine = _engine(sloth, sloth.pictures.limit, clock)
    running: dict[int, Trial] = {}
    arriving = list(reversed(trials))
    steps = rows = now = 0
    while arriving or engine.has_work:
        while arriving and arriving[-1].arrival <= now:
            trial = arriving.pop()
            running[engine.add_request(trial.request)] = trial
        _let_deadlines_come(engine, running, clock)
        if engine.has_work:
            outputs = engine.step()
            steps, rows = steps + 1, rows + len(engine.scheduler.running)
            for output in outputs:
                _note(running[output.request_id], output)
            _abort_some(engine, running)
        now += 1
    return steps, rows


def _let_deadlines_come(engine: Engine, running: dict[int, Trial], clock: ManualClock) -> None:
    """Deadlines are set on the sequences themselves: a shared clock would come to all of them at once."""
    for sequence in engine.scheduler:
        trial = running[sequence.request_id]
        if trial.request.params.deadline is not None:
            due = trial.late_after is not None and len(sequence.sampling.tokens) > trial.late_after
            sequence.deadline = clock.now - 1 if due else clock.now + 1


def _note(trial: Trial, output: Any) -> None:
    trial.together += [token.token for token in output.tokens]
    if output.finish_reason is not None:
        trial.end, trial.error, trial.ends = output.finish_reason, output.error, trial.ends + 1


def _abort_some(engine: Engine, running: dict[int, Trial]) -> None:
    """Abort those whose time has come, by tokens that are not handed out before the end."""
    for sequence in engine.scheduler.running:
        trial = running[sequence.request_id]
        if trial.aborted_after is not None and len(sequence.sampling.tokens) > trial.aborted_after:
            engine.abort(sequence.request_id)


def _run_alone(sloth: FlashSloth, trial: Trial, most: int) -> tuple[list[int], list[torch.Tensor]]:
    """A request's first tokens when nothing else runs and nothing was kept, with the logits of each."""
    engine = _engine(sloth, 0, ManualClock())
    engine.sampler = sampler = RecordingSampler(sloth.model)
    engine.add_request(
        replace(trial.request, params=replace(trial.request.params, max_tokens=most, mask=None, deadline=None))
    )
    tokens: list[int] = []
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            tokens += [token.token for token in output.tokens]
    return tokens, sampler.kept


def _compare(sloth: FlashSloth, trial: Trial, rounding: float) -> str | None:
    """What breaks the rule; "" where a token differed that might; None where all is the same."""
    if trial.ends != 1:
        return f"it ended {trial.ends} times"
    if (wrong := _wrong_end(trial)) is not None:
        return wrong
    if not trial.together:
        return None
    alone, logits = _run_alone(sloth, trial, len(trial.together))
    for place, (one, other) in enumerate(zip(trial.together, alone, strict=True)):
        if one == other:
            continue
        gap = _gap(sloth, trial, place, logits[place][0], one)
        return "" if gap <= 2 * rounding else f"token {place} is {one} among others and {other} alone, {gap:.2g} away"
    return None


def _wrong_end(trial: Trial) -> str | None:
    """What is wrong with how a trial ended, if anything is."""
    length = len(trial.together)
    expected = FinishReason.LENGTH
    if trial.poisoned_at is not None:
        expected = FinishReason.ERROR
        if not isinstance(trial.error, PoisonError) or length != trial.poisoned_at:
            return f"it was poisoned at {trial.poisoned_at} and ended after {length} tokens with {trial.error!r}"
    elif length < trial.request.params.max_tokens:
        expected = FinishReason.ABORT if trial.aborted_after is not None else FinishReason.TIMEOUT
        if trial.aborted_after is None and trial.late_after is None:
            return f"it ended after {length} tokens of {trial.request.params.max_tokens}"
    return None if trial.end == expected else f"it ended in {trial.end}, expected {expected}: {trial.error!r}"


def _gap(sloth: FlashSloth, trial: Trial, place: int, logits: torch.Tensor, other: int) -> float:
    """How far the other token was from being the one alone, as a difference of logits or of probability."""
    params = trial.request.params
    logits = logits.clone()
    logits[sampled_ids(sloth.model)[0]] = -torch.inf
    if not params.temperature:
        return float(logits.max() - logits[other])
    state = SamplingState(params, params.seed or 0, 0, tokens=[0] * place)
    return draw_border(logits, state, other)
