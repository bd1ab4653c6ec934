"""YAML that people write (recipes, experiments, questions, values after `--set`), and its mistakes in plain words.

In: a path, or text. Out: what stands there, or one line about why nothing can be read; as a pydantic model, or an error
that lists every mistake of the file, one line each:

    stages.instruction.learning_rate: found -1, expected a number above 0

What is expected is said by the field's own type, so that it is written once. Differs from PyYAML in two things: `1e-3`
is a number, as YAML 1.2 has it; and a key that stands twice in a group is an error, where the first value would be
lost.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

FLOAT_TAG, MERGE_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:merge"
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
"""Numbers that PyYAML takes for text."""
_STARTS = list("-+.0123456789")
Place = tuple[str | int, ...]
"""Keys, and numbers of list items, on the way to a value."""
CONTRADICTIONS = "contradictions"
UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
"""pydantic's names of a key that no field has; the first word is ours."""
PLAIN = {bool: "true or false", str: "text", Path: "text", Any: "anything", type(None): "null"}
"""What a field of these types wants."""
FOUND_LENGTH, KEYS_LISTED = 60, 10
"""Characters of a found value, and keys of a group, that a message shows."""
__all__ = [
    "Expected",
    "Place",
    "Problem",
    "StrictModel",
    "checked",
    "dotted",
    "expectation",
    "found",
    "listed",
    "parse_yaml",
    "read_model",
    "read_yaml",
    "write_yaml",
]


class _Loader(yaml.SafeLoader):
    """PyYAML's, stricter."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # of a name or None, whatever types-PyYAML says
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_TAG:
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        "while reading a group of keys",
                        node.start_mark,
                        f"{key.value!r} is there twice",
                        key.start_mark,
                    )
                seen.add((key.tag, key.value))
        return node


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which puts text that looks like `1e-3` into quotation marks."""


_Loader.add_implicit_resolver(FLOAT_TAG, _EXPONENT, _STARTS)
_Dumper.add_implicit_resolver(FLOAT_TAG, _EXPONENT, _STARTS)


def read_yaml(file: Path, what: str, example: str, error: type[ValueError]) -> Any:
    """What stands in a YAML file.

    Args:
        file: its path.
        what: what it should be, as in "recipe".
        example: where one can be seen.
        error: what is raised.

    Raises:
        error: if there is no such file, or it is not YAML.
    """
    if not file.is_file():
        raise error(f"no {what} at {file}: expected a YAML file, such as {example}")
    try:
        text = file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as cause:
        raise error(f"{file} cannot be read: {' '.join(str(cause).split())}") from cause
    return parse_yaml(text, str(file), error)


def parse_yaml(text: str, where: str, error: type[ValueError]) -> Any:
    """What stands in a text.

    Args:
        text: YAML.
        where: it stands.
        error: what is raised.

    Raises:
        error: if it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as cause:  # ValueError: a date that no calendar has
        raise error(f"{where} is not YAML: {' '.join(str(cause).split())}") from cause


def write_yaml(tree: Any) -> str:
    """As text that :func:`parse_yaml` reads as the same."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class Expected:
    """Says in a field's annotation what the field wants, where its type alone would say it badly."""

    words: str


@dataclass(frozen=True)
class Problem:
    """Values of a group that are right by themselves and contradict one another.

    Attributes:
        place: of the value that is best changed, from the group.
        said: what was found, and what to do.
        also: other values that it is about; where one of them is a mistake by itself, nothing is said here.
    """

    place: Place
    said: str
    also: tuple[Place, ...] = ()


