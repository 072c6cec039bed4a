"""Where errors gather: parts of the pictures that have more or fewer of them than their classes explain."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import Estimate, proportion_estimate

Attribute = Literal["size", "aspect", "brightness", "sharpness", "folder"]

_NUM_PARTS = 4

# Folders beyond these are tested no more: each test makes all others stricter.
_MAX_FOLDERS = 100
_FEWEST = 10  # Pictures of a part: fewer show nothing.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A part of the pictures.

    Attributes:
        attribute: What they have in common.
        low: The least value of it; for a folder 0.
        high: The largest value of it; for a folder 0.
        folder: The folder; empty where it is none.
        count: How many there are.
        num_wrong: How many of them are wrong.
        accuracy: The share of right ones.
        expected: The accuracy that pictures of the same classes have.
        p_value: How likely chance alone makes a difference so large in one of all parts (Holm 1979).
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
        """Whether the difference is beyond chance, at a level of 5 % over all parts together."""
        return self.p_value < 0.05


def find_slices(outcomes: PredictionTable) -> list[Slice]:
    """Returns the parts by source size, aspect ratio, brightness, sharpness and folder, in this order.

    Each part is compared with the rest of the same classes (Mantel and Haenszel 1959), because a part with more of
    a hard class is no discovery.
    """
    parts = parts_of(outcomes)
    wrong = ~outcomes.right
    tested = [_compare(outcomes.labels, wrong, inside) for *_, inside in parts]
    adjusted = holm([p_value for _, p_value in tested])
    slices = []
    for (attribute, low, high, folder, inside), (expected, _), p_value in zip(
        parts, tested, adjusted, strict=True
    ):
        count, num_wrong = int(inside.sum()), int((wrong & inside).sum())
        accuracy = proportion_estimate(count - num_wrong, count, count)
        if accuracy is not None:
            slices.append(
                Slice(
                    attribute=attribute,
                    low=low,
                    high=high,
                    folder=folder,
                    count=count,
                    num_wrong=num_wrong,
                    accuracy=accuracy,
                    expected=expected,
                    p_value=p_value,
                )
            )
    return slices


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number: one below 0.05 is a mistake in one of 20 reports (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted.tolist()


_Part = tuple[Attribute, float, float, str, np.ndarray]


def parts_of(outcomes: PredictionTable) -> list[_Part]:
    """Returns the parts, each with its attribute, its least and largest value, its folder, and its rows as bool."""
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
        # Where many are equal, as sizes are, parts fall together: a value belongs to one part only.
        edges = np.unique(np.quantile(values, np.arange(1, _NUM_PARTS) / _NUM_PARTS, method="higher"))
        numbers = np.searchsorted(edges, values, side="right")
        for number in np.unique(numbers):
            inside = numbers == number
            if _FEWEST <= inside.sum() <= len(values) - _FEWEST:
                yield attribute, float(values[inside].min()), float(values[inside].max()), "", inside


def _parts_of_folders(outcomes: PredictionTable) -> Iterator[_Part]:
    pairs = np.unique(np.stack([outcomes.labels, outcomes.folders]), axis=1)
    if pairs.shape[1] == len(np.unique(pairs[0])):
        return  # One folder for each class: it says nothing that the class does not.
    counts = np.bincount(outcomes.folders)
    for folder in np.argsort(-counts, kind="stable")[:_MAX_FOLDERS]:
        inside = outcomes.folders == folder
        if _FEWEST <= counts[folder] <= len(inside) - _FEWEST:
            yield "folder", 0.0, 0.0, str(outcomes.folder_names[int(folder)]), inside


def _compare(labels: np.ndarray, wrong: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Returns the accuracy that a part's classes let expect, and how likely chance differs from it so much."""
    total, num_wrong = np.bincount(labels), np.bincount(labels, wrong)
    num_inside = np.bincount(labels, inside)
    several = total > 1
    n, m, k = (values[several].astype(np.float64) for values in (total, num_wrong, num_inside))
    found = np.bincount(labels, wrong & inside)[several].sum()
    mean = np.sum(k * m / n)
    variance = np.sum(k * (n - k) * m * (n - m) / (n**2 * (n - 1)))
    share = float(
        np.sum(num_inside[total > 0] * (num_wrong / np.maximum(total, 1))[total > 0]) / inside.sum()
    )
    if variance <= 0:
        return 1 - share, 1.0
    # A half less: counts are whole, the normal distribution is not.
    distance = max(0.0, abs(float(found - mean)) - 0.5) / math.sqrt(float(variance))
    return 1 - share, math.erfc(distance / math.sqrt(2))
