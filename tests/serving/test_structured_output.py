"""Answers of a form: they parse, they fit their schema, and what cannot be followed is refused at once."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import tiny
import torch
from PIL import Image
from tokenizers_like import spaced_tokenizer, two_ends_tokenizer
from transformers import PreTrainedTokenizerFast

import flashsloth
from flashsloth.errors import PromptError
from flashsloth.inference.engine.engine_thread import Reply
from flashsloth.inference.options import Options
from flashsloth.inference.request import FinishReason
from flashsloth.inference.sampling_params import TokenMask
from flashsloth.model.loading.folders import shipped_folder
from flashsloth.serving.answer_form import LARGEST_MULTIPLE, MOST_DEPTH, MOST_PARTS, MOST_TEXT
from flashsloth.serving.api_error import ApiError
from flashsloth.serving.structured_output import Grammars

SHORT = {"type": "string", "maxLength": 6}
SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {
            "color": {"enum": ["red", "blue", "grün", "青"]},
            "count": {"type": "integer", "minimum": 0, "maximum": 12},
            "sure": {"type": "boolean"},
        },
        "required": ["color", "count", "sure"],
        "additionalProperties": False,
    },
    "optional": {
        "type": "object",
        "properties": {"a": SHORT, "b": {"anyOf": [{"type": "null"}, {"type": "number", "minimum": 0, "maximum": 9}]}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "array": {
        "type": "array",
        "items": {"$ref": "#/$defs/pair"},
        "maxItems": 3,
        "$defs": {"pair": {"type": "object", "properties": {"x": {"enum": [1, "x"]}}, "additionalProperties": False}},
    },
    "text": {"type": "string", "pattern": "^[a-c]{2,4}(é|x)$"},
    "date": {"type": "string", "format": "date"},
    "open": {"type": "object", "additionalProperties": {"type": "number"}},
    "integer": {"type": "integer", "minimum": -20, "maximum": 1000, "multipleOf": 5},
    "const": {"const": {"shape": "circle", "at": [1, 2.5, None]}},
    "any": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": SHORT, "minItems": 1, "maxItems": 2}]},
}
MOST_SECONDS = 10.0
"""Of a processor, in which a schema is refused."""
ENDLESS = {"open", "optional"}
"""Of texts of any length."""
WALKS, LONGEST_WALK = 12, 400
REFUSED: dict[str, tuple[Any, str]] = {
    "a keyword that is not built": ({"not": {"type": "string"}}, '"not"'),
    "another site": ({"$ref": "http://elsewhere.example/schema"}, "elsewhere.example"),
    "a file": ({"$ref": "file:///etc/passwd"}, "passwd"),
    "a place that is not there": ({"$ref": "#/$defs/a"}, "$defs/a"),
    "either, but not both": ({"oneOf": [{"type": "string"}, {"const": "a"}]}, "write anyOf"),
    "looking back": ({"type": "string", "pattern": "(?<=a)b"}, "look-around"),
    "an open bracket": ({"type": "string", "pattern": "[a"}, "character class"),
    "a kind that is none": ({"type": "colour"}, "colour"),
    "nothing fits": ({"type": "integer", "minimum": 2, "maximum": 1}, "Unsatisfiable"),
    "it names itself": ({"$ref": "#"}, "no text fits"),
    "options of the library": ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance"),
    "too deep": ({}, "deep"),
    "too many parts": ({"enum": list(range(MOST_PARTS + 1))}, "keys and items"),
    "too long": ({"const": "x" * MOST_TEXT}, "characters"),
    "too large a multiple": ({"type": "integer", "multipleOf": 10**9 + 7}, "multipleOf"),
    "multiples together": (
        {"allOf": [{"type": "integer", "multipleOf": 997}, {"type": "integer", "multipleOf": 991.0}]},
        "multipleOf",
    ),
    "too many patterns": (
        {"anyOf": [{"pattern": "a"}] * 20 + [{"patternProperties": dict.fromkeys("abcde")}]},
        "patterns",
    ),
    "too many cases": (
        {"allOf": [{"type": "string", "pattern": f"^[ab]*a[ab]{{{k}}}$"} for k in range(20, 40)]},
        "cannot be followed",
    ),
    "alternatives times alternatives": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{name}{k}": {"type": "integer"}}} for name in "abc"]} for k in range(12)
            ]
        },
        "too large",
    ),
}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED["too deep"] = (deep(MOST_DEPTH), "deep")


@pytest.fixture(scope="module")
def nano() -> flashsloth.FlashSloth:
    return flashsloth.load()


@pytest.fixture(scope="module")
def grammars(nano: flashsloth.FlashSloth) -> Grammars:
    return Grammars.of(nano)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return tiny.picture(5)


def asked(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def mask_of(grammars: Grammars, schema: Any, answers: int = 1) -> TokenMask:
    mask = asyncio.run(grammars.mask(asked(schema), answers))
    assert mask is not None
    return mask


TOKENIZERS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], tuple[str, ...]]] = {
    "nano": (lambda: PreTrainedTokenizerFast.from_pretrained(shipped_folder()), ("</s>",)),
    "tiny": (tiny.make_tokenizer, (tiny.END,)),
    "spaced": (spaced_tokenizer, ("</s>",)),
    "two ends": (two_ends_tokenizer, ("<end>", "<turn>")),
}


def fits(text: str, schema: dict[str, Any]) -> bool:
    """Whether a text is JSON that fits, by another library's word."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(["date"]))
    return checker.is_valid(value)


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_an_answer_may_end_exactly_where_it_fits(tokenizer: str, name: str) -> None:
    """Any walk through what is allowed: no special token ever, and an end at each place where the text fits."""
    make, ends = TOKENIZERS[tokenizer]
    words = make()
    end_ids = words.convert_tokens_to_ids(list(ends))
    vocabulary = len(words) + 9
    grammars = Grammars(words, end_ids, vocabulary)
    chance = random.Random(name)
    never = {*words.all_special_ids, *range(len(words), vocabulary)} - set(end_ids)
    mask = mask_of(grammars, SCHEMAS[name])
    ended = 0
    for _ in range(WALKS):
        tokens: list[int] = []
        while len(tokens) < LONGEST_WALK:
            allowed = mask(tokens)
            assert allowed.dtype == torch.bool
            assert allowed.shape == (vocabulary,)
            found = set(allowed.nonzero().flatten().tolist())
            text = words.decode(tokens, skip_special_tokens=False)
            may_end = {one in found for one in end_ids}
            assert may_end == {fits(text, SCHEMAS[name])}, text
            assert not found & never
            rest = sorted(found - set(end_ids))
            if may_end == {True} and (not rest or chance.random() < 0.5):
                ended += 1
                break
            tokens.append(chance.choice(rest))
    assert ended


