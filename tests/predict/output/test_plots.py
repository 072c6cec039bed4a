"""confusion_matrix.png and calibration.png, looked at as pixels."""

import numpy as np
import pytest
from matplotlib.image import imread

from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import summarize
from shardstream.predict.output.fonts import LabelFont, find_font
from shardstream.predict.output.plots import write_calibration, write_confusion_matrix


def pixels(path):
    return (imread(path)[:, :, :3] * 255).round().astype(int)


@pytest.fixture(name="draw")
def _draw(tmp_path, make_outcomes):
    def draw(labels, predicted, names):
        font = find_font("".join(names))
        if font is None:
            pytest.skip(f"no font for {names} is installed")
        shares = 0.6 * np.eye(len(names))[predicted] + 0.4 / len(names)
        summary = summarize(make_outcomes(labels, shares), np.ones(len(labels)), num_classes=len(names))
        write_confusion_matrix(tmp_path / "m.png", summary.confusion, LabelFont(names, font))
        return pixels(tmp_path / "m.png")

    return draw


def dark(picture):
    """Returns how many pixels have the darkest blue of the color map."""
    return int((np.abs(picture - (8, 48, 107)).max(axis=2) < 3).sum())


def test_a_matrix_without_mistakes_is_dark_on_the_diagonal(draw):
    everything = draw([0, 1, 2], [0, 1, 2], ["a", "b", "c"])
    two_wrong = draw([0, 1, 2], [0, 2, 1], ["a", "b", "c"])
    one_class = draw([0, 0, 0], [0, 0, 0], ["a", "b", "c"])
    # Both halves have three dark cells, wherever they lie.
    assert dark(everything) == pytest.approx(dark(two_wrong), rel=0.1)
    assert dark(one_class) == pytest.approx(dark(everything) / 3, rel=0.2)


@pytest.mark.parametrize("names", [("음식", "실내"), ("$x$", r"\frac"), ("a" * 200, "b"), ("only",)])
def test_names_of_any_kind_are_drawn(draw, names):
    # A glyph that the font does not have, or a formula that cannot be read, would be a warning or an error.
    last = len(names) - 1
    plain = draw([0, last], [0, 0], ["x", "y"][: len(names)])
    named = draw([0, last], [0, 0], names)
    assert named.shape == plain.shape
    assert (named != plain).any()


@pytest.mark.parametrize("num_classes", [9, 16, 200])
def test_of_many_classes_those_with_most_errors_are_drawn(draw, num_classes):
    labels = np.arange(num_classes)
    picture = draw(labels, np.roll(labels, 1), [f"class{i}" for i in labels])
    assert max(picture.shape) < 4000


@pytest.mark.parametrize("probabilities", [[[1.0, 0.0]], [[0.7, 0.3], [0.2, 0.8], [0.95, 0.05]]])
def test_the_curve_is_drawn_of_few_pictures_too(tmp_path, make_outcomes, probabilities):
    outcomes = make_outcomes([0] * len(probabilities), probabilities)
    weights = np.ones(len(probabilities))
    summary = summarize(outcomes, weights, num_classes=2)
    write_calibration(tmp_path / "c.png", calibrate(outcomes, weights), summary.accuracy)
    blue = (np.abs(pixels(tmp_path / "c.png") - (0, 99, 156)).max(axis=2) < 3).sum()
    assert blue > 500
