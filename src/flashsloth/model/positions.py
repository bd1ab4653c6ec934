"""From the processor's position tensors to the indices the model gathers with.

In: integer tensors [B, T] that the processor made. Out: which pictures stand where, and one
:class:`~flashsloth.model.embedded_query.EmbeddedQueryInputs` for the pass. Nothing here guesses: what does not fit
raises a ValueError that says what was found and what was expected.

The tensors, all int64 [B, T], zero where there is nothing:
    image_index     j at the visual tokens of the row's j-th picture
    query_turn      k at the query tokens of the row's k-th turn
    question_turn   k at the question of the row's k-th turn
and, only where several samples are packed into a row (training), int64 [B, T]:
    sample_index    s at the row's s-th sample, from 1, ascending; its turns see that sample's pictures alone
and int64 [N], only where pictures stand in an earlier, cached pass:
    image_row       the batch row each of the N pictures belongs to, ascending

Drawn for one row, one picture, one turn (R = 3 visual tokens, Q = 2 queries):

    text            A   chat  <i>  <i>  <i>  \\n  What  ?  <q>  <q>  ASSIST  :
    image_index     0    0     1    1    1   0    0    0   0    0     0     0
    question_turn   0    0     0    0    0   0    1    1   0    0     0     0
    query_turn      0    0     0    0    0   0    0    0   1    1     0     0

While a pass is exported (`torch.export`), nothing may hang on what a tensor holds: checks are left out then, and shapes
are those of the most that may be there. What is computed is the same. Sizes are `shape[0]` and not `len`, which would
make the exported program one of that very batch.

Legend: B batch, T positions of this pass, N pictures, S samples (a row each, where none are packed), M most pictures of
a sample, n turns, Q queries a turn, L longest question, P rows of F a picture, V vision width.
"""

from __future__ import annotations

import torch
from torch.compiler import is_exporting

from flashsloth.model.embedded_query import EmbeddedQueryInputs


def picture_ordinals(image_row: torch.Tensor) -> torch.Tensor:
    """Number each row's pictures from one, in order: int64 [N] of `image_row` int64 [N]."""
    if not is_exporting() and (image_row[1:] < image_row[:-1]).any():
        raise ValueError(f"image_row must ascend, found {image_row.tolist()}: give pictures in the order of their rows")
    same_row_before = (image_row[:, None] == image_row[None, :]).tril()  # [N, N]
    return same_row_before.sum(dim=1)


def check_placeholders(input_ids: torch.Tensor, token_id: int, name: str, marks: torch.Tensor | None) -> None:
    """Every placeholder id needs its mark, and every mark its placeholder.

    Raises:
        ValueError: if position tensor `name`, int64 [B, T], does not mark exactly the ids that are `token_id`.
    """
    is_token = input_ids == token_id
    if is_exporting():
        return
    if marks is None:
        if bool(is_token.any()):
            raise ValueError(f"input_ids holds placeholder {token_id}, but {name} was not given: use the processor")
    elif marks.shape != input_ids.shape or bool(((marks > 0) != is_token).any()):
        raise ValueError(
            f"{name} {tuple(marks.shape)} does not mark exactly the {int(is_token.sum())} placeholders {token_id} of "
            f"input_ids {tuple(input_ids.shape)}: use the processor's tensors together"
        )


def positions_without_padding(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Positions counted over real tokens: int64 [B, T], or None where the language model's own default is right."""
    if attention_mask is None or attention_mask.ndim != 2 or (not is_exporting() and bool(attention_mask.all())):
        return None
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -length:]