class StrictModel(BaseModel):
    """A group of keys: no unknown ones, no text for numbers, no true for 1, no infinite numbers."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def problems(self) -> Iterator[Problem]:
        """What contradicts what in it."""
        yield from ()

    @classmethod
    def known_keys(cls) -> list[str]:
        """Those that may stand in the file."""
        return list(cls.model_fields)

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> Self:
        known = info.context or ()
        if problems := tuple(problem for problem in self.problems() if problem not in known):
            said = "; ".join(f"{dotted(problem.place)}: {problem.said}" for problem in problems)
            raise PydanticCustomError(CONTRADICTIONS, "{said}", {"said": said, "problems": problems})
        return self


Model = TypeVar("Model", bound=StrictModel)


def dotted(place: Place) -> str:
    """`stages.0.steps`."""
    return ".".join(map(str, place))


def read_model(
    kind: type[Model], tree: Any, error: type[ValueError], file: str, name: Callable[[Place], str] = dotted
) -> Model:
    """A file's values as a model.

    Args:
        kind: of model.
        tree: what YAML read, arranged as the model has it.
        error: what is raised.
        file: what to call the file.
        name: writes a place as the file has it.

    Raises:
        error: listing every mistake.
    """
    model, mistakes = checked(kind, tree)
    if model is None:
        raise error(listed(file, [f"{name(place)}: {said}" if place else said for place, said in mistakes]))
    return model


def checked(kind: type[Model], tree: Any) -> tuple[Model | None, list[tuple[Place, str]]]:
    """A file's values as a model; or None, and every mistake with its place."""
    try:
        return kind.model_validate(tree), []
    except ValidationError as refused:
        mistakes = _mistakes(kind, refused)
    # values that are wrong by themselves, or within a group, hide what contradicts what: look again without them
    broken, known = list(mistakes), list[Problem]()
    for values in (tree, _without(tree, broken)):
        while new := _contradictions(kind, values, known):
            known += [problem for _, problem in new]
            for group, problem in new:
                about = [(*group, *place) for place in (problem.place, *problem.also)]
                if not any(_overlap(one, other) for one in about for other in broken):
                    mistakes.setdefault(about[0], []).append(problem.said)
    return None, [(place, said) for place in mistakes for said in mistakes[place]]


def listed(file: str, mistakes: Sequence[str]) -> str:
    """The mistakes of a file: one in its line, several below one another."""
    if len(mistakes) == 1:
        return f"{file}: {mistakes[0]}"
    return "\n".join([f"{file} has {len(mistakes)} mistakes:", *(f"  {mistake}" for mistake in mistakes)])


