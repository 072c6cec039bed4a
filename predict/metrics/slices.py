"""Slices: subsets of the images with more or fewer errors than their classes explain."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import (
    SIGNIFICANCE,
    Estimate,
    holm,
    normal_p_value,
    overall_estimate,
)

Attribute = Literal["size", "aspect", "brightness", "sharpness", "folder"]

_NUM_PARTS = 4

# Further folders are not tested: each test makes all others stricter.
_MAX_FOLDERS = 100
_FEWEST = 10  # Minimum size of a slice: fewer images show nothing.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A subset of the images.

    Attributes:
        attribute: The attribute that they share.
        low: Its minimum; 0 for a folder.
        high: Its maximum; 0 for a folder.
        folder: The folder; empty for other attributes.
        count: Number of images.
        num_wrong: Number of incorrect predictions.
        accuracy: Fraction of correct predictions.
        expected: The accuracy expected from the classes in the slice.
        p_value: Probability of a difference this large by chance, adjusted for the number of slices (Holm 1979).
    """

    attribute: Attribute
    low: float
    high: float
    folder: str
    count: int
    num_wrong: int
    accuracy: Estimate
    expected: float
    p_value: float

    @property
    def stands_out(self) -> bool:
        """Whether the difference is significant, at a level of 5 % over all slices."""
        return self.p_value < SIGNIFICANCE


def find_slices(outcomes: PredictionTable, weights: np.ndarray) -> list[Slice]:
    """Returns the slices by source size, aspect ratio, brightness, sharpness and folder, in this order.

    Each slice is compared with the rest of the same classes (Mantel and Haenszel 1959), because a slice with more
    images of a hard class is no finding. `weights` says how many images each stands for: the same within a class.
    """
    parts = parts_of(outcomes)
    wrong = ~outcomes.right
    tested = [_compare(outcomes.labels, wrong, inside, weights) for *_, inside in parts]
    adjusted = holm([p_value for _, p_value in tested])
    slices = []
    for (attribute, low, high, folder, inside), (expected, _), p_value in zip(
        parts, tested, adjusted, strict=True
    ):
        count, num_wrong = int(inside.sum()), int((wrong & inside).sum())
        slices.append(
            Slice(
                attribute=attribute,
                low=low,
                high=high,
                folder=folder,
                count=count,
                num_wrong=num_wrong,
                accuracy=overall_estimate(outcomes.right[inside], weights[inside], outcomes.labels[inside]),
                expected=expected,
                p_value=p_value,
            )
        )
    return slices


_Part = tuple[Attribute, float, float, str, np.ndarray]


def parts_of(outcomes: PredictionTable) -> list[_Part]:
    """Returns the slices, each with attribute, minimum, maximum, folder, and a bool mask of its rows."""
    return [*_parts_of_values(outcomes), *_parts_of_folders(outcomes)]


def _parts_of_values(outcomes: PredictionTable) -> Iterator[_Part]:
    heights, widths = outcomes.heights.astype(np.float64), outcomes.widths.astype(np.float64)
    attributes: dict[Attribute, np.ndarray] = {
        "size": heights * widths,
        "aspect": widths / np.maximum(heights, 1),
        "brightness": outcomes.brightness,
        "sharpness": outcomes.sharpness,
    }
    for attribute, values in attributes.items():
        # If many values are equal, as sizes are, slices are merged: a value belongs to only one slice.
        edges = np.unique(np.quantile(values, np.arange(1, _NUM_PARTS) / _NUM_PARTS, method="higher"))
        numbers = np.searchsorted(edges, values, side="right")
        for number in np.unique(numbers):
            inside = numbers == number
            if _FEWEST <= inside.sum() <= len(values) - _FEWEST:
                yield attribute, float(values[inside].min()), float(values[inside].max()), "", inside


def _parts_of_folders(outcomes: PredictionTable) -> Iterator[_Part]:
    pairs = np.unique(np.stack([outcomes.labels, outcomes.folders]), axis=1)
    if pairs.shape[1] == len(np.unique(pairs[0])):
        return  # One folder per class: the same as the classes.
    counts = np.bincount(outcomes.folders)
    for folder in np.argsort(-counts, kind="stable")[:_MAX_FOLDERS]:
        inside = outcomes.folders == folder
        if _FEWEST <= counts[folder] <= len(inside) - _FEWEST:
            yield "folder", 0.0, 0.0, str(outcomes.folder_names[int(folder)]), inside


def _compare(
    labels: np.ndarray, wrong: np.ndarray, inside: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    """Returns the accuracy expected from the classes of a slice, and the probability of the difference by chance."""
    total, num_wrong = np.bincount(labels), np.bincount(labels, wrong)
    num_inside, each = np.bincount(labels, inside), np.bincount(labels, weights) / np.maximum(total, 1)
    occurs, several = total > 0, total > 1
    n, m, k, w = (values[several].astype(np.float64) for values in (total, num_wrong, num_inside, each))
    found = np.bincount(labels, wrong & inside)[several]
    variances = k * (n - k) * m * (n - m) / (n**2 * (n - 1))
    rates = num_wrong[occurs] / total[occurs]
    expected = 1 - float(np.average(rates, weights=(num_inside * each)[occurs]))
    variance = float(np.sum(w**2 * variances))
    if variance <= 0:
        return expected, 1.0
    # Continuity correction of one half, in the weight that the variance has.
    half = 0.5 * math.sqrt(variance / float(np.sum(variances)))
    distance = max(0.0, abs(float(np.sum(w * (found - k * m / n)))) - half)
    return expected, normal_p_value(distance / math.sqrt(variance))
