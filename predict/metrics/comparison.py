"""Two models on the same records: who is right where, and whether the difference is more than chance.

The first model is the one that the report is of; the other one is compared with it. A fix is a record that the other
one gets right and the first one does not, a regression the reverse.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import Estimate, Z, effective_size, overall_estimate
from shardstream.predict.metrics.slices import Attribute, parts_of

# Fixes and regressions that are shown, of each.
NUM_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OtherPredictions:
    """What another model said of the same records; row i of each array speaks of record i.

    Attributes:
        predicted: int32, the top_k class, of equal ones the first.
        probabilities: float32, of that class.
        actual_probabilities: float32, of the label.
    """

    predicted: np.ndarray
    probabilities: np.ndarray
    actual_probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model takes.

    Attributes:
        num_parameters: All, those that are not trained included.
        file_bytes: Of best.keras.
        ms_per_picture: Of the model alone, in full batches, measured while the report was made.
    """

    num_parameters: int
    file_bytes: int
    ms_per_picture: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """How both models fare on some of the records.

    Attributes:
        num_examples: How many records.
        num_right: How many the first model gets right.
        num_right_other: How many the other one does.
        num_fixes: How many only the other one does.
        num_regressions: How many only the first one does.
        difference: Accuracy of the other one less that of the first, with its paired interval.
    """

    num_examples: int
    num_right: int
    num_right_other: int
    num_fixes: int
    num_regressions: int
    difference: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ComparedSlice:
    """How both models fare on the pictures that have something in common; see `slices.Slice`."""

    attribute: Attribute
    low: float
    high: float
    folder: str
    part: Part


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """What became of the same records with another model.

    Attributes:
        name: Of the other model, for people.
        accuracy: Of the other model.
        whole: On all records.
        classes: On the records of each class, in label order; None where none is of it.
        p_value: How likely a difference as large as this were, if both models were equally good (McNemar 1947).
        agreement: The share of records that both take for the same class.
        kappa: Agreement beyond chance (Cohen 1960): 1 is always, 0 as by chance; None where chance alone agrees always.
        fixes: int64 rows, the surest first.
        regressions: int64 rows, the surest first.
        slices: On parts of the records, where both models differ.
        cost: What the other model takes.
        said: What the other model said of each record.
    """

    name: str
    accuracy: Estimate
    whole: Part
    classes: tuple[Part | None, ...]
    p_value: float
    agreement: float
    kappa: float | None
    fixes: np.ndarray
    regressions: np.ndarray
    slices: tuple[ComparedSlice, ...]
    cost: Cost
    said: OtherPredictions

    def shown_rows(self) -> np.ndarray:
        """Returns int64 rows of the fixes and regressions that are shown as pictures."""
        return np.concatenate([self.fixes[:NUM_SHOWN], self.regressions[:NUM_SHOWN]])


def compare(
    outcomes: PredictionTable,
    other: OtherPredictions,
    weights: np.ndarray,
    *,
    name: str,
    cost: Cost,
    num_classes: int,
) -> Comparison:
    """Returns how another model fares on the records of `outcomes`, each weighed as the sample asks for."""
    right, right_other = outcomes.right, other.predicted == outcomes.labels
    fixes, regressions = np.flatnonzero(~right & right_other), np.flatnonzero(right & ~right_other)
    by_class = [outcomes.labels == label for label in range(num_classes)]
    return Comparison(
        name=name,
        accuracy=overall_estimate(right_other, weights, outcomes.labels),
        whole=_part(right, right_other, weights),
        classes=tuple(
            _part(right[rows], right_other[rows], weights[rows]) if rows.any() else None for rows in by_class
        ),
        p_value=mcnemar(len(fixes), len(regressions)),
        agreement=float(np.average(outcomes.predicted == other.predicted, weights=weights)),
        kappa=cohen_kappa(outcomes.predicted, other.predicted, weights, num_classes=num_classes),
        fixes=fixes[np.argsort(-other.probabilities[fixes], kind="stable")],
        regressions=regressions[np.argsort(-other.probabilities[regressions], kind="stable")],
        slices=tuple(_slices(outcomes, right, right_other, weights)),
        cost=cost,
        said=other,
    )


def mcnemar(num_fixes: int, num_regressions: int) -> float:
    """Returns the two-sided p-value of McNemar's test: exact, of a binomial distribution with p = 1/2.

    Exact for large counts too, where others take chi-square: it costs nothing, and of few pictures it is the only one
    that is right. Records on which both models are right or both wrong say nothing about which one is better.
    """
    fewer, more = sorted((num_fixes, num_regressions))
    differing = fewer + more
    # So many or less of the rarer kind: each number's chance is that of the one above times this.
    ratios = np.arange(fewer, 0, -1) / np.arange(more + 1, differing + 1)
    log_chance = math.lgamma(differing + 1) - math.lgamma(fewer + 1) - math.lgamma(more + 1)
    chance = math.exp(log_chance - differing * math.log(2)) * (1 + float(np.cumprod(ratios).sum()))
    return min(1.0, 2 * chance)


def cohen_kappa(
    predicted: np.ndarray, other: np.ndarray, weights: np.ndarray, *, num_classes: int
) -> float | None:
    """Returns the agreement of two labellings beyond chance; None where chance alone would make them agree."""
    total = weights.sum(dtype=np.float64)
    agreement = weights[predicted == other].sum(dtype=np.float64) / total
    shares, shares_other = (
        np.bincount(labels, weights, num_classes) / total for labels in (predicted, other)
    )
    by_chance = float(shares @ shares_other)
    return None if by_chance >= 1 - 1e-12 else float((agreement - by_chance) / (1 - by_chance))


def difference_estimate(fixes: float, regressions: float, size: float) -> Estimate:
    """Returns the difference of two accuracies on the same records with its interval (Bonett and Price 2012).

    One more of each kind is taken into the interval, so that a few records without a difference are no proof.

    Args:
        fixes: How many only the other model gets right.
        regressions: How many only the first one does.
        size: How many records there are; the effective number where they are weighed.
    """
    gained, lost = (fixes + 1) / (size + 2), (regressions + 1) / (size + 2)
    spread = Z * math.sqrt((gained + lost - (gained - lost) ** 2) / (size + 2))
    value = (fixes - regressions) / size
    centre = gained - lost
    return Estimate(value, max(-1.0, min(value, centre - spread)), min(1.0, max(value, centre + spread)))


def _slices(
    outcomes: PredictionTable, right: np.ndarray, right_other: np.ndarray, weights: np.ndarray
) -> Iterator[ComparedSlice]:
    for attribute, low, high, folder, rows in parts_of(outcomes):
        part = _part(right[rows], right_other[rows], weights[rows])
        if part.num_fixes != part.num_regressions:
            yield ComparedSlice(attribute=attribute, low=low, high=high, folder=folder, part=part)


def _part(right: np.ndarray, right_other: np.ndarray, weights: np.ndarray) -> Part:
    size, total = effective_size(weights), weights.sum(dtype=np.float64)
    fixed, lost = ~right & right_other, right & ~right_other
    return Part(
        num_examples=len(right),
        num_right=int(right.sum()),
        num_right_other=int(right_other.sum()),
        num_fixes=int(fixed.sum()),
        num_regressions=int(lost.sum()),
        difference=difference_estimate(
            size * float(weights[fixed].sum(dtype=np.float64) / total),
            size * float(weights[lost].sum(dtype=np.float64) / total),
            size,
        ),
    )
