"""Two models on the same records: who is right where, and whether the difference is more than chance.

The first model is the one that the report is of; the other one is compared with it. A fix is a record that the other
one gets right and the first one does not, a regression the reverse.
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
        accuracy: Of the first model, weighted as the sample asks for.
        accuracy_other: Of the other one.
        difference: Accuracy of the other one less that of the first, with its paired interval.
        p_value: How likely a difference as large as this were, if both models were equally good.
        stands_out: Whether the difference is beyond chance, all parts and models that are compared taken together.
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
    """How both models fare on the images that have something in common; see `slices.Slice`."""

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
        p_value: Of the difference on all records, adjusted for the number of models that are compared (Holm 1979).
        is_weighted: Whether the records have different weights, so that counting them says nothing.
        agreement: The share of records that both take for the same class.
        kappa: Agreement beyond chance (Cohen 1960): 1 is always, 0 as by chance; None where chance alone agrees always.
        fixes: int64 rows, the most confident first.
        regressions: int64 rows, the most confident first.
        slices: On parts of the records, where both models differ.
        cost: What the other model takes.
        said: What the other model said of each record.
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
        """Of the classes that occur and of the slices, in this order."""
        return [*(part for part in self.classes if part is not None), *(one.part for one in self.slices)]

    @property
    def is_clear(self) -> bool:
        """Whether the difference of both models is beyond chance, at a level of 5 % over all models."""
        return self.p_value < SIGNIFICANCE

    def shown_rows(self) -> np.ndarray:
        """Returns int64 rows of the fixes and regressions that are shown as images."""
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
    """Returns the comparisons with p-values that are adjusted for how many there are (Holm 1979).

    Those of whole models are one family. All classes and slices of all of them are another, of which only those that
    are beyond chance together stand out.
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
    """Returns how both models fare on each class, within which all weights are equal."""
    # By counts: a mask for each of a thousand classes would take a kilobyte a record.
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
    # Of different weights counts say nothing: neither McNemar's test nor which model is better.
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