def outputs(reply: Reply | Exception) -> Reply:
    assert not isinstance(reply, Exception)
    return reply


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_answers_fit_beside_others_that_are_free(
    temperature: float, nano: flashsloth.FlashSloth, grammars: Grammars, picture: Image.Image
) -> None:
    """Three answers of each schema, in one batch with others, which are what they are alone."""
    schemas = [schema for name, schema in SCHEMAS.items() if name not in ENDLESS]
    free = [
        nano.request(picture, f"What is in row {row}?", max_tokens=24, seed=row, temperature=0.5) for row in range(4)
    ]
    alone = [nano.collector(one, Options()).collect(nano.engine_thread.submit(one)) for one in free]
    made = [
        nano.request(
            picture,
            "What color is the circle?",
            mask=mask_of(grammars, schema, answers=3),
            n=3,
            temperature=temperature,
            seed=7,
            max_tokens=300,
        )
        for schema in schemas
    ]
    requests = [*made[:4], *free, *made[4:]]
    replies = nano.engine_thread.submit_all(requests)
    found = [
        nano.collector(one, Options()).collect(outputs(reply)) for one, reply in zip(requests, replies, strict=True)
    ]
    assert [one[0].tokens for one in found[4:8]] == [one[0].tokens for one in alone]
    texts = []
    for schema, answers in zip(schemas, [*found[:4], *found[8:]], strict=True):
        assert len(answers) == 3
        for answer in answers:
            assert answer.finish_reason == FinishReason.STOP, answer.text
            assert fits(answer.text, schema), answer.text
        texts.append({answer.text for answer in answers})
    if temperature:
        assert max(map(len, texts)) > 1, "all three answers of each schema are equal"
    else:
        assert all(len(one) == 1 for one in texts)


def test_json_object_is_any_object(nano: flashsloth.FlashSloth, grammars: Grammars, picture: Image.Image) -> None:
    mask = asyncio.run(grammars.mask({"type": "json_object"}, 1))
    for seed in range(2):
        answer = nano.answer(
            picture, "Describe it.", mask=mask, temperature=1.0, seed=seed, max_tokens=100, details=True
        )
        if answer.finish_reason == FinishReason.STOP:
            assert isinstance(json.loads(answer.text), dict)
        else:
            assert answer.text.startswith("{")


