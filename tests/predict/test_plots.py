import numpy as np
import pytest
from matplotlib.image import imread

from predict.fonts import Lettering, find_font
from predict.gallery import Gallery
from predict.plots import write_grid
from predict.prediction import Prediction, Record

BLUE, VERMILION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def pictures(count, *, num_wrong):
    gallery = Gallery(count)
    for i in range(count):
        record = Record(
            shard="s",
            position=i,
            label=int(i < num_wrong),
            source_path="a.jpg",
            source_sha256="",
            source_height=1,
            source_width=1,
            encoded=b"",
            media_type=None,
        )
        prediction = Prediction(record, np.array([0.9, 0.1], np.float32))
        gallery.offer(prediction, np.full((8, 8, 3), (60, 200, 60), np.uint8))
    return gallery.pictures()


def draw(path, count, *, num_wrong=0, names=("food", "interior")):
    font = find_font("".join(names))
    if font is None:
        pytest.skip(f"no font for {names} is installed")
    write_grid(path, pictures(count, num_wrong=num_wrong), Lettering(names, font), title="title")
    return (imread(path)[:, :, :3] * 255).round().astype(int)


def area(pixels, colour):
    return int((np.abs(pixels - colour).max(axis=2) < 3).sum())


@pytest.mark.parametrize("count", [0, 1, 2, 7, 31, 32, 40])
def test_a_grid_of_any_number_shows_at_most_32(tmp_path, count):
    pixels = draw(tmp_path / "grid.png", count)
    one = area(draw(tmp_path / "one.png", 1), (60, 200, 60))
    assert area(pixels, (60, 200, 60)) == pytest.approx(min(count, 32) * one, rel=0.25)


def test_wrong_ones_have_another_colour_and_a_thicker_frame(tmp_path):
    right = draw(tmp_path / "right.png", 4)
    wrong = draw(tmp_path / "wrong.png", 4, num_wrong=4)
    assert area(right, VERMILION) == area(wrong, BLUE) == 0
    assert area(wrong, VERMILION) > 2 * area(right, BLUE) > 0


@pytest.mark.parametrize("names", [("음식", "실내"), ("$x$", r"\frac"), ("a" * 200, "b")])
def test_names_of_any_kind_are_drawn(tmp_path, names):
    # A glyph that the font does not have, or a formula that cannot be read, would be a warning or an error.
    plain = draw(tmp_path / "plain.png", 2, num_wrong=1)
    named = draw(tmp_path / "named.png", 2, num_wrong=1, names=names)
    assert (named.shape == plain.shape) and (named != plain).any()