def expectation(annotation: Any) -> str:
    """What a field of this type wants, in words: `a number above 0`."""
    if get_origin(annotation) is Annotated:
        base, *rules = get_args(annotation)
        rules = [one for rule in rules for one in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
        if said := [rule.words for rule in rules if isinstance(rule, Expected)]:
            return said[-1]
        if get_origin(base) in (Union, types.UnionType):  # the rules are of each
            return _either([expectation(Annotated[one, *rules]) for one in get_args(base)])
        if base in (int, float):
            return _number(base, rules)
        filled = base is str and any(isinstance(rule, MinLen) for rule in rules)
        return f"{expectation(base)}{' that is not empty' if filled else ''}"
    if get_origin(annotation) in (Union, types.UnionType):
        return _either([expectation(one) for one in get_args(annotation)])
    if get_origin(annotation) is Literal:
        return _either([str(choice) for choice in get_args(annotation)])
    if get_origin(annotation) in (tuple, list):
        return f"a list, each item {expectation(get_args(annotation)[0])}"
    if annotation in (int, float):
        return _number(annotation, [])
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        keys = annotation.known_keys()
        return f"a group of keys: {', '.join(keys[:KEYS_LISTED])}{', ...' if len(keys) > KEYS_LISTED else ''}"
    return PLAIN.get(get_origin(annotation) or annotation, "a group of keys")


def found(value: Any) -> str:
    """A value as the file has it, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys that are no text, a group inside itself
        text = repr(value)
    return text if len(text) <= FOUND_LENGTH else f"{text[: FOUND_LENGTH - 3]}..."


def _number(kind: type, rules: Sequence[Any]) -> str:
    """`a whole number from 1 to 10`."""
    noun = "a whole number" if kind is int else "a number"
    least = next((rule.ge for rule in rules if isinstance(rule, Ge)), None)
    above = next((rule.gt for rule in rules if isinstance(rule, Gt)), None)
    most = next((rule.le for rule in rules if isinstance(rule, Le)), None)
    below = next((rule.lt for rule in rules if isinstance(rule, Lt)), None)
    if least is not None and most is not None:
        return f"{noun} from {least:,} to {most:,}"
    lower = [f"above {above:,}"] if above is not None else [f"of at least {least:,}"] if least is not None else []
    upper = [f"below {below:,}"] if below is not None else [f"at most {most:,}"] if most is not None else []
    return " ".join([noun, " and ".join(lower + upper)]).strip()


def _either(choices: Sequence[str]) -> str:
    """`true, false or auto`."""
    words = [word for choice in sorted(choices, key=lambda one: ":" in one) for word in choice.split(" or ")]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _mistakes(kind: type[StrictModel], error: ValidationError) -> dict[Place, list[str]]:
    """What is wrong at each place."""
    mistakes: dict[Place, list[str]] = {}
    meant: set[Place] = set()
    missing: set[Place] = set()
    for detail in error.errors(include_url=False):
        place, annotation = _field_at(kind, detail["loc"])
        if detail["type"] == CONTRADICTIONS:
            continue
        if detail["type"] in UNKNOWN_KEY:
            key, group = str(detail["loc"][len(place)]), _model_of(annotation)
            known = [] if group is None else group.known_keys()
            near = difflib.get_close_matches(key, known, n=1)
            meant.update((*place, one) for one in near)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            said = f"unknown key, {hint}"
            place = (*place, key)
        elif detail["type"] == "missing":
            missing.add(place)
            said = f"missing, expected {expectation(annotation)}"
        else:
            said = f"found {found(detail['input'])}, expected {expectation(annotation)}"
        mistakes.setdefault(place, [said])
    lists = {place[:-1] for place in mistakes if place and isinstance(place[-1], int)}  # too short without a bad item
    return {place: said for place, said in mistakes.items() if place not in lists | (meant & missing)}


def _contradictions(kind: type[StrictModel], tree: Any, known: Sequence[Problem]) -> list[tuple[Place, Problem]]:
    """Those that are not known yet, each with the place of its group."""
    try:
        kind.model_validate(tree, context=known)
    except ValidationError as refused:
        details = [detail for detail in refused.errors(include_url=False) if detail["type"] == CONTRADICTIONS]
        return [(tuple(detail["loc"]), problem) for detail in details for problem in detail["ctx"]["problems"]]
    return []


def _overlap(one: Place, other: Place) -> bool:
    """Whether one of two places is inside the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _field_at(kind: type[StrictModel], place: Place) -> tuple[Place, Any]:
    """The part of pydantic's location that is a place in the file, and the type there."""
    annotation: Any = kind
    for depth, step in enumerate(place):
        model, items = _model_of(annotation), _items_of(annotation)
        if model is not None and step in model.model_fields:
            field = model.model_fields[str(step)]
            annotation = Annotated[field.annotation, *(field.metadata or [None])]
        elif items is not None and isinstance(step, int):
            annotation = items
        else:
            return place[:depth], annotation
    return place, annotation


def _alternatives(annotation: Any) -> list[Any]:
    """A type without its rules; of several, each."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for choice in get_args(annotation) for one in _alternatives(choice)]
    return [annotation]


def _model_of(annotation: Any) -> type[StrictModel] | None:
    kinds = _alternatives(annotation)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, StrictModel)), None)


def _items_of(annotation: Any) -> Any:
    lists = [kind for kind in _alternatives(annotation) if get_origin(kind) in (list, tuple)]
    return get_args(lists[0])[0] if lists else None


def _without(tree: Any, places: Sequence[Place]) -> Any:
    """A copy without the keys at, or around, these places."""
    tree = copy.deepcopy(tree)
    for place in places:
        while place and isinstance(place[-1], int):
            place = place[:-1]  # without an item, the others would have other numbers
        with suppress(KeyError, IndexError, TypeError):  # there is no such group
            group: Any = reduce(getitem, place[:-1], tree)
            if isinstance(group, dict):
                del group[place[-1]]
    return tree
