"""Pictures whose label or quality is worth a look."""

import dataclasses
from typing import Literal

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable

Oddity = Literal["blurred", "dark", "bright", "shape"]

# Distances from what is usual, in standard deviations. One of 740 normal values lies as far out.
_FAR = 3.0

# Where more than half of a class have one value, these are taken for its standard deviation at the least: a tenth of
# the sharpness, 5 grey levels, and a shape that is wider or higher by a twentieth.
_LEAST_SPREADS = (0.1, 5.0, 0.05)


@dataclasses.dataclass(frozen=True, slots=True)
class OddPicture:
    """A picture that is unlike the others of its class.

    Attributes:
        row: Of the outcomes.
        oddity: What is odd about it.
        distance: How far from the usual, in robust standard deviations.
    """

    row: int
    oddity: Oddity
    distance: float


def find_label_issues(outcomes: PredictionTable, *, num_classes: int) -> np.ndarray:
    """Returns int64 rows whose label is likely wrong, the top_k first.

    Confident learning (Northcutt et al. 2021). The model is sure of a picture where it gives a class at least what it
    gives it on average to the pictures that carry that label. Of those of a label that it is sure of, some share is in
    another class. That share of all pictures of the label is taken to be wrong, and so many of them are returned: those
    which it takes for another class, and gives that one the most more than the label. It is only as good as the model
    is, and means little for pictures that the model was trained on.
    """
    labels, right = outcomes.labels, outcomes.right
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, outcomes.actual_probabilities, num_classes)
    # Of a class without pictures nothing is known: half a chance is asked for.
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)
    sure = outcomes.probabilities >= usual[outcomes.predicted]
    num_sure = np.bincount(labels[sure], minlength=num_classes)
    num_sure_wrong = np.bincount(labels[sure & ~right], minlength=num_classes)
    num_issues = np.round(counts * num_sure_wrong / np.maximum(num_sure, 1))
    wrong = np.flatnonzero(~right)
    lead = outcomes.probabilities[wrong] - outcomes.actual_probabilities[wrong]
    wrong = wrong[np.argsort(-lead, kind="stable")]
    return wrong[_places_in_class(labels[wrong]) < num_issues[labels[wrong]]]


def find_odd_pictures(outcomes: PredictionTable) -> list[OddPicture]:
    """Returns the pictures that are far more blurred, darker, brighter or otherwise shaped than their class.

    The farthest of each kind come first, then the second of each, so that no kind hides the others. Far is measured
    by the median and the median distance from it, which the odd ones themselves do not move.
    """
    shapes = np.log(np.maximum(outcomes.widths, 1) / np.maximum(outcomes.heights, 1))
    blurred, brightness, shape = (
        _distances(values, outcomes.labels, least)
        for values, least in zip(
            (np.log(outcomes.sharpness + 1), outcomes.brightness, shapes), _LEAST_SPREADS, strict=True
        )
    )
    measures: dict[Oddity, np.ndarray] = {
        "blurred": -blurred,
        "dark": -brightness,
        "bright": brightness,
        "shape": np.abs(shape),
    }
    ranked: list[tuple[int, OddPicture]] = []
    for oddity, distances in measures.items():
        rows = np.flatnonzero(distances > _FAR)
        rows = rows[np.argsort(-distances[rows], kind="stable")]
        ranked += [(i, OddPicture(int(row), oddity, float(distances[row]))) for i, row in enumerate(rows)]
    return [odd for _, odd in sorted(ranked, key=lambda entry: (entry[0], -entry[1].distance))]


def _places_in_class(labels: np.ndarray) -> np.ndarray:
    """Returns how many of the same label come before each."""
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) - np.repeat(starts, sizes)
    return places


def _distances(values: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Returns how many robust standard deviations each value lies above the median of its class."""
    distances = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        away = values[inside] - np.median(values[inside])
        # 1.4826 makes the median distance a standard deviation of normal values.
        distances[inside] = away / max(1.4826 * float(np.median(np.abs(away))), least)
    return distances
