"""Where pictures, questions and queries stand in a prompt: the one place that makes position tensors.

In: a prompt's parts from left to right, text, pictures and queries. Out: a :class:`PromptLayout`, its ids with the
tensors of `positions.py` as lists. The processor writes prompts so, and whoever needs one of a given size.

Or in: ids [B, T] that a processor made and somebody has rebuilt since (prompt and answer joined, rows repeated,
negative prompts), and how many pictures come with them. Out: the same tensors (:func:`layout_from_ids`). Pictures and
queries are runs of placeholders, so they are counted. A question begins where the chat template writes it, and what the
template's words become as ids stands in the configuration (`prompt_ids`):

    {system} USER: What?<learnable>             after `USER:`, the first one after the last answer's end
    {system} USER: <image>\\n<image>\\nWhat?<learnable>    after the pictures that stand first, and their newlines

Where a text does not say what opens a turn, as a prompt written by hand may not, a question begins after the last
picture's newline, or where the last answer ends. Ids do not tell all that the processor knew: a system message that
says `USER:` itself is taken for the turn, and an empty text before a turn's first picture is not seen.

Legend: B batch, T positions, R visual tokens a picture, Q queries a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Protocol

import torch

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.conversation import USER_TAG, PromptText

POSITION_TENSORS = ("image_index", "query_turn", "question_turn")
Ids = list[int]


class Placeholders(Protocol):
    """What a layout must know of a model or its processor: the ids of placeholders, and Q."""

    image_token_id: int
    query_token_id: int
    num_query_tokens: int


class PromptLayout:
    """One prompt, written from left to right: four lists of one length.

    Attributes:
        input_ids: placeholders included.
        image_index, query_turn, question_turn: as in `positions.py`.
        pictures, turns: how many there are so far.
    """

    def __init__(self, placeholders: Placeholders) -> None:
        self._placeholders = placeholders
        self.input_ids: Ids = []
        self.image_index: list[int] = []
        self.query_turn: list[int] = []
        self.question_turn: list[int] = []
        self.pictures = self.turns = 0

    def add_text(self, ids: Ids) -> None:
        self._add(ids, image=0, query=0)

    def add_picture(self, tokens: int) -> None:
        """The next picture, of so many visual tokens."""
        self.pictures += 1
        self._add([self._placeholders.image_token_id] * tokens, image=self.pictures, query=0)

    def add_queries(self, question_start: int) -> None:
        """The next turn's queries; its question is what stands from `question_start` to here, pictures left out."""
        self.turns += 1
        for place in range(question_start, len(self.input_ids)):
            if not self.image_index[place]:
                self.question_turn[place] = self.turns
        self._add([self._placeholders.query_token_id] * self._placeholders.num_query_tokens, image=0, query=self.turns)

    def _add(self, ids: Ids, image: int, query: int) -> None:
        self.input_ids += ids
        self.image_index += [image] * len(ids)
        self.query_turn += [query] * len(ids)
        self.question_turn += [0] * len(ids)

    def lists(self) -> dict[str, list[int]]:
        """All four by their names."""
        return {name: getattr(self, name) for name in ("input_ids", *POSITION_TENSORS)}


def prompt_ids(processor: Any) -> dict[str, Any]:
    """What the fixed words of a processor's chat template become, for `FlashSlothConfig.prompt_ids`.

    Returns:
        `user`: what opens a turn, at a text's beginning, and after a space; nothing where the template has no marks.
        `space`: what follows it before a picture. `newline`: what follows a picture. `end`: the special token after
        which a later turn opens, or None. `tag`: what opens a turn in a template without marks.

    Raises:
        ValueError: if there is no template, or it cannot write two turns.
    """
    tokenizer = processor.tokenizer

    def between(text: str, start: int, stop: int) -> Ids:
        """The ids of the tokens of `text` that end after character `start`, and by `stop`."""
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [token for token, (_, end) in pairs if start < end <= stop or end == start == 0]

    alone, after_picture = _opening(processor, pictures=0), _opening(processor, pictures=1)
    if alone is None or after_picture is None:
        tag = between(f"{USER_TAG} x", 0, len(USER_TAG))
        return {"user": [], "space": [], "newline": between("\nx", 0, 1), "end": tokenizer.eos_token_id, "tag": tag}
    word, end = alone
    head, newline = after_picture
    length = len(word)
    return {
        "user": [between(f"{word} x", 0, length), between(f"x {word} x", 1, length + 2)] if word else [[]],
        "space": between(head, length, len(head)),
        "newline": between(f"{newline}x", 0, len(newline)) if newline else [],
        "end": end,
        "tag": [],
    }


def _opening(processor: Any, pictures: int) -> tuple[str, Any] | None:
    """What a template writes before the question of a second turn; None where it marks no question.

    Returns:
        Without pictures, the words, and the special token before them. With one, the words before it, and after it.
    """
    question = [*[{"type": "image"}] * pictures, {"type": "text", "text": "x"}]
    chat = [("user", "x"), ("assistant", "x"), ("user", question)]
    text = processor.apply_chat_template([{"role": role, "content": content} for role, content in chat])
    prompt = PromptText(processor.tokenizer).take_apart(text, [])
    if len(prompt.question_starts) < len(chat) - 1:
        return None
    mark = prompt.question_starts[1]
    before = [piece for piece in prompt.pieces if piece.origin[0] < mark]
    last = before.pop() if before[-1].token_id is None else None
    words = "" if last is None else last.text[: sum(place < mark for place in last.origin)]
    if not pictures:
        return words, before[-1].token_id if before else None
    head = before[-2] if len(before) > 1 else None
    return ("" if head is None or head.token_id is not None else head.text), words


