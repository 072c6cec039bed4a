"""Which pairs are one image: copies are, images of the same kind are not, shots of one scene are called that."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from shardstream.ingest.pipeline.look_alikes import _follow, correlation

SHARED = Path(__file__).resolve().parents[4] / "shared/data"


def scene(seed, *, shift=0):
    """A photo of many shapes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (320, 240), tuple(rng.integers(60, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, width, height = rng.integers((-20, -20, 10, 10), (300, 220, 90, 90)).tolist()
        draw.ellipse(
            (x + shift, y, x + shift + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist())
        )
    return image


def hand(angle):
    """One bright thing in front of one wall, as in many sets of signs, letters or products."""
    image = Image.new("L", (200, 200), 210)
    draw = ImageDraw.Draw(image)
    for finger in range(4):
        draw.line((100, 120, 60 + 25 * finger + angle, 30 + 5 * (finger % 2)), fill=90, width=14)
    draw.ellipse((70, 100, 140, 180), fill=90)
    return image.convert("RGB")


def thumbnail(image):
    return np.asarray(image.resize((24, 24), Image.Resampling.BOX), np.float32)


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: image.resize((160, 120), Image.Resampling.BOX),
        lambda image: image.filter(ImageFilter.GaussianBlur(2)),
        lambda image: Image.eval(image, lambda level: min(255, level * 6 // 5)),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.crop((3, 2, 317, 238)),
    ],
    ids=["half the size", "blurred", "brighter", "gray", "cropped by 2 %"],
)
def test_a_copy_is_one_image(copy):
    image = scene(1)
    assert correlation(thumbnail(image), thumbnail(copy(image))) >= 0.93


def test_images_of_the_same_kind_are_not_one():
    assert correlation(thumbnail(scene(1)), thumbnail(scene(2))) < 0.5
    assert correlation(thumbnail(hand(0)), thumbnail(hand(14))) < 0.93


def test_a_moved_scene_is_less_alike_than_a_copy_and_more_than_others():
    assert 0.1 < correlation(thumbnail(scene(1)), thumbnail(scene(1, shift=14))) < 0.93


def test_flat_images_are_compared_by_their_color():
    red, dark = (np.full((24, 24, 3), color, np.float32) for color in ((200, 30, 30), (190, 20, 20)))
    assert correlation(red, red + 1) == 1
    assert correlation(red, dark) == 0
    assert correlation(red, thumbnail(scene(1))) == 0


@pytest.mark.parametrize(
    ("one", "other", "follows"),
    [
        ("kiwi/Kiwi_012.jpg", "kiwi/Kiwi_013.jpg", True),
        ("kiwi/Kiwi_9.jpg", "kiwi/Kiwi_10.jpg", True),
        ("kiwi/Kiwi_012.jpg", "kiwi/Kiwi_016.jpg", False),
        ("kiwi/Kiwi_012.jpg", "lime/Kiwi_013.jpg", False),
        ("a/x.jpg", "a/y.jpg", False),
    ],
)
def test_names_that_follow_one_another(one, other, follows):
    assert _follow(one, other) == follows
