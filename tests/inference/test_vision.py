"""Pictures whose views another process has made: the same keys, pixels, features and answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image
from tiny import picture

from flashsloth.inference.options import Options
from flashsloth.inference.picture_cache import PictureCache
from flashsloth.inference.pipeline import FlashSloth
from flashsloth.inference.vision import ImageEncoder, PreparedPictures
from flashsloth.media.views import digest, picture_views
from flashsloth.model.image_processing_flashsloth import FlashSlothImageProcessorPil

SIDE = 56
PROCESSORS = {
    "standard": FlashSlothImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    "pad": FlashSlothImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_aspect_ratio="pad", image_std=0.3),
    "hd": FlashSlothImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid=2, image_mean=[0.1, 0.5, 0.7]),
    "coarse": FlashSlothImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=0, do_normalize=False),
}


def encoder_of(sloth: FlashSloth, processor: FlashSlothImageProcessorPil) -> ImageEncoder:
    """One that knows no picture."""
    return ImageEncoder(sloth.model, processor, PictureCache())


def made_elsewhere(image: Image.Image, encoder: ImageEncoder, resolution: str | None) -> PreparedPictures:
    """As a server does it."""
    processor = encoder._image_processor
    count = 1 if resolution == "standard" else processor.num_views
    return encoder.prepare_views(picture_views(image, processor.view_settings, count), resolution)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("standard", None),
        ("standard", "standard"),
        ("pad", None),
        ("hd", None),
        ("hd", "standard"),
        ("hd", "hd"),
        ("coarse", None),
    ],
)
@pytest.mark.parametrize("size", [(40, 30), (640, 481), (3, 200), (300, 2)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_views_from_elsewhere_are_those_of_here(
    sloth: FlashSloth, name: str, resolution: str | None, size: tuple[int, int]
) -> None:
    encoder, image = encoder_of(sloth, PROCESSORS[name]), picture(1, *size)
    expected, ours = encoder.prepare([image], resolution), made_elsewhere(image, encoder, resolution)
    assert (ours.keys, ours.sizes, ours.views) == (expected.keys, expected.sizes, expected.views)
    assert torch.equal(ours.made[0], expected.made[0])
    assert ours.made[0].dtype == expected.made[0].dtype


def test_views_of_another_number_are_refused(sloth: FlashSloth) -> None:
    encoder, processor = encoder_of(sloth, PROCESSORS["hd"]), PROCESSORS["hd"]
    with pytest.raises(ValueError, match="has 1 views, expected 5"):
        encoder.prepare_views(picture_views(picture(1), processor.view_settings, 1), "hd")


@pytest.mark.parametrize("first_here", [True, False])
def test_features_are_shared_whoever_made_the_views(sloth: FlashSloth, first_here: bool) -> None:
    encoder, image = encoder_of(sloth, sloth.processor.image_processor), picture(2)

    def here() -> PreparedPictures:
        return encoder.prepare([image])

    def there() -> PreparedPictures:
        return made_elsewhere(image, encoder, None)

    first, second = (here, there) if first_here else (there, here)
    assert encoder.prepare_known(digest(image), image.size) is None
    [features] = encoder.encode_prepared([first()])
    again, known = second(), encoder.prepare_known(digest(image), image.size)
    for prepared in (again, known):
        assert prepared.unencoded == 0
        assert prepared.keys == list(features.identity)
        assert (prepared.sizes, prepared.views) == ([image.size], list(features.views))
        assert prepared.features.features is features.features


def test_what_is_known_stays_usable_when_it_is_dropped(sloth: FlashSloth) -> None:
    pictures = PictureCache()
    encoder, image = ImageEncoder(sloth.model, sloth.processor.image_processor, pictures), picture(2)
    [features] = encoder.encode_prepared([encoder.prepare([image])])
    known = encoder.prepare_known(digest(image), image.size)
    pictures.clear()
    assert encoder.prepare_known(digest(image), image.size) is None
    [taken] = encoder.encode_prepared([known])
    assert taken.features is features.features


def test_known_is_the_same_picture_with_the_same_weights_and_views(sloth: FlashSloth) -> None:
    encoder, image = encoder_of(sloth, sloth.processor.image_processor), picture(2)
    encoder.encode_prepared([encoder.prepare([image])])
    assert encoder.prepare_known(digest(image), image.size) is not None
    assert encoder.prepare_known(digest(picture(3)), image.size) is None
    weight = next(sloth.model.parameters())
    with torch.no_grad():
        weight.copy_(weight.clone())
    assert encoder.prepare_known(digest(image), image.size) is None


def test_answers_are_the_same(sloth: FlashSloth) -> None:
    image = picture(4, 90, 60)
    expected = sloth.answer(image, "What is this?", max_tokens=6)
    sloth.pictures.clear()
    request = sloth.request(image, "What is this?", max_tokens=6)
    elsewhere = dataclasses.replace(request, pictures=made_elsewhere(image, sloth.image_encoder, None))
    outputs = sloth.engine_thread.submit(elsewhere)
    [answer] = sloth.collector(elsewhere, Options.of({"max_tokens": 6})).collect(outputs)
    assert answer.text == expected
