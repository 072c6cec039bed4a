"""Pictures whose label or quality is worth a look."""

import dataclasses
from typing import Literal

import numpy as np

from predict.outcomes import Outcomes

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


def find_label_issues(outcomes: Outcomes, *, num_classes: int) -> np.ndarray:
    """Returns int64 rows whose label is likely wrong, the likeliest first.

    A picture counts where the model takes it for another class, and is as sure of it as it is on average of the
    pictures that carry that label (confident learning, Northcutt et al. 2021). It is only as good as the model is,
    and means little for pictures that the model was trained on.
    """
    counts = np.bincount(outcomes.labels, minlength=num_classes)
    sums = np.bincount(outcomes.labels, outcomes.actual_probabilities, num_classes)
    # Of a class without pictures nothing is known: half a chance is asked for.
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)
    sure = ~outcomes.right & (outcomes.probabilities >= usual[outcomes.predicted])
    rows = np.flatnonzero(sure)
    lead = outcomes.probabilities[rows] - outcomes.actual_probabilities[rows]
    return rows[np.argsort(-lead, kind="stable")]


def find_odd_pictures(outcomes: Outcomes) -> list[OddPicture]:
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


def _distances(values: np.ndarray, labels: np.ndarray, least: float) -> np.ndarray:
    """Returns how many robust standard deviations each value lies above the median of its class."""
    distances = np.zeros(len(values))
    for label in np.unique(labels):
        inside = labels == label
        away = values[inside] - np.median(values[inside])
        # 1.4826 makes the median distance a standard deviation of normal values.
        distances[inside] = away / max(1.4826 * float(np.median(np.abs(away))), least)
    return distances
