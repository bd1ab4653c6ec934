"""Colours, fonts, text, charts, backgrounds and effects, each by itself."""

from random import Random

import numpy as np
import pytest
from PIL import Image

from flashsloth.world import World, fonts
from flashsloth.world.background import paint_background, sample_background
from flashsloth.world.chart import sample_chart
from flashsloth.world.colors import MIN_CONTRAST, distance, sample_contrasting, sample_rgb
from flashsloth.world.compose import place_things
from flashsloth.world.draw import apply_effects, blurred, brightened, jpeg, noisy, resized_and_back
from flashsloth.world.scene import Box
from flashsloth.world.text import MODEL_SIDE, READABLE_CAP, character_boxes, draw_writing, write_at
from flashsloth.world.vocabulary import COLORS, SAME_IN_BOTH_CASES, altered, article, plural, sample_number, sample_word


def test_color_names_keep_their_distance():
    """No colour of one name comes near one of another: the closest pairs are still told apart by eye."""
    rng = Random(0)
    drawn = {name: np.array([sample_rgb(rng, name) for _ in range(250)]).T for name in COLORS}  # [3, 250] each
    for first in COLORS:
        for second in COLORS:
            if first < second:
                nearest = distance(drawn[first][:, :, None], drawn[second][:, None, :]).min()  # of [250, 250]
                assert nearest > 40, (first, second, nearest)


def test_contrast_is_kept():
    rng = Random(1)
    for _ in range(300):
        under = (sample_rgb(rng, rng.choice(COLORS)),)
        assert distance(sample_contrasting(rng, under)[1], under[0]) >= MIN_CONTRAST


def test_things_are_inside_and_apart():
    rng = Random(2)
    for count in range(1, 9):
        for _ in range(40):
            width, height = rng.randint(96, 288), rng.randint(96, 288)
            things = place_things(rng, Box(0, 0, width, height), sample_background(rng), count)
            assert 1 <= len(things) <= count
            for index, thing in enumerate(things):
                assert thing.box.left >= 0 <= thing.box.top
                assert thing.box.right <= width
                assert thing.box.bottom <= height
                assert not any(thing.box.meets(other.box) for other in things[:index])


def test_writing_is_large_enough_to_read():
    world = World(seed=4)
    for index in range(300):
        scene = world.sample(index).scene
        inside = [thing.writing for thing in scene.things if thing.writing]
        for writing in [*scene.writings, *inside]:
            cap = writing.size * writing.face.cap_height * MODEL_SIDE / scene.long_side
            assert cap >= READABLE_CAP - 1e-6
            assert 0 <= writing.box.left <= writing.box.right <= scene.width
            assert 0 <= writing.box.top <= writing.box.bottom <= scene.height


@pytest.mark.parametrize("angle", [0.0, 8.0])
def test_characters_lie_inside_the_ink(angle):
    face = fonts.faces()[0]
    writing = write_at("Sloth", "word", "black", (0, 0, 0), face, 40, (100, 50), angle)
    canvas = Image.new("RGB", (200, 100), (255, 255, 255))
    draw_writing(canvas, writing)
    rows, columns = np.nonzero(np.asarray(canvas)[:, :, 0] < 128)
    slack = 5 + angle / 4  # a box spans the advance of its last character, and a turned one the corners of the box
    assert abs(columns.min() - writing.box.left) <= slack
    assert abs(columns.max() - writing.box.right) <= slack
    assert abs(rows.min() - writing.box.top) <= slack
    assert abs(rows.max() - writing.box.bottom) <= slack
    boxes = character_boxes(writing)
    assert "".join(char for char, _ in boxes) == "Sloth"
    centers = [box.center[0] for _, box in boxes]
    assert centers == sorted(centers)


def test_pillow_alone_is_enough(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM_FOLDERS", ())
    monkeypatch.setattr(fonts.importlib.util, "find_spec", lambda name: None)
    fonts.faces.cache_clear()
    try:
        assert [face.name for face in fonts.faces()] == [fonts.BUILT_IN]
        for index in range(30):
            sample = World(level=3).sample(index)
            assert sample.image.size == (sample.scene.width, sample.scene.height)
            assert len(sample.questions) >= 6
    finally:
        fonts.faces.cache_clear()


def test_font_packages_are_found_by_their_entry_point(monkeypatch, tmp_path):
    package = tmp_path / "font_sample"
    (package / "files").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('fonts are found without importing their package')")
    for name in ("Sample-Regular.ttf", "Sample-Thin.ttf"):
        (package / "files" / name).touch()
    metadata = tmp_path / "font_sample-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: font-sample\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fonts_ttf]\nsample = font_sample:font_files_ttf\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert [file.name for file in fonts._package_files()] == ["Sample-Regular.ttf"]


def test_words_have_a_case_that_shows():
    rng = Random(5)
    words = [sample_word(rng) for _ in range(500)]
    assert all(2 <= len(word) <= 7 and not SAME_IN_BOTH_CASES.issuperset(word.lower()) for word in words)
    assert {True, False} == {word.isupper() for word in words}
    assert {len(sample_number(rng)) for _ in range(100)} == {1, 2, 3, 4}
    assert all(altered(rng, word) != word for word in words)


def test_charts_fit_and_measure_true():
    rng = Random(6)
    for _ in range(200):
        size = rng.randint(120, 288), rng.randint(120, 288)
        chart = sample_chart(rng, size, sample_background(rng, plainer=True))
        assert 2 <= len(chart.bars) <= 6
        assert len({bar.label for bar in chart.bars}) == len(chart.bars)
        lengths = [bar.box.width if chart.horizontal else bar.box.height for bar in chart.bars]
        scale = lengths[0] / chart.bars[0].value
        assert lengths == pytest.approx([bar.value * scale for bar in chart.bars])
        for writing in chart.writings:
            assert writing.box.left >= -1 <= writing.box.top
            assert writing.box.right <= size[0] + 1
            assert writing.box.bottom <= size[1] + 1


def test_backgrounds_are_painted_in_their_color():
    rng = Random(7)
    for _ in range(100):
        background = sample_background(rng)
        pixels = np.asarray(paint_background(background, (120, 100)))
        assert pixels.shape == (100, 120, 3)
        if background.style == "plain":
            assert (pixels == background.rgb).all()


@pytest.mark.parametrize("effect", [jpeg, resized_and_back, blurred, noisy, brightened])
def test_effects_are_slight(effect):
    world = World(seed=12, level=1)
    for index in range(20):
        image = world.sample(index).image
        after = effect(Random(index), image)
        assert (after.size, after.mode) == (image.size, "RGB")
        change = np.abs(np.asarray(after).astype(int) - np.asarray(image).astype(int)).mean()
        assert change < 22


def test_a_third_of_the_pictures_is_untouched():
    image = World(level=1).sample(0).image
    untouched = sum(apply_effects(Random(seed), image) is image for seed in range(900))
    assert 240 < untouched < 360


def test_grammar():
    assert article("orange square") == "an orange square"
    assert article("red oval") == "a red oval"
    assert [plural(noun) for noun in ("cross", "star")] == ["crosses", "stars"]
