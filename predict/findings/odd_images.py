"""Finds images that are unlike the others of their class."""

import dataclasses
from typing import Literal

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable

Oddity = Literal["blurred", "dark", "bright", "shape", "content"]

# Minimum distance in standard deviations. One of 740 normal values is this far out.
_FAR = 3.0
# Of 740 photos of three classes, the largest content distance is 4.2; of photos moved to another class, three quarters
# are beyond 4.5.
_FAR_CONTENT = 4.5

# Minimum standard deviations: in a class of nearly identical images, invisible differences are not listed. A fifth of
# the sharpness, 10 gray levels, and an aspect ratio that differs by a twentieth.
_MIN_SPREADS = (0.2, 10.0, 0.05)

# A class may have several common kinds of image: portrait and landscape, day and night. A kind is common if this
# fraction of the class has it, or this fraction of all images: photos of a second camera may be few in each class.
# Three images are never a kind.
_USUAL_FRACTION = 0.1
_USUAL_OF_ALL = 0.05
_MAX_ODD = 3
# Aspect ratios that differ by less are equal, as are differences in sharpness and brightness.
_SAME_SHAPE = 0.03
_SAME_DIFFERENCES = (0.2, 10.0)


@dataclasses.dataclass(frozen=True, slots=True)
class OddPicture:
    """An image that is unlike the others of its class.

    Attributes:
        row: Row of the predictions.
        oddity: In which respect it is odd.
        distance: Distance from the class in robust standard deviations.
    """

    row: int
    oddity: Oddity
    distance: float


def find_odd_pictures(outcomes: PredictionTable, content: np.ndarray | None = None) -> list[OddPicture]:
    """Returns the images far more blurred, darker, brighter, or of other shape or content than their class.

    The most distant of each kind come first, then the second of each, so that no kind hides the others. Distances are
    based on the median and the median absolute deviation, which outliers do not affect.

    Args:
        outcomes: The predictions.
        content: float [num_examples], content distance of each image from its class, see `outliers.content_distances`;
            None if unknown.
    """
    labels = outcomes.labels
    shapes = np.log(np.maximum(outcomes.widths, 1) / np.maximum(outcomes.heights, 1))
    sharpness, brightness, shape = (
        _differences(values, labels)
        for values in (np.log(outcomes.sharpness + 1), outcomes.brightness, shapes)
    )
    blurred, bright, of_shape = (
        np.where(_is_usual(values, same), 0.0, _distances(away, labels, least))
        for away, values, same, least in zip(
            (sharpness, brightness, shape),
            (sharpness, brightness, shapes),
            (*_SAME_DIFFERENCES, _SAME_SHAPE),
            _MIN_SPREADS,
            strict=True,
        )
    )
    far: dict[Oddity, np.ndarray] = {
        "blurred": _far(-blurred, labels),
        "dark": _far(-bright, labels),
        "bright": _far(bright, labels),
        "shape": _far(np.abs(of_shape), labels),
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
    """Returns the distances of images that are far and rare in their class, and 0 for the others."""
    is_far = distances > limit
    counts = np.bincount(labels)
    num_far = np.bincount(labels, is_far, len(counts))
    is_rare = num_far <= np.maximum(_MAX_ODD, _USUAL_FRACTION * counts)
    return np.where(is_far & is_rare[labels], distances, 0.0)


def _is_usual(values: np.ndarray, same: float) -> np.ndarray:
    """Returns whether at least a twentieth of all images, and more than three, have about the same value as each."""
    ordered = np.sort(values)
    alike = np.searchsorted(ordered, values + same, "right") - np.searchsorted(ordered, values - same, "left")
    return alike > max(_MAX_ODD, _USUAL_OF_ALL * len(values))


def _differences(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the difference of each value from the median of its class."""
    away = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        away[inside] = values[inside] - np.median(values[inside])
    return away


def _distances(away: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Returns the differences from the class median in robust standard deviations of the class."""
    distances = np.zeros(len(away))
    for label in np.unique(labels):
        inside = labels == label
        # The factor 1.4826 converts the median absolute deviation of normal values to a standard deviation.
        distances[inside] = away[inside] / max(1.4826 * float(np.median(np.abs(away[inside]))), least)
    return distances