@pytest.mark.parametrize("form", [None, {"type": "text"}])
def test_plain_text_has_no_mask(form: Any, grammars: Grammars) -> None:
    assert asyncio.run(grammars.mask(form, 1)) is None


def test_both_interfaces_shapes_are_the_same_grammar(grammars: Grammars) -> None:
    flat = {"type": "json_schema", "name": "x", "schema": SCHEMAS["object"], "strict": None, "description": "y"}
    mask = asyncio.run(grammars.mask(flat, 1, "text.format"))
    assert mask is not None
    assert torch.equal(mask(()), mask_of(grammars, SCHEMAS["object"])(()))


def test_the_mask_depends_on_the_tokens_alone(grammars: Grammars) -> None:
    """Called again, with fewer, with others, by more answers than were promised: as a new one each time."""
    schema = SCHEMAS["object"]
    chance = random.Random(1)
    mask, walks = mask_of(grammars, schema), []
    for _ in range(6):
        tokens: list[int] = []
        for _ in range(12):
            allowed = mask_of(grammars, schema)(tokens)
            rest = allowed.nonzero().flatten().tolist()
            walks.append((list(tokens), allowed))
            tokens.append(chance.choice(rest))
            if tokens[-1] == 1:
                break
    for _ in range(3):
        chance.shuffle(walks)
        for tokens, allowed in walks:
            assert torch.equal(mask(tokens), allowed)


def test_tokens_that_do_not_fit_end_their_answer_alone(grammars: Grammars) -> None:
    mask = mask_of(grammars, SCHEMAS["object"])
    with pytest.raises(PromptError, match="at token 2"):
        mask([5, 5])
    assert mask(()).any()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_before_it_waits(name: str, grammars: Grammars) -> None:
    schema, word = REFUSED[name]
    started = time.process_time()
    with pytest.raises(ApiError) as refused:
        asyncio.run(grammars.mask(asked(schema), 1))
    assert time.process_time() - started < MOST_SECONDS
    error = refused.value
    assert error.status == 400
    assert error.param == "response_format"
    assert word in error.message
    assert "\n" not in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ("json", "response_format"),
        ([], "response_format"),
        ({}, "response_format"),
        ({"type": "grammar"}, "response_format"),
        ({"type": "json_object", "schema": {}}, "response_format.schema"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "name": "x", "json_schema": {"name": "x"}}, "response_format.name"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "x", "strict": 2}}, "response_format.json_schema.strict"),
        ({"type": "json_schema", "json_schema": {"name": "x", "stirct": 1}}, "response_format.json_schema.stirct"),
    ],
)
def test_a_form_that_is_none_is_refused_by_name(form: Any, param: str, grammars: Grammars) -> None:
    with pytest.raises(ApiError) as refused:
        asyncio.run(grammars.mask(form, 1))
    assert (refused.value.status, refused.value.param) == (400, param)


def test_the_largest_schemas_are_compiled_in_time(grammars: Grammars) -> None:
    wide = {"type": "object", "properties": {f"p{i}": {} for i in range(MOST_PARTS - 4)}}
    for schema in (wide, deep(MOST_DEPTH - 1), {"type": "integer", "multipleOf": LARGEST_MULTIPLE - 9}):
        assert mask_of(grammars, schema)(()).any()


def test_a_slow_tokenizer_is_told_so() -> None:
    grammars = Grammars(range(9), [1], 9)
    with pytest.raises(ApiError, match="tokenizer"):
        asyncio.run(grammars.mask({"type": "json_object"}, 1))


def test_no_white_space_between_parts(grammars: Grammars) -> None:
    """One text alone fits a constant: small models would go on writing white space where it may stand."""
    tokenizer = TOKENIZERS["nano"][0]()
    mask, chance = mask_of(grammars, SCHEMAS["const"]), random.Random(0)
    for _ in range(5):
        tokens: list[int] = []
        while tokenizer.eos_token_id not in (allowed := mask(tokens).nonzero().flatten().tolist()):
            tokens.append(chance.choice(allowed))
        assert allowed == [tokenizer.eos_token_id]
        assert tokenizer.decode(tokens) == '{"shape":"circle","at":[1,2.5,null]}'
