"""Each row by its own parameters: what each does, and that a draw depends on nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flashsloth.errors import PromptError
from flashsloth.inference.options import Options
from flashsloth.inference.sampling import Sampled, Sampler, SamplingState, draw_border, uniform
from flashsloth.inference.sampling_params import SamplingParams

VOCABULARY = 12
NEVER = 3


def logits(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(rows))


def sample(given: torch.Tensor, *states: SamplingState) -> list[Any]:
    return Sampler([NEVER], VOCABULARY)(given.clone(), states)


def state(tokens: tuple[int, ...] = (), seed: int = 0, index: int = 0, **params: Any) -> SamplingState:
    return SamplingState(SamplingParams(**params), seed, index, list(tokens))


def token(given: torch.Tensor, **params: Any) -> int:
    found = sample(given, state(**params))[0]
    assert isinstance(found, Sampled)
    return found.token


def test_the_likeliest_token_but_no_placeholder() -> None:
    given = torch.zeros(1, VOCABULARY)
    given[0, NEVER], given[0, 7] = 9, 1
    assert token(given) == 7
    assert token(given, temperature=1e-30) == 7


def test_a_draw_depends_on_seed_answer_and_place_alone() -> None:
    given, other = logits(), logits(2)
    drawn = state(temperature=1.0, seed=5, tokens=(1, 2))
    alone = sample(given, drawn)[0].token
    among = sample(torch.cat([other, given]), state(), state(temperature=2.0), drawn)[2].token
    assert alone == among
    places = {uniform(seed, index, place) for seed in range(3) for index in range(3) for place in range(3)}
    assert len(places) == 27
    assert all(0 <= one < 1 for one in places)


def test_draws_have_the_distribution() -> None:
    given = logits()
    counts = torch.zeros(VOCABULARY)
    for seed in range(1500):
        counts[sample(given, state(temperature=0.8, seed=seed))[0].token] += 1
    given[0, NEVER] = -torch.inf
    assert (counts / 1500 - (given[0] / 0.8).softmax(-1)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("params", "kept"),
    [({"top_k": 2}, {5, 6}), ({"top_p": 0.5}, {5, 6}), ({"min_p": 0.6}, {5, 6}), ({"top_k": 3, "top_p": 0.3}, {5})],
)
def test_what_is_drawn_from(params: dict[str, Any], kept: set[int]) -> None:
    given = torch.full((1, VOCABULARY), 0.02).log()
    given[0, 5], given[0, 6], given[0, 7] = (torch.tensor(p).log() for p in (0.4, 0.3, 0.15))
    found = {sample(given, state(temperature=1.0, seed=seed, **params))[0].token for seed in range(100)}
    assert found == kept


def test_penalties_biases_and_masks() -> None:
    given = torch.zeros(1, VOCABULARY)
    given[0, 5], given[0, 6] = 1.0, 0.9
    assert sample(given, state((5,), presence_penalty=0.2))[0].token == 6
    assert sample(given, state((5, 5, 5), frequency_penalty=0.04))[0].token == 6
    assert sample(given, state((5,), frequency_penalty=0.04))[0].token == 5
    assert token(given, logit_bias={8: 2.0}) == 8
    allowed = torch.zeros(VOCABULARY, dtype=torch.bool)
    allowed[9] = True
    assert token(given, mask=lambda tokens: allowed) == 9


def test_log_probabilities_are_of_the_raw_distribution() -> None:
    given = logits()
    found = sample(given, state(logprobs=True, top_logprobs=3, logit_bias={1: 50.0}))[0]
    raw = given[0].log_softmax(-1)
    assert found.token == 1
    assert found.logprob == pytest.approx(float(raw[1]))
    assert [one for one, _ in found.top] == raw.topk(3).indices.tolist()


@pytest.mark.parametrize("mask", [lambda ids: 1 / 0, lambda ids: torch.ones(3), lambda ids: torch.zeros(VOCABULARY)])
def test_a_mask_that_fails_is_its_own_rows_error(mask: Any) -> None:
    given = logits(2)
    failed, fine = sample(given, state(mask=mask), state())
    assert isinstance(failed, Exception)
    assert fine == sample(given[1:], state())[0]


def test_how_near_a_draw_was() -> None:
    given = torch.zeros(VOCABULARY)
    drawn = state(temperature=1.0, seed=1)
    place = uniform(1, 0, 0) * VOCABULARY
    assert draw_border(given, drawn, int(place)) == 0
    assert draw_border(given, drawn, int(place) + 1) == pytest.approx((int(place) + 1 - place) / VOCABULARY)


@pytest.mark.parametrize(
    "given",
    [
        {"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"min_p": 2}, {"seed": -1}, {"stop": [""]},
        {"stop": 3}, {"logprobs": 1}, {"top_logprobs": 2}, {"presence_penalty": 3}, {"logit_bias": [1]}, {"n": 0},
        {"logit_bias": {1: 101}}, {"logit_bias": {"a": 1}}, {"mask": 3}, {"deadline": 0}, {"deadline": float("nan")},
    ],
)  # fmt: skip
def test_what_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="expected"):
        SamplingParams(**given)


def test_tokens_that_a_bias_cannot_name() -> None:
    sampler = Sampler([NEVER], VOCABULARY)
    for token_id, message in ((NEVER, "a placeholder"), (VOCABULARY, "are 0 to 11")):
        with pytest.raises(PromptError, match=message):
            sampler.check(SamplingParams(logit_bias={token_id: 1.0}))
    with pytest.raises(TypeError, match="unknown option 'top_q'"):
        Options.of({"top_q": 1})
