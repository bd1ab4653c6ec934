"""Pictures that are varied while an encoder trains, and only then; an encoder that is compiled and given back."""

from __future__ import annotations

import torch
from tiny import TinyModelMaker

from flashsloth.training.encoder_training import SHIFT_PIXELS, encoder_options, varied


def test_pictures_are_varied_each_by_itself_and_not_much() -> None:
    torch.manual_seed(0)
    pixels = torch.zeros(4, 3, 40, 40)
    pixels[:, :, 10:30, 10:30] = 0.8
    other = varied(pixels)
    assert other.shape == pixels.shape
    assert other.min() >= -1
    assert other.max() <= 1
    assert all((other[0] - other[k]).abs().mean() > 0.005 for k in range(1, 4))
    inner = slice(10 + 2, 30 - 2)  # what no shift of SHIFT_PIXELS reaches
    assert SHIFT_PIXELS < 2
    assert ((other - pixels)[:, :, inner, inner].mean(dim=(1, 2, 3)).abs() < 0.2).all()


def test_an_encoder_sees_varied_pictures_in_training_only(make_tiny_model: TinyModelMaker) -> None:
    model = make_tiny_model()
    size = model.config.vision_config.image_size
    pixels = torch.rand(2, 1, 3, size, size)
    plain = model.model.encode_pictures(pixels)
    with encoder_options(model.model.vision_tower, augment=True, compiled=False):
        model.eval()
        assert torch.equal(model.model.encode_pictures(pixels), plain)
        model.train()
        assert not torch.equal(model.model.encode_pictures(pixels), plain)
    model.train()
    assert torch.equal(model.model.encode_pictures(pixels), plain)


def test_an_encoder_is_given_back_uncompiled(make_tiny_model: TinyModelMaker) -> None:
    encoder = make_tiny_model().model.vision_tower
    names = list(encoder.state_dict())
    with encoder_options(encoder, augment=False, compiled=True):
        assert encoder._compiled_call_impl is not None
        assert list(encoder.state_dict()) == names
    assert encoder._compiled_call_impl is None
