"""The position tensors of prompts of which only the ids are left.

In: ids [B, T] that a processor made and somebody has rebuilt since (prompt and answer joined, rows repeated, negative
prompts), and how many pictures come with them. Out: the tensors of `positions.py` as the processor makes them.

Pictures and queries are runs of placeholders, so they are counted. A question begins where the chat template writes it,
and what the template's words become as ids stands in the configuration (`prompt_ids`):

    {system} USER: What?<learnable>             after `USER:`, the first one after the last answer's end
    {system} USER: <image>\\n<image>\\nWhat?<learnable>    after the pictures that stand first, and their newlines

Where a text does not say what opens a turn, as a prompt written by hand may not, a question begins after the last
picture's newline, or where the last answer ends. Ids do not tell all that the processor knew: a system message that
says `USER:` itself is taken for the turn, and an empty text before a turn's first picture is not seen.

Legend: B batch, T positions, R visual tokens a picture, Q queries a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flashsloth.model.configuration_flashsloth import FlashSlothConfig
from flashsloth.model.conversation import USER_TAG, PromptText

Ids = list[int]


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
    rows: list[_Row] = []
    found = 0
    for number, prompt in enumerate(prompts):
        rows.append(_Row(prompt, config, number, sizes[found:]))
        found += max(rows[-1].image_index, default=0)
    if found != len(views):
        raise ValueError(
            f"input_ids holds the placeholders of {found} pictures, but {len(views)} were given: give every picture in "
            f"the order of the prompts"
        )
    layout = {}
    for name in ("image_index", "query_turn", "question_turn"):
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


class _Row:
    """One prompt without its padding, and its three lists."""

    def __init__(self, ids: Ids, config: FlashSlothConfig, number: int, sizes: Sequence[int] = ()) -> None:
        """`sizes`: visual tokens of each picture that may be this row's, in order; beyond them, of one with all views.

        Without any, pictures have all views.
        """
        self._ids, self._config, self._number = ids, config, number
        self.image_index = self._numbered(config.image_token_id, [*sizes, config.num_image_tokens])
        self.query_turn = self._numbered(config.query_token_id, [config.num_query_tokens])
        self.question_turn = [0] * len(ids)
        start = 0
        for turn in range(1, max(self.query_turn, default=0) + 1):
            queries = self.query_turn.index(turn)
            for position in range(self._question(start, queries), queries):
                if not self.image_index[position]:
                    self.question_turn[position] = turn
            start = queries + config.num_query_tokens

    def _numbered(self, token_id: int, sizes: Sequence[int]) -> list[int]:
        """k at the k-th group of positions that are `token_id`, none of which may be apart; the last size repeats."""
        numbers, group, count, size = [], 0, 0, 0  # count of `size` positions of the group so far
        for token in self._ids:
            inside = token == token_id
            if not inside and count < size:
                break
            if inside and count == size:
                size, group, count = sizes[min(group, len(sizes) - 1)], group + 1, 0
            count += inside
            numbers.append(group if inside else 0)
        if count < size:
            raise ValueError(
                f"row {self._number} of input_ids has {count} placeholders {token_id} that stand alone, "
                f"expected groups of {size}: give whole prompts, without truncation"
            )
        return numbers

    def _question(self, start: int, stop: int) -> int:
        """Where the question begins of a turn whose words stand from `start` and whose queries at `stop`."""
        words = self._config.prompt_ids
        if words is None:
            raise ValueError(
                "the configuration does not say how its tokenizer writes a prompt, so input_ids do not tell where a "
                "question begins: set config.prompt_ids = flashsloth.prompt_ids(processor), or use the processor's "
                "position tensors"
            )
        if words["end"] in self._ids[start:stop]:
            start = stop - self._ids[start:stop][::-1].index(words["end"])
        after_user = self._after_user(start, stop, words["user"])
        if after_user is not None:
            return self._after_leading_pictures(after_user, stop, words)
        images = [position for position in range(start, stop) if self.image_index[position]]
        if images:
            return self._past(words["newline"], images[-1] + 1, stop)
        tag = words["tag"]
        return start + len(tag) if self._ids[start : start + len(tag)] == tag else start

    def _after_user(self, start: int, stop: int, spellings: list[Ids]) -> int | None:
        for position in range(start, stop):
            for ids in sorted(spellings, key=len, reverse=True):
                if self._ids[position : min(position + len(ids), stop)] == ids:
                    return position + len(ids)
        return None

    def _after_leading_pictures(self, place: int, stop: int, words: dict[str, Any]) -> int:
        """`place`, or the position after the pictures that stand there and their newlines."""
        first = place + len(words["space"])
        if self._ids[place:first] != words["space"] or first >= stop or not self.image_index[first]:
            return place
        while first < stop and (picture := self.image_index[first]):
            while first < stop and self.image_index[first] == picture:
                first += 1
            first = self._past(words["newline"], first, stop)
        return first

    def _past(self, ids: Ids, place: int, stop: int) -> int:
        """The position after as much of `ids` as stands at `place`."""
        for token in ids:
            if place >= stop or self._ids[place] != token:
                break
            place += 1
        return place


__all__ = ["holds_placeholders", "layout_from_ids", "prompt_ids", "views_of_pictures"]
