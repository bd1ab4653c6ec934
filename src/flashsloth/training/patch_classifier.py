"""Teaching an encoder patch by patch what the drawn world knows is there.

In: pictures and, for every patch, which shape, colour and character it shows and whether a centre lies in it.
Out: a loss that trains the encoder, and each patch's predictions. The counterpart, for a model that starts from
nothing, of the pretrained encoder that FlashSloth starts from; the heads are thrown away afterwards.

Legend: B pictures, P patches, V vision width, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import ModelOutput

from flashsloth.model.modeling_flashsloth import FlashSlothModel

BACKGROUND_WEIGHT = 0.3
"""Most patches show nothing; they count less."""


class PatchClassifier(nn.Module):
    """The encoder with one linear head a property."""

    def __init__(self, model: FlashSlothModel) -> None:
        from flashsloth.world import CHARACTER_CLASSES, COLOR_CLASSES, SHAPE_CLASSES

        super().__init__()
        self.vision_tower = model.vision_tower
        self.num_patches = model.config.num_patches
        width = model.config.vision_config.hidden_size
        classes = {
            "shape": len(SHAPE_CLASSES),
            "color": len(COLOR_CLASSES),
            "character": len(CHARACTER_CLASSES),
            "center": 2,
        }
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in classes.items()})

    def forward(
        self,
        pixel_values: torch.Tensor,
        shape: torch.Tensor,
        color: torch.Tensor,
        character: torch.Tensor,
        center: torch.Tensor,
    ) -> ModelOutput:
        """Loss, and predictions int64 [B, P, properties].

        Args:
            pixel_values: float [B, 1, 3, size, size].
            shape, color, character, center: int64 [B, P], the class of each patch.
        """
        targets = {"shape": shape, "color": color, "character": character, "center": center}
        output = self.vision_tower(pixel_values=pixel_values.flatten(0, 1), return_dict=True)
        features = self.norm(output.last_hidden_state[:, -self.num_patches :])  # [B, P, V]
        losses, predictions = [], []
        for name, head in self.heads.items():
            logits = head(features).float()  # [B, P, C]
            weight = torch.full((logits.shape[-1],), 1.0, device=logits.device)
            weight[0] = BACKGROUND_WEIGHT
            losses.append(F.cross_entropy(logits.flatten(0, 1), targets[name].flatten(), weight=weight))
            predictions.append(logits.argmax(dim=-1))
        return ModelOutput(loss=torch.stack(losses).sum(), logits=torch.stack(predictions, dim=-1))


__all__ = ["PatchClassifier"]
