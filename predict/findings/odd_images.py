"""Images that are unlike the others of their class."""

import dataclasses
from typing import Literal

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable

Oddity = Literal["blurred", "dark", "bright", "shape", "content"]

# Distances from what is usual, in standard deviations. One of 740 normal values lies as far out.
_FAR = 3.0
# Of 740 photos of three classes the farthest by content is at 4.2; of the photos of another class filed as one of them
# three quarters are beyond 4.5.
_FAR_CONTENT = 4.5

# The least standard deviations that are assumed, for classes of which more than half have one value: a tenth of the
# sharpness, 5 gray levels, and a shape that is wider or higher by a twentieth.
_LEAST_SPREADS = (0.1, 5.0, 0.05)

# A class may have several usual kinds of image: upright and lying ones, by day and by night. What so large a fraction
# of a class has is usual, and so is a shape of so many of all images. Three are never a kind.
_USUAL_FRACTION = 0.1
_USUAL_SHAPE = 0.05
_MOST_ODD = 3
# Shapes that differ by less are one.
_SAME_SHAPE = 0.03


@dataclasses.dataclass(frozen=True, slots=True)
class OddPicture:
    """An image that is unlike the others of its class.

    Attributes:
        row: Of the outcomes.
        oddity: What is odd about it.
        distance: How far from the usual, in robust standard deviations.
    """

    row: int
    oddity: Oddity
    distance: float


def find_odd_pictures(outcomes: PredictionTable, content: np.ndarray | None = None) -> list[OddPicture]:
    """Returns the images that are far more blurred, darker, brighter, of another shape or content than their class.

    The farthest of each kind come first, then the second of each, so that no kind hides the others. Far is measured
    by the median and the median distance from it, which the odd ones themselves do not move.

    Args:
        outcomes: The images.
        content: float [num_examples], how far their content is from that of their class, see
            `outliers.content_distances`; None where that is not known.
    """
    labels = outcomes.labels
    shapes = np.log(np.maximum(outcomes.widths, 1) / np.maximum(outcomes.heights, 1))
    blurred, brightness, shape = (
        _distances(values, labels, least)
        for values, least in zip(
            (np.log(outcomes.sharpness + 1), outcomes.brightness, shapes), _LEAST_SPREADS, strict=True
        )
    )
    far: dict[Oddity, np.ndarray] = {
        "blurred": _far(-blurred, labels),
        "dark": _far(-brightness, labels),
        "bright": _far(brightness, labels),
        "shape": _far(np.where(_is_usual_shape(shapes), 0.0, np.abs(shape)), labels),
    }
    if content is not None:
        far["content"] = _far(content, labels, _FAR_CONTENT)
    ranked: list[tuple[int, OddPicture]] = []
    for oddity, distances in far.items():
        rows = np.flatnonzero(distances)
        rows = rows[np.argsort(-distances[rows], kind="stable")]
        ranked += [(i, OddPicture(int(row), oddity, float(distances[row]))) for i, row in enumerate(rows)]
    return [odd for _, odd in sorted(ranked, key=lambda entry: (entry[0], -entry[1].distance))]


def _far(distances: np.ndarray, labels: np.ndarray, limit: float = _FAR) -> np.ndarray:
    """Returns the distances that are far and of which the class has only a few, and 0 in place of the others."""
    is_far = distances > limit
    counts = np.bincount(labels)
    num_far = np.bincount(labels, is_far, len(counts))
    is_rare = num_far <= np.maximum(_MOST_ODD, _USUAL_FRACTION * counts)
    return np.where(is_far & is_rare[labels], distances, 0.0)


def _is_usual_shape(shapes: np.ndarray) -> np.ndarray:
    """Returns whether at least a twentieth of all images, and more than three, have about the shape of each."""
    ordered = np.sort(shapes)
    alike = np.searchsorted(ordered, shapes + _SAME_SHAPE, "right") - np.searchsorted(
        ordered, shapes - _SAME_SHAPE, "left"
    )
    return alike > max(_MOST_ODD, _USUAL_SHAPE * len(shapes))


def _distances(values: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Returns how many robust standard deviations each value lies above the median of its class."""
    distances = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        away = values[inside] - np.median(values[inside])
        # 1.4826 makes the median distance a standard deviation of normal values.
        distances[inside] = away / max(1.4826 * float(np.median(np.abs(away))), least)
    return distances