def place_visual_tokens(
    inputs_embeds: torch.Tensor,
    visual_tokens: torch.Tensor,
    image_row: torch.Tensor,
    slots: torch.Tensor,
    token_counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Put every picture's visual tokens where its placeholders stand.

    Args:
        inputs_embeds: float [B, T, D].
        visual_tokens: float [N, R, D].
        image_row: int64 [N].
        slots: bool [N, T], from :func:`visual_slots`.
        token_counts: int64 [N], how many of R are each picture's, the first ones; None: all.
    """
    if is_exporting():  # pictures and their positions come in one order, and none is cached
        rows = torch.arange(inputs_embeds.shape[0], device=slots.device)
        marked = ((image_row[:, None] == rows)[:, :, None] & slots[:, None]).any(dim=0)  # [B, T]
        return inputs_embeds.masked_scatter(marked[:, :, None], visual_tokens.to(inputs_embeds))
    picture, position = slots.nonzero(as_tuple=True)  # [k*R] each, pictures and positions in order
    present = slots.any(dim=1)  # pictures of this pass; the others' keys and values are cached
    tokens = visual_tokens[present]  # [k, R, D]
    if token_counts is None:
        tokens = tokens.flatten(0, 1)  # [k*R, D]
    else:
        tokens = tokens[first_ones(token_counts[present], tokens.shape[1])]
    tokens = tokens.to(inputs_embeds)
    return inputs_embeds.index_put((image_row[picture], position), tokens)


def first_ones(counts: torch.Tensor, length: int) -> torch.Tensor:
    """The first `counts` int64 [N] of `length` places: bool [N, length]."""
    return torch.arange(length, device=counts.device) < counts[:, None]


def rows_of_pictures(pictures: int, image_row: torch.Tensor | None, image_index: torch.Tensor) -> torch.Tensor:
    """The batch row of each picture, as given, or as `image_index` counts them: int64 [N].

    Raises:
        ValueError: if the pictures given are not those that `image_index` counts, or `image_row` has another length.
    """
    if image_row is None:
        counts = image_index.amax(dim=1)  # pictures are numbered from one in every row
        if not is_exporting() and int(counts.sum()) != pictures:
            raise ValueError(
                f"image_index counts {counts.tolist()} pictures in its rows, but {pictures} were given: give every "
                f"picture in the order of the prompts, or image_row where some stand in an earlier, cached pass"
            )
        rows = torch.arange(counts.shape[0], device=counts.device)
        return torch.repeat_interleave(rows, counts, output_size=pictures)
    if image_row.shape != (pictures,):
        raise ValueError(f"image_row has shape {tuple(image_row.shape)}, expected [{pictures}], one row a picture")
    return image_row


def visual_slots(
    image_index: torch.Tensor, image_row: torch.Tensor, tokens_per_image: int | torch.Tensor
) -> torch.Tensor:
    """Which positions hold which picture's visual tokens.

    Args:
        image_index: int64 [B, T].
        image_row: int64 [N].
        tokens_per_image: visual tokens a picture; int64 [N] where pictures have unlike numbers of views.

    Returns:
        bool [N, T]: the positions, in its row, of each picture's visual tokens; no position where the picture stands in
        an earlier pass, whose keys and values are cached.

    Raises:
        ValueError: if a picture has some, but not all, of its positions, or a position names a picture not given.
    """
    if not is_exporting():
        outside = image_row[(image_row < 0) | (image_row >= image_index.shape[0])]
        if outside.numel():
            raise ValueError(f"image_row names row {int(outside[0])} of a batch of {image_index.shape[0]}")
    slots = image_index[image_row] == picture_ordinals(image_row)[:, None]  # [N, T]
    if not is_exporting():
        _check_slots(slots, image_index, image_row, tokens_per_image)
    return slots


def _check_slots(
    slots: torch.Tensor, image_index: torch.Tensor, image_row: torch.Tensor, tokens_per_image: int | torch.Tensor
) -> None:
    """Every picture has all of its positions or none, and every position a picture."""
    counts = slots.sum(dim=1)
    wrong = (counts != 0) & (counts != tokens_per_image)
    if wrong.any():
        picture = int(wrong.nonzero()[0])
        expected = tokens_per_image if isinstance(tokens_per_image, int) else int(tokens_per_image[picture])
        raise ValueError(
            f"picture {picture} of the batch has {int(counts[picture])} positions in image_index, "
            f"expected {expected}: make the inputs with the model's own processor, without truncation"
        )
    if int(slots.sum()) != int((image_index > 0).sum()):
        raise ValueError(
            f"image_index holds {int((image_index > 0).sum())} visual positions, but the {image_row.numel()} pictures "
            f"given fill {int(slots.sum())}: every picture in the prompt needs its pixels, in order"
        )


def query_positions(query_turn: torch.Tensor, num_query_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the turns of a pass by their query tokens.

    Args:
        query_turn: int64 [B, T].
        num_query_tokens: Q.

    Returns:
        (row int64 [n], position int64 [n, Q]), turns in order.

    Raises:
        ValueError: if the query positions are not Q a turn.
    """
    row, position = query_turn.nonzero(as_tuple=True)  # [n*Q] each, row-major
    if is_exporting():
        torch._check(row.numel() % num_query_tokens == 0)
        row, position = row.view(-1, num_query_tokens), position.view(-1, num_query_tokens)
        return row[:, 0], position
    if row.numel() % num_query_tokens:
        raise ValueError(f"query_turn marks {row.numel()} positions, expected a multiple of {num_query_tokens}")
    row, position = row.view(-1, num_query_tokens), position.view(-1, num_query_tokens)  # [n, Q]
    turn = query_turn[row, position]  # [n, Q]
    if (row != row[:, :1]).any() or (turn != turn[:, :1]).any():
        raise ValueError(
            f"query_turn does not mark {num_query_tokens} positions for every turn: make the inputs with the model's "
            f"own processor, without truncation"
        )
    return row[:, 0], position


def embedded_query_inputs(
    query_turn: torch.Tensor,
    question_turn: torch.Tensor,
    features: torch.Tensor,
    image_row: torch.Tensor,
    slots: torch.Tensor,
    num_query_tokens: int,
    sample_index: torch.Tensor | None = None,
    patch_counts: torch.Tensor | None = None,
) -> EmbeddedQueryInputs | None:
    """Gather everything EmbQ needs in this pass; None if the pass holds no turn.

    Args:
        query_turn, question_turn: int64 [B, T].
        features: float [N, P, V], F of each picture.
        image_row: int64 [N].
        slots: bool [N, T], from :func:`visual_slots`.
        num_query_tokens: Q.
        sample_index: int64 [B, T], where several samples share a row.
        patch_counts: int64 [N], how many of P are each picture's, the first ones; None: all.
    """
    batch, length = query_turn.shape
    row, position = query_positions(query_turn, num_query_tokens)  # [n], [n, Q]
    if not is_exporting() and row.numel() == 0:
        return None
    turn = query_turn[row, position[:, 0]]  # [n]
    in_question = question_turn[row] == turn[:, None]  # [n, T]
    longest = length if is_exporting() else max(1, int(in_question.sum(dim=1).max()))
    # A stable sort brings the question's positions to the front, in their order.
    order = in_question.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]  # [n, L]
    samples, image_sample, turn_sample = batch, image_row, row
    if sample_index is not None:
        samples, image_sample, turn_sample = _packed_samples(sample_index, image_row, slots, row, position[:, 0])
    visible = _visible_pictures(turn_sample, position[:, 0], image_sample, slots)  # [n, N]
    per_sample, feature_mask = _features_per_sample(features, image_sample, samples, turn_sample, visible, patch_counts)
    return EmbeddedQueryInputs(
        query_index=row[:, None] * length + position,
        question_index=row[:, None] * length + order,
        question_mask=in_question.gather(1, order),
        features=per_sample,
        feature_row=turn_sample,
        feature_mask=feature_mask,
        picture_rows=features.shape[1],
    )


