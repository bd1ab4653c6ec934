"""Messages and pictures to aligned tensors: every fact about positions is made here, per token.

In: chat messages (`apply_chat_template`) or a written prompt (`__call__`), and pictures.
Out: `input_ids`, `attention_mask` and the position tensors of `positions.py`, all [B, T], and `pixel_values`
[N, W, 3, size, size]; `image_views` int64 [N] too, where pictures have unlike numbers of views.

Placeholders are placed by structure. A user's own `<image>`, `<learnable>` or `</s>` is escaped when the conversation
is written down (`apply_chat_template`), and stays text. In a prompt that is already written, they are placeholders.

Legend: B batch, T longest row, N pictures, W views a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jinja2
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from flashsloth.model.chat_template import IMAGE_TOKEN, QUERY_TOKEN
from flashsloth.model.conversation import (
    ParsedPrompt,
    PromptText,
    QuestionFinder,
    check_conversation,
    pictures_of,
    plain_messages,
    with_texts,
)
from flashsloth.model.image_processing_flashsloth import BATCH_DIMENSIONS, views_of_all
from flashsloth.model.loss import IGNORED_LABEL
from flashsloth.model.padding import cut_rows, pad_rows
from flashsloth.model.processor_options import OPTION_NAMES, FlashSlothProcessorKwargs, TextOptions, read_options
from flashsloth.model.prompt_layout import POSITION_TENSORS, PromptLayout

_COUNTS = f"the number of {IMAGE_TOKEN} tokens in the prompts should be the same as the number of pictures"


class FlashSlothProcessor(ProcessorMixin):
    """Tokenizer and image processor as one, with the published prompt as its chat template.

    Args:
        image_processor: makes the views.
        tokenizer: a fast tokenizer that knows `<image>` and `<learnable>`.
        chat_template: Jinja text (see `chat_template.py`).
        num_image_tokens: visual tokens of a picture with all its views (81 standard, 405 HD).
        num_query_tokens: query tokens a turn.

    Raises:
        ValueError: if the tokenizer lacks a placeholder.
    """

    valid_processor_kwargs = FlashSlothProcessorKwargs

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        num_image_tokens: int = 81,
        num_query_tokens: int = 9,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.num_query_tokens = num_query_tokens
        self.image_token = IMAGE_TOKEN
        self.query_token = QUERY_TOKEN
        self.image_token_id = _token_id(tokenizer, IMAGE_TOKEN)
        self.query_token_id = _token_id(tokenizer, QUERY_TOKEN)
        self._text = PromptText(tokenizer)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @property
    def model_input_names(self) -> list[str]:
        """What the model's forward takes from here with every batch; a mixture of resolutions adds `image_views`."""
        return ["input_ids", "attention_mask", *POSITION_TENSORS, "pixel_values"]

    @property
    def unused_input_names(self) -> list[str]:
        return []

    def __call__(self, images: Any = None, text: str | list[str] | None = None, **options: Any) -> BatchFeature:
        """Turn written prompts and their pictures into tensors.

        Args:
            images: one picture, a flat list for the whole batch in the prompts' order, or a list of lists, one a row.
            text: prompts with `<image>` and `<learnable>` in them.
            **options: transformers' own, flat or in `text_kwargs` and `images_kwargs` (see `processor_options.py`):
                `padding` (default: when there are several rows), `padding_side`, `pad_to_multiple_of`, `max_length`,
                `truncation`, `return_tensors`, `return_mm_token_type_ids` (1 at visual tokens), ...; and
                `return_labels` (-100 where nothing is learned; needs `apply_chat_template`), `return_pixel_values`
                (False: the text alone, pictures are neither opened nor counted), `resolution` ("standard" or "hd", for
                all pictures or a list of one each; default: all views that the model takes).

        Raises:
            ValueError: if pictures and placeholders differ in number, or an option is not known.
        """
        return self._encode([self._text.take_apart(prompt, []) for prompt in _prompts(text)], images, options)

    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]] | list[list[dict[str, Any]]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        return_labels: bool = False,
        return_assistant_tokens_mask: bool = False,
        sanitize_control_tokens: bool = True,
        processor_kwargs: dict[str, Any] | None = None,
        **template_variables: Any,
    ) -> Any:
        """Write a conversation (or several) down; with `tokenize`, straight to tensors.

        Args:
            conversation: messages; a picture is `{"type": "image", "image": PIL, path, bytes or data URL}`, or OpenAI's
                `{"type": "image_url", ...}`.
            chat_template: another template for this call.
            return_labels: add `labels`: the tokens of the template's `{% generation %}` parts, -100 elsewhere.
            sanitize_control_tokens: keep a user's own `<image>`, `<learnable>`, `</s>` text. Switch off only for text
                that was written for the model.
            processor_kwargs: options of :meth:`__call__`, and `images` where the messages say only where they stand;
                options given beside them count too.
            **template_variables: handed to the template.

        Returns:
            The prompt (str or list), its ids, or with `return_dict` everything.
        """
        options = dict(processor_kwargs or {})
        options.update({name: template_variables.pop(name) for name in OPTION_NAMES & set(template_variables)})
        pictures = options.pop("images", None)
        batched = bool(conversation) and isinstance(conversation[0], (list, tuple))
        conversations: list[Any] = list(conversation) if batched else [conversation]
        conversations = [plain_messages(chat) for chat in conversations]
        wants_spans = tokenize and (return_labels or return_assistant_tokens_mask)
        texts, spans = self._write(
            conversations,
            self._text.escape if sanitize_control_tokens else str,
            chat_template or self.chat_template,
            return_assistant_tokens_mask=wants_spans,
            continue_final_message=continue_final_message,
            add_generation_prompt=add_generation_prompt,
            **{**self.tokenizer.special_tokens_map, **template_variables},
        )
        if not tokenize:
            return texts if batched else texts[0]
        answers = spans if wants_spans else [[] for _ in texts]
        prompts = [self._text.take_apart(text, found) for text, found in zip(texts, answers, strict=True)]
        if pictures is None and options.get("return_pixel_values", True):
            opened = [pictures_of(chat) for chat in conversations]
            pictures = opened if any(opened) else None
        if return_tensors is not None:
            options["return_tensors"] = return_tensors
        options["return_labels"] = wants_spans
        encoded = self._encode(prompts, pictures, options)
        if return_assistant_tokens_mask:
            encoded["assistant_masks"] = _assistant_masks(encoded["labels"])
            if not return_labels:
                del encoded["labels"]
        return encoded if return_dict else encoded["input_ids"]

    def write_prompt(
        self, conversation: list[dict[str, Any]], *, add_generation_prompt: bool = True, resolution: str | None = None
    ) -> dict[str, list[int]]:
        """One prompt's ids and marks as :meth:`apply_chat_template` makes them, for answering: no options to check.

        Args:
            conversation: messages; of pictures only their places count.
            add_generation_prompt: whether it ends where an answer starts.
            resolution: of all pictures.
        """
        [text], _ = self._write(
            [conversation],
            self._text.escape,
            self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self.tokenizer.special_tokens_map,
        )
        prompt = self._text.take_apart(text, [])
        pictures = sum(piece.token_id == self.image_token_id for piece in prompt.pieces)
        [row] = self._rows([prompt], views_of_all(resolution, pictures, self.image_processor.image_grid), TextOptions())
        return row

    def _write(
        self, conversations: list[Any], escape: Callable[[str], str], template: str | None, **settings: Any
    ) -> tuple[list[str], list]:
        """The conversations as texts, and the (start, end) of the answers in each."""
        if template is None:
            raise ValueError("there is no chat template: pass chat_template, see flashsloth.model.chat_template")
        for chat in conversations:
            check_conversation(chat)
        try:
            texts = [with_texts(chat, escape) for chat in conversations]
            return render_jinja_template(texts, chat_template=template, **settings)
        except jinja2.TemplateError as error:
            raise ValueError(f"the conversation does not fit the chat template: {error}") from error

    def _encode(self, prompts: list[ParsedPrompt], images: Any, options: dict[str, Any]) -> BatchFeature:
        """Prompts and pictures to padded tensors."""
        settings, image_options = read_options(self, options)
        wanted = [sum(p.token_id == self.image_token_id for p in prompt.pieces) for prompt in prompts]
        pictures = _flat_pictures(images, wanted) if settings.return_pixel_values else []
        views = views_of_all(image_options.get("resolution"), sum(wanted), self.image_processor.image_grid)
        rows = self._rows(prompts, views, settings)
        cut_rows(rows, settings, self.tokenizer.truncation_side)
        padded = pad_rows(rows, settings, self.tokenizer)
        if pictures:
            padded.update(self.image_processor(images=pictures, **image_options))  # [N, W, 3, size, size]
        encoded = BatchFeature(padded, tensor_type=settings.return_tensors)
        if settings.return_text_replacement_offsets:
            image_tokens = iter([self._tokens_of(count) for count in views])
            encoded["text_replacement_offsets"] = [self._replacements(prompt, image_tokens) for prompt in prompts]
        return encoded

    def replace_image_token(self, image_inputs: dict | None = None, image_idx: int = 0, **kwargs: Any) -> str:
        """What stands in the expanded prompt for a picture, whichever it is."""
        return self.image_token * self.num_image_tokens

    def _get_num_multimodal_tokens(self, image_sizes: list[Any] | None = None, **kwargs: Any) -> MultiModalData:
        """Visual tokens and views of pictures of these sizes, for engines that plan ahead: always as many."""
        count = len(image_sizes or ())
        return MultiModalData(
            num_image_tokens=[self.num_image_tokens] * count,
            num_image_patches=[self.image_processor.num_views] * count,
        )

    def _tokens_of(self, views: int) -> int:
        """Visual tokens of a picture with so many views."""
        return self.num_image_tokens // self.image_processor.num_views * views

    def _replacements(self, prompt: ParsedPrompt, image_tokens: Iterator[int]) -> list[dict[str, Any]]:
        """Where each picture stands, in characters of the prompt (`span`) and of the expanded prompt (`new_span`)."""
        found: list[dict[str, Any]] = []
        place = 0
        for piece in prompt.pieces:
            written = piece.text
            if piece.token_id == self.query_token_id:
                written = self.query_token * self.num_query_tokens
            elif piece.token_id == self.image_token_id:
                written = self.image_token * next(image_tokens)
                start = piece.origin[0]
                spans = {"span": (start, start + len(piece.text)), "new_span": (place, place + len(written))}
                found.append({"type": "image", **spans, "text": piece.text, "replacement": written})
            place += len(written)
        return found

    def _tokenize(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """Ids and the end character of each token, for every text; special tokens in the text stay text."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        ends = [[end for _, end in offsets] for offsets in encoded["offset_mapping"]]
        return list(zip(encoded["input_ids"], ends, strict=True))

    def _rows(self, prompts: list[ParsedPrompt], views: list[int], settings: TextOptions) -> list[dict[str, list[int]]]:
        """Each prompt's ids and marks; `views` of each picture of all prompts in turn."""
        texts = [piece.text for prompt in prompts for piece in prompt.pieces if piece.token_id is None]
        tokenized = iter(self._tokenize(texts))
        image_tokens = iter([self._tokens_of(count) for count in views])
        return [self._row(prompt, tokenized, image_tokens, settings) for prompt in prompts]

    def _row(
        self, prompt: ParsedPrompt, tokenized: Any, image_tokens: Iterator[int], settings: TextOptions
    ) -> dict[str, list[int]]:
        """One prompt's ids and marks, placeholders written out; `image_tokens` of each picture of the batch in turn."""
        layout, labels = PromptLayout(self), list[int]()
        question = QuestionFinder(prompt.question_starts)
        for piece in prompt.pieces:
            first = len(layout.input_ids)
            if piece.token_id is None:
                ids, ends = next(tokenized)
                question.text(piece, ends, first)
                layout.add_text(ids)
                for token, start, end in zip(ids, [0, *ends[:-1]], ends, strict=True):
                    spot = piece.origin[max(min(start, end - 1), 0)]
                    labels.append(token if _inside(spot, prompt.answers) else IGNORED_LABEL)
                continue
            is_image = piece.token_id == self.image_token_id
            if is_image:
                layout.add_picture(next(image_tokens))
            elif piece.token_id == self.query_token_id:
                layout.add_queries(question.end(first))
            else:
                layout.add_text([piece.token_id])
            place = len(layout.input_ids)
            question.structure(place, is_image=is_image)
            learned = _inside(piece.origin[0], prompt.answers)
            labels += [piece.token_id if learned else IGNORED_LABEL] * (place - first)
        row = layout.lists()
        if settings.return_labels:
            row["labels"] = labels
        if settings.return_mm_token_type_ids:
            row["mm_token_type_ids"] = [int(image > 0) for image in row["image_index"]]
        if settings.return_attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        return row


def _token_id(tokenizer: Any, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer has no {token}: add it as a special token, as `flashsloth new` does")
    return token_id


def _prompts(text: Any) -> list[str]:
    """The written prompts, one or several."""
    if text is None:
        raise ValueError("text is missing: give the prompt; a picture stands where it says <image>")
    prompts = list(text) if isinstance(text, (list, tuple)) else [text]
    if not prompts:
        raise ValueError("text is an empty list, expected at least one prompt")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"text holds {type(prompt).__name__}, expected a prompt or a list of prompts")
    return prompts


def _flat_pictures(images: Any, wanted: list[int]) -> list[Any]:
    """All pictures in the prompts' order, counted against the placeholders."""
    if images is None:
        flat: list[Any] = []
        counts = None
    elif not isinstance(images, (list, tuple)):
        flat, counts = list(images) if getattr(images, "ndim", 0) == BATCH_DIMENSIONS else [images], None
    elif any(isinstance(row, (list, tuple)) for row in images):
        rows = [list(row) if isinstance(row, (list, tuple)) else [row] for row in images]
        flat, counts = [picture for row in rows for picture in row], [len(row) for row in rows]
    else:
        flat, counts = list(images), None
    if counts is not None and counts != wanted:
        raise ValueError(f"{_COUNTS}: found {wanted}, row by row, but {counts} pictures were given")
    if len(flat) != sum(wanted):
        raise ValueError(f"{_COUNTS}: found {sum(wanted)}, but {len(flat)} pictures were given")
    return flat


def _inside(position: int, spans: list[tuple[int, int]]) -> bool:
    return any(start <= position < end for start, end in spans)


def _assistant_masks(labels: Any) -> Any:
    if hasattr(labels, "ne"):
        return labels.ne(IGNORED_LABEL).long()
    return [[int(label != IGNORED_LABEL) for label in row] for row in labels]


__all__ = ["IGNORED_LABEL", "FlashSlothProcessor"]
