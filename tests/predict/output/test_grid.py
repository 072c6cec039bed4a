import numpy as np
import pytest
from matplotlib.image import imread

from shardstream.predict.findings.gallery import Shown
from shardstream.predict.inference.thumbnails import make_picture
from shardstream.predict.output.fonts import LabelFont, find_font
from shardstream.predict.output.grid import write_grid

BLUE, VERMILION = (0x00, 0x63, 0x9C), (0xB2, 0x43, 0x00)


@pytest.fixture(name="pictures")
def _pictures(make_record, make_prediction):
    green = make_picture(make_record(), np.full((8, 8, 3), (60, 200, 60), np.uint8), max_bytes=10_000)

    def pictures(count, *, num_wrong):
        return [
            Shown(make_prediction(make_record(label=int(i < num_wrong)), [0.9, 0.1]), green)
            for i in range(count)
        ]

    return pictures


@pytest.fixture(name="draw")
def _draw(pictures):
    def draw(path, count, *, num_wrong=0, names=("food", "interior")):
        font = find_font("".join(names))
        if font is None:
            pytest.skip(f"no font for {names} is installed")
        write_grid(path, pictures(count, num_wrong=num_wrong), LabelFont(names, font), title="title")
        return (imread(path)[:, :, :3] * 255).round().astype(int)

    return draw


def area(pixels, color):
    return int((np.abs(pixels - color).max(axis=2) < 6).sum())


@pytest.mark.parametrize("count", [0, 1, 2, 7, 31, 32, 40])
def test_a_grid_of_any_number_shows_at_most_32(draw, tmp_path, count):
    pixels = draw(tmp_path / "grid.png", count)
    one = area(draw(tmp_path / "one.png", 1), (60, 200, 60))
    assert area(pixels, (60, 200, 60)) == pytest.approx(min(count, 32) * one, rel=0.25)


def test_wrong_ones_have_another_color_and_a_thicker_frame(draw, tmp_path):
    right = draw(tmp_path / "right.png", 4)
    wrong = draw(tmp_path / "wrong.png", 4, num_wrong=4)
    assert area(right, VERMILION) == area(wrong, BLUE) == 0
    assert area(wrong, VERMILION) > 2 * area(right, BLUE) > 0


@pytest.mark.parametrize("names", [("음식", "실내"), ("$x$", r"\frac"), ("a" * 200, "b")])
def test_names_of_any_kind_are_drawn(draw, tmp_path, names):
    # A glyph that the font does not have, or a formula that cannot be read, would be a warning or an error.
    plain = draw(tmp_path / "plain.png", 2, num_wrong=1)
    named = draw(tmp_path / "named.png", 2, num_wrong=1, names=names)
    assert (named.shape == plain.shape) and (named != plain).any()