def layout_from_ids(
    input_ids: torch.Tensor,
    views: Sequence[int],
    config: FlashSlothConfig,
    attention_mask: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Where pictures, questions and queries stand.

    Args:
        input_ids: int64 [B, T], whole prompts, placeholders included.
        views: how many views each picture has that is given, those of all rows in order.
        config: the model's.
        attention_mask: [B, T], 0 at padding, which is not looked at; None, or of another shape: there is none.

    Returns:
        `image_index`, `query_turn` and `question_turn`, int64 [B, T].

    Raises:
        ValueError: if the placeholders are not those of whole pictures and turns, or not of the pictures given; or if
            the configuration does not say how its tokenizer writes a prompt.
    """
    for count in views:
        if count not in config.view_counts:
            raise ValueError(
                f"a picture has {count} views, expected {' or '.join(map(str, config.view_counts))}: use this model's "
                f"own processor"
            )
    sizes = [count * config.num_windows for count in views]
    masked = attention_mask is not None and attention_mask.shape == input_ids.shape
    real = attention_mask.bool() if masked and attention_mask is not None else torch.ones_like(input_ids).bool()
    prompts = [ids[kept].tolist() for ids, kept in zip(input_ids, real, strict=True)]
    rows: list[PromptLayout] = []
    found = 0
    for number, prompt in enumerate(prompts):
        rows.append(_row_from_ids(prompt, config, number, sizes[found:]))
        found += rows[-1].pictures
    if found != len(views):
        raise ValueError(
            f"input_ids holds the placeholders of {found} pictures, but {len(views)} were given: give every picture in "
            f"the order of the prompts"
        )
    layout = {}
    for name in POSITION_TENSORS:
        marks = [mark for row in rows for mark in getattr(row, name)]
        layout[name] = torch.zeros_like(input_ids).masked_scatter(real, input_ids.new_tensor(marks))
    return layout


def holds_placeholders(input_ids: torch.Tensor, config: FlashSlothConfig) -> bool:
    """Whether any of `input_ids` stands for a picture or a query."""
    return bool(((input_ids == config.image_token_id) | (input_ids == config.query_token_id)).any())


def views_of_pictures(
    pixel_values: torch.Tensor | None,
    image_views: torch.Tensor | None,
    outputs: dict[str, Any] | None,
    config: FlashSlothConfig,
) -> list[int]:
    """How many views each picture has that a model is given, raw or looked at."""
    looked_at = outputs.get("image") if outputs else None
    if looked_at is not None:
        image_views = looked_at.image_views
        pictures, patches = looked_at.last_hidden_state.shape[:2]
        views = patches // config.num_patches
    elif pixel_values is None:
        return []
    else:
        pictures, views = len(pixel_values), pixel_values.shape[1] if pixel_values.ndim == 5 else 1
    return [views] * pictures if image_views is None else image_views.tolist()


def _row_from_ids(ids: Ids, config: FlashSlothConfig, number: int, sizes: Sequence[int]) -> PromptLayout:
    """One prompt without its padding; `sizes`: visual tokens of each picture that may be this row's, in order."""
    row = PromptLayout(config)
    counts = {config.image_token_id: config.num_image_tokens, config.query_token_id: config.num_query_tokens}
    place = turn_start = 0
    while place < len(ids):
        token = ids[place]
        if token not in counts:
            stop = next((k for k in range(place, len(ids)) if ids[k] in counts), len(ids))
            row.add_text(ids[place:stop])
            place = stop
            continue
        is_image = token == config.image_token_id
        count = sizes[row.pictures] if is_image and row.pictures < len(sizes) else counts[token]
        group = ids[place : place + count]
        found = next((k for k, other in enumerate(group) if other != token), len(group))
        if found < count:
            raise ValueError(
                f"row {number} of input_ids has {found} placeholders {token} that stand alone, "
                f"expected groups of {count}: give whole prompts, without truncation"
            )
        if is_image:
            row.add_picture(count)
        else:
            row.add_queries(_question_start(row, config.prompt_ids, turn_start))
            turn_start = place + count
        place += count
    return row


def _question_start(row: PromptLayout, words: dict[str, Any] | None, start: int) -> int:
    """Where the question begins of a turn whose words stand from `start` to the end of what is laid out so far."""
    if words is None:
        raise ValueError(
            "the configuration does not say how its tokenizer writes a prompt, so input_ids do not tell where a "
            "question begins: set config.prompt_ids = flashsloth.prompt_ids(processor), or use the processor's "
            "position tensors"
        )
    ids = row.input_ids
    if words["end"] in ids[start:]:
        start = len(ids) - ids[start:][::-1].index(words["end"])
    for place in range(start, len(ids)):
        for spelling in sorted(words["user"], key=len, reverse=True):
            if ids[place : place + len(spelling)] == spelling:
                return _after_leading_pictures(row, place + len(spelling), words)
    images = [place for place in range(start, len(ids)) if row.image_index[place]]
    if images:
        return _past(words["newline"], ids, images[-1] + 1)
    tag = words["tag"]
    return start + len(tag) if ids[start : start + len(tag)] == tag else start


def _after_leading_pictures(row: PromptLayout, place: int, words: dict[str, Any]) -> int:
    """`place`, or the position after the pictures that stand there and their newlines."""
    first, length = place + len(words["space"]), len(row.input_ids)
    if row.input_ids[place:first] != words["space"] or first >= length or not row.image_index[first]:
        return place
    while first < length and (picture := row.image_index[first]):
        while first < length and row.image_index[first] == picture:
            first += 1
        first = _past(words["newline"], row.input_ids, first)
    return first


def _past(word: Ids, ids: Ids, place: int) -> int:
    """The position after as much of `word` as stands at `place`."""
    return place + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(word, ids[place:], strict=False)))
