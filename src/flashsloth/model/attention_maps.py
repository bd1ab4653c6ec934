"""Where a model looked: the weights of SAP and of EmbQ, kept of the passes that are run inside a context.

In: a model, and passes of it. Out: for each row of a batch, how much each patch of its pictures gave to its visual
token (SAP), and how its last turn's queries divided their attention over the patches (EmbQ, the mean of its heads).

    with recording_attention(model) as maps:
        model(**inputs)
    maps.of(row=0).queries

The weights are those that the pass computes with; outputs stay what they are, to the last bit. Outside of the context
nothing is kept, and nothing is asked but whether anyone records.

Legend: S samples, N pictures of a sample, M most of any, W views a picture, P patches a view (g x g), r x r windows a
view of k x k patches, n turns, Q queries a turn, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident

import numpy as np
import torch
from torch import nn

from flashsloth.model.embedded_query import EmbeddedQueryInputs
from flashsloth.model.modeling_flashsloth import FlashSlothModel


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """Where the last turn of one row looked.

    Attributes:
        sap: float32 [N, W, r, r, k, k], what the patches of a window give to its visual token; a window sums to one.
        queries: float32 [N, Q, W, g, g], what each query takes of each patch; over all N pictures a query sums to one.
    """

    sap: np.ndarray
    queries: np.ndarray


class AttentionMaps:
    """What the passes of a model looked at, in order."""

    def __init__(self, model: FlashSlothModel) -> None:
        self._model = model
        self._passes: list[tuple[EmbeddedQueryInputs, torch.Tensor]] = []

    def add(self, inputs: EmbeddedQueryInputs, weights: torch.Tensor) -> None:
        """Keep a pass's inputs, and EmbQ's weights over the patches, float32 [n, H, Q, M*W*P]."""
        self._passes.append((inputs, weights.detach().mean(dim=1)))

    def of(self, row: int = 0) -> AttentionWeights | None:
        """Where a row's last turn looked; None where it saw no picture.

        Where several passes had such a row, as in a conversation that is run turn by turn, the last of them counts.

        Args:
            row: of the batch; where samples are packed into rows (training), the number of the sample.
        """
        for inputs, weights in reversed(self._passes):
            turns = (inputs.feature_row == row).nonzero()[:, 0]
            if len(turns):
                return self._weights(inputs, weights, int(turns[-1]))
        return None

    @torch.no_grad()
    def _weights(self, inputs: EmbeddedQueryInputs, weights: torch.Tensor, turn: int) -> AttentionWeights | None:
        config = self._model.config
        grid, size, patches = config.patch_grid, config.pool_size, config.num_patches
        rows = inputs.picture_rows or config.num_views * patches  # of features, a picture
        mask = None if inputs.feature_mask is None else inputs.feature_mask[turn].unflatten(0, (-1, rows))  # [M, W*P]
        seen = weights.shape[-1] // rows if mask is None else int(mask.any(1).sum())  # the first of the sample's
        if not seen:
            return None
        views = (rows if mask is None else int(mask.sum(1).max())) // patches  # of pictures of unlike numbers the most
        per_picture = weights[turn, :, : seen * rows].unflatten(-1, (seen, rows))[..., : views * patches]
        queries = per_picture.unflatten(-1, (views, grid, grid)).transpose(0, 1)  # [N, Q, W, g, g]
        features = inputs.features[inputs.feature_row[turn], : seen * rows]
        features = features.unflatten(0, (seen, rows))[:, : views * patches]  # [N, W*P, V]
        pooling = self._model.spatial_attention_pooling
        saliency = pooling.saliency(features.reshape(seen * views, patches, -1))  # [N*W, g, g]
        windows = saliency.view(seen, views, grid // size, size, grid // size, size).transpose(3, 4)
        return AttentionWeights(windows.cpu().numpy(), queries.cpu().numpy())


@contextmanager
def recording_attention(model: nn.Module) -> Iterator[AttentionMaps]:
    """Keep where a model looks, in the passes that this thread runs inside the context.

    Args:
        model: a FlashSloth, with its head or without, or what wraps one.

    Raises:
        ValueError: if there is no FlashSloth in it, or one whose SAP or EmbQ was exchanged for something else.
    """
    core = next((module for module in model.modules() if isinstance(module, FlashSlothModel)), None)
    if core is None:
        raise ValueError(f"{type(model).__name__} holds no FlashSlothModel: give the model that is run")
    for name, needed in (("spatial_attention_pooling", "saliency"), ("embedded_query", "image_attention")):
        found = getattr(core, name)
        if not hasattr(found, needed):
            raise ValueError(f"{name} of this model is {type(found).__name__}, which has no attention to show")
    maps, thread, keepers = AttentionMaps(core), get_ident(), core.attention_keepers
    outer = keepers.get(thread)
    keepers[thread] = maps.add
    try:
        yield maps
    finally:
        del keepers[thread]
        if outer is not None:
            keepers[thread] = outer
