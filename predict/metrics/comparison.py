"""Compares two models on the same records, and tests whether the difference is significant.

The first model is the subject of the report; the other one is compared with it. A fix is a record that only the other
model predicts correctly, a regression one that only the first model does.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import SIGNIFICANCE, Estimate, holm, overall_estimate
from shardstream.predict.metrics.paired_tests import (
    cohen_kappa,
    difference_estimate,
    difference_p_value,
    mcnemar,
    paired_size,
)
from shardstream.predict.metrics.slices import Attribute, parts_of

# Maximum number of fixes, and of regressions, to show.
NUM_SHOWN = 12


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OtherPredictions:
    """Predictions of another model for the same records; row i of each array belongs to record i.

    Attributes:
        predicted: int32, the most probable class, the first one in case of a tie.
        probabilities: float32, probability of that class.
        actual_probabilities: float32, probability of the label.
    """

    predicted: np.ndarray
    probabilities: np.ndarray
    actual_probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Resources that a model needs.

    Attributes:
        num_parameters: All parameters, including those not trained.
        file_bytes: Size of best.keras.
        ms_per_picture: Time of the model alone, in full batches, measured while the report was made.
    """

    num_parameters: int
    file_bytes: int
    ms_per_picture: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Metrics of both models on a subset of the records.

    Attributes:
        num_examples: Number of records.
        num_right: Number of correct predictions of the first model.
        num_right_other: Number of correct predictions of the other model.
        num_fixes: Number of records that only the other model predicts correctly.
        num_regressions: Number of records that only the first model predicts correctly.
        accuracy: Accuracy of the first model, weighted according to the sample.
        accuracy_other: Accuracy of the other model.
        difference: Accuracy of the other model minus that of the first, with its paired interval.
        p_value: Probability of a difference at least this large if both models were equally good.
        stands_out: Whether the difference is significant over all compared parts and models together.
    """

    num_examples: int
    num_right: int
    num_right_other: int
    num_fixes: int
    num_regressions: int
    accuracy: float
    accuracy_other: float
    difference: Estimate
    p_value: float
    stands_out: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ComparedSlice:
    """Metrics of both models on the images of a slice; see `slices.Slice`."""

    attribute: Attribute
    low: float
    high: float
    folder: str
    part: Part


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """Comparison with another model on the same records.

    Attributes:
        name: Name of the other model, for people.
        accuracy: Accuracy of the other model.
        whole: On all records.
        classes: On the records of each class, in label order; None for a class without records.
        p_value: Of the difference on all records, adjusted for the number of compared models (Holm 1979).
        is_weighted: Whether the records have different weights, so that raw counts are not meaningful.
        agreement: The fraction of records for which both predict the same class.
        kappa: Agreement beyond chance (Cohen 1960): 1 is perfect, 0 is chance; None if chance alone agrees always.
        fixes: int64 rows, the most confident first.
        regressions: int64 rows, the most confident first.
        slices: On the slices in which both models differ.
        cost: Cost of the other model.
        said: Predictions of the other model.
    """

    name: str
    accuracy: Estimate
    whole: Part
    classes: tuple[Part | None, ...]
    p_value: float
    is_weighted: bool
    agreement: float
    kappa: float | None
    fixes: np.ndarray
    regressions: np.ndarray
    slices: tuple[ComparedSlice, ...]
    cost: Cost
    said: OtherPredictions

    @property
    def parts(self) -> list[Part]:
        """The parts of the classes that occur and of the slices, in this order."""
        return [*(part for part in self.classes if part is not None), *(one.part for one in self.slices)]

    @property
    def is_clear(self) -> bool:
        """Whether the difference of both models is significant, at a level of 5 % over all models."""
        return self.p_value < SIGNIFICANCE

    def shown_rows(self) -> np.ndarray:
        """Returns int64 rows of the fixes and regressions whose images are shown."""
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
    """Returns the comparison with another model on the records of `outcomes`, weighted according to the sample."""
    right, right_other = outcomes.right, other.predicted == outcomes.labels
    fixes, regressions = np.flatnonzero(~right & right_other), np.flatnonzero(right & ~right_other)
    whole = _part(right, right_other, weights, outcomes.labels)
    return Comparison(
        name=name,
        accuracy=overall_estimate(right_other, weights, outcomes.labels),
        whole=whole,
        classes=_class_parts(outcomes.labels, right, right_other, num_classes),
        p_value=whole.p_value,
        is_weighted=not _is_uniform(weights),
        agreement=float(np.average(outcomes.predicted == other.predicted, weights=weights)),
        kappa=cohen_kappa(outcomes.predicted, other.predicted, weights, num_classes=num_classes),
        fixes=fixes[np.argsort(-other.probabilities[fixes], kind="stable")],
        regressions=regressions[np.argsort(-other.probabilities[regressions], kind="stable")],
        slices=tuple(_slices(outcomes, right, right_other, weights)),
        cost=cost,
        said=other,
    )


def correct_for_multiplicity(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons with p-values adjusted for multiple testing (Holm 1979).

    Those of complete datasets are one family. All classes and slices of all models are another, of which only those
    that are significant jointly stand out.
    """
    wholes = holm([one.p_value for one in comparisons])
    parts = [part for one in comparisons for part in one.parts]
    adjusted = iter(holm([part.p_value for part in parts]))

    def marked(part: Part) -> Part:
        p_value = next(adjusted)
        return dataclasses.replace(part, p_value=p_value, stands_out=p_value < SIGNIFICANCE)

    return [
        dataclasses.replace(
            one,
            p_value=p_value,
            classes=tuple(None if part is None else marked(part) for part in one.classes),
            slices=tuple(dataclasses.replace(each, part=marked(each.part)) for each in one.slices),
        )
        for one, p_value in zip(comparisons, wholes, strict=True)
    ]


