"""What the predictions amount to: the figures of a report and of each class."""

import dataclasses

import numpy as np

from shardstream.predict.inference.prediction_table import TOP, PredictionTable
from shardstream.predict.metrics.confusion import Confusion, count_confusion
from shardstream.predict.metrics.intervals import (
    Estimate,
    mean_estimate,
    overall_estimate,
    percentile_estimate,
    proportion_estimate,
)

# Enough that the ends of an interval stand still in the digits that are shown.
_NUM_BOOTSTRAPS = 400


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassMetrics:
    """How one class fares.

    Attributes:
        label: The number of the class.
        support: How many pictures are of it.
        num_predicted: How many pictures were taken for it.
        num_right: How many were both.
        precision: The share of the pictures taken for it that are; None where nothing was taken for it.
        recall: The share of its pictures that were found; None where no picture is of it.
        f1: Their harmonic mean; None where no picture is of it and nothing was taken for it.
    """

    label: int
    support: int
    num_predicted: int
    num_right: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Summary:
    """The figures of one report, each weighed as its sample asks for.

    Attributes:
        num_examples: The number of pictures predicted.
        num_right: How many predictions were right.
        accuracy: The share of right ones.
        top5_accuracy: The share whose class is among the five top_k; None where there are no more classes.
        balanced_accuracy: The mean recall of the classes that occur.
        macro_f1: The mean F1 of the classes for which it is defined.
        mean_loss: The mean cross-entropy, in nats.
        brier: The mean squared distance of the probabilities from the truth: 0 to 2.
        classes: In label order.
        confusion: What was taken for what.
    """

    num_examples: int
    num_right: int
    accuracy: Estimate
    top5_accuracy: Estimate | None
    balanced_accuracy: Estimate
    macro_f1: Estimate
    mean_loss: Estimate
    brier: Estimate
    classes: tuple[ClassMetrics, ...]
    confusion: Confusion

    @property
    def num_wrong(self) -> int:
        """How many predictions were wrong."""
        return self.num_examples - self.num_right

    def worst_classes(self, count: int) -> list[ClassMetrics]:
        """Returns the classes with errors, the lowest recall first, at most `count`."""
        erring = [figures for figures in self.classes if figures.num_right < figures.support]
        return sorted(erring, key=lambda figures: (figures.num_right / figures.support, -figures.support))[
            :count
        ]


def summarize(outcomes: PredictionTable, weights: np.ndarray, *, num_classes: int) -> Summary:
    """Returns the figures of predictions.

    Args:
        outcomes: At least one.
        weights: float [num_examples], how many of the whole each stands for; the same within a class.
        num_classes: Also counts classes that do not occur.
    """
    confusion = count_confusion(outcomes.labels, outcomes.predicted, weights, num_classes=num_classes)
    balanced_accuracy, macro_f1 = _class_means(confusion)
    in_top = (outcomes.top_labels == outcomes.labels[:, np.newaxis]).any(axis=1)
    return Summary(
        num_examples=len(outcomes),
        num_right=int(confusion.counts[confusion.right].sum()),
        accuracy=overall_estimate(outcomes.right, weights, outcomes.labels),
        top5_accuracy=overall_estimate(in_top, weights, outcomes.labels) if num_classes > TOP else None,
        balanced_accuracy=balanced_accuracy,
        macro_f1=macro_f1,
        mean_loss=mean_estimate(outcomes.losses, weights),
        brier=mean_estimate(outcomes.brier, weights),
        classes=class_metrics(outcomes, weights, confusion),
        confusion=confusion,
    )


def class_metrics(
    outcomes: PredictionTable, weights: np.ndarray, confusion: Confusion
) -> tuple[ClassMetrics, ...]:
    """Returns how each class fares, in label order; arguments as for `summarize`."""
    squares = np.bincount(
        np.searchsorted(_keys(confusion), _keys_of(outcomes, confusion)),
        np.square(weights, dtype=np.float64),
        len(confusion.counts),
    )
    sums = [
        (confusion.by_actual(values), confusion.by_predicted(values), confusion.on_diagonal(values))
        for values in (confusion.counts, confusion.weights, squares)
    ]
    (support, num_predicted, num_right), (actual, predicted, right), (actual2, predicted2, right2) = sums
    either, either2 = actual + predicted - right, actual2 + predicted2 - right2
    return tuple(
        ClassMetrics(
            label=c,
            support=int(support[c]),
            num_predicted=int(num_predicted[c]),
            num_right=int(num_right[c]),
            precision=_share(right[c], predicted[c], predicted2[c]),
            recall=_share(right[c], actual[c], actual2[c]),
            f1=_f1(_share(right[c], either[c], either2[c])),
        )
        for c in range(confusion.num_classes)
    )


def _keys(confusion: Confusion) -> np.ndarray:
    return confusion.actual * confusion.num_classes + confusion.predicted


def _keys_of(outcomes: PredictionTable, confusion: Confusion) -> np.ndarray:
    return outcomes.labels.astype(np.int64) * confusion.num_classes + outcomes.predicted


def _share(part: float, whole: float, squares: float) -> Estimate | None:
    return proportion_estimate(part, whole, whole**2 / squares) if squares > 0 else None


def _f1(overlap: Estimate | None) -> Estimate | None:
    """Returns F1 from the share of the pictures that are of a class or taken for it which are both.

    F1 = 2 s / (1 + s) rises with that share s, which is one of a binomial: so F1 has an interval in closed form too.
    """
    if overlap is None:
        return None
    return Estimate(*(2 * share / (1 + share) for share in dataclasses.astuple(overlap)))


def _class_means(confusion: Confusion) -> tuple[Estimate, Estimate]:
    """Returns the balanced accuracy and the macro F1, with intervals by the bootstrap.

    What a cell of the matrix holds is drawn anew from the Poisson distribution, which is what drawing pictures anew
    does to it; a million pictures are no more work than their cells.
    """
    rng = np.random.default_rng(0)
    each = confusion.weights / confusion.counts
    drawn = [_means(confusion, rng.poisson(confusion.counts) * each) for _ in range(_NUM_BOOTSTRAPS)]
    balanced_accuracy, macro_f1 = _means(confusion, confusion.weights)
    balanced, f1 = np.array(drawn).T
    return percentile_estimate(balanced_accuracy, balanced), percentile_estimate(macro_f1, f1)


def _means(confusion: Confusion, weights: np.ndarray) -> tuple[float, float]:
    actual, predicted = confusion.by_actual(weights), confusion.by_predicted(weights)
    right = confusion.on_diagonal(weights)
    occurs, counts = actual > 0, actual + predicted > 0
    if not counts.any():  # A bootstrap may draw nothing at all of very few.
        return 0.0, 0.0
    recall = np.mean(right[occurs] / actual[occurs]) if occurs.any() else 0.0
    return float(recall), float(np.mean(2 * right[counts] / (actual + predicted)[counts]))