def _packed_samples(
    sample_index: torch.Tensor, image_row: torch.Tensor, slots: torch.Tensor, row: torch.Tensor, first: torch.Tensor
) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Number the batch's samples that have a picture or a turn, row by row: (how many, of each picture, of each turn).

    Args:
        sample_index: int64 [B, T].
        image_row, slots: int64 [N], bool [N, T].
        row, first: int64 [n], each turn's row and the position of its first query.
    """
    most = int(sample_index.max()) + 1
    image = image_row * most + sample_index[image_row, slots.to(torch.uint8).argmax(dim=1)]  # [N]
    turn = row * most + sample_index[row, first]  # [n]
    numbers, number = torch.unique(torch.cat([image, turn]), return_inverse=True)  # sorted, so pictures still ascend
    return len(numbers), number[: len(image)], number[len(image) :]


def _visible_pictures(
    turn_sample: torch.Tensor, first_query: torch.Tensor, image_sample: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """Bool [n, N]: pictures of the turn's own sample not standing after its queries (earlier passes come before)."""
    place = torch.arange(slots.shape[1], device=slots.device)
    last_slot = (slots * (place + 1)).amax(dim=1) - 1 if slots.numel() else slots.new_zeros(slots.shape[0]).long()
    return (turn_sample[:, None] == image_sample[None, :]) & (last_slot[None, :] < first_query[:, None])


def _features_per_sample(
    features: torch.Tensor,
    image_sample: torch.Tensor,
    samples: int,
    turn_sample: torch.Tensor,
    visible: torch.Tensor,
    patch_counts: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Each sample's pictures side by side: (float [S, M*P, V], bool [n, M*P]; None if every turn sees everything)."""
    ordinal = picture_ordinals(image_sample)  # [N]
    pictures, patches, width = features.shape
    most = pictures if is_exporting() else int(ordinal.max())
    if not is_exporting() and pictures == samples * most:
        per_sample = features.reshape(samples, most * patches, width)
    else:
        padded = features.new_zeros(samples, most, patches, width)
        per_sample = padded.index_put((image_sample, ordinal - 1), features).flatten(1, 2)
    places = torch.arange(1, most + 1, device=features.device)
    seen = (visible[:, :, None] & (ordinal[:, None] == places)).any(dim=1)  # [n, M]
    if patch_counts is None:
        if not is_exporting() and bool(seen.all()):
            return per_sample, None
        return per_sample, seen.repeat_interleave(patches, dim=1)  # [n, M*P]
    counts = patch_counts.new_zeros(samples, most).index_put((image_sample, ordinal - 1), patch_counts)  # [S, M]
    real = first_ones(counts.flatten(), patches).view(samples, most, patches)
    return per_sample, (real[turn_sample] & seen[:, :, None]).flatten(1)  # [n, M*P]