def _slices(
    outcomes: PredictionTable, right: np.ndarray, right_other: np.ndarray, weights: np.ndarray
) -> Iterator[ComparedSlice]:
    for attribute, low, high, folder, rows in parts_of(outcomes):
        part = _part(right[rows], right_other[rows], weights[rows], outcomes.labels[rows])
        if part.num_fixes != part.num_regressions:
            yield ComparedSlice(attribute=attribute, low=low, high=high, folder=folder, part=part)


def _class_parts(
    labels: np.ndarray, right: np.ndarray, right_other: np.ndarray, num_classes: int
) -> tuple[Part | None, ...]:
    """Returns the metrics of both models on each class, within which all weights are equal."""
    # By counting: a mask for each of a thousand classes would take a kilobyte per record.
    kinds = (np.ones(len(labels), bool), right, right_other, ~right & right_other, right & ~right_other)
    counts = np.stack([np.bincount(labels[kind], minlength=num_classes) for kind in kinds], axis=1)
    return tuple(_counted_part(*row) if row[0] else None for row in counts.tolist())


def _counted_part(count: int, num_right: int, num_right_other: int, fixes: int, regressions: int) -> Part:
    return Part(
        num_examples=count,
        num_right=num_right,
        num_right_other=num_right_other,
        num_fixes=fixes,
        num_regressions=regressions,
        accuracy=num_right / count,
        accuracy_other=num_right_other / count,
        difference=difference_estimate(fixes, regressions, count),
        p_value=mcnemar(fixes, regressions),
    )


def _part(right: np.ndarray, right_other: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> Part:
    fixed, lost = ~right & right_other, right & ~right_other
    counts = [int(values.sum()) for values in (right, right_other, fixed, lost)]
    part = _counted_part(len(right), *counts)
    if _is_uniform(weights):
        return part
    # With different weights, raw counts do not apply: neither McNemar's test nor which model is better.
    fractions = weights / weights.sum(dtype=np.float64)
    accuracy, accuracy_other, gained, given = (
        float(fractions[values].sum(dtype=np.float64)) for values in (right, right_other, fixed, lost)
    )
    size = paired_size(fixed, lost, weights, labels)
    difference = difference_estimate(size * gained, size * given, size)
    return dataclasses.replace(
        part,
        accuracy=accuracy,
        accuracy_other=accuracy_other,
        difference=difference,
        p_value=difference_p_value(size * gained, size * given, size),
    )


def _is_uniform(weights: np.ndarray) -> bool:
    return bool((weights == weights[0]).all())
