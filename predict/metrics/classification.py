"""Classification metrics, overall and per class."""

import dataclasses
import math

import numpy as np

from shardstream.predict.inference.prediction_table import TOP, PredictionTable
from shardstream.predict.metrics.confusion import Confusion, count_confusion
from shardstream.predict.metrics.intervals import (
    Estimate,
    mean_estimate,
    overall_estimate,
    proportion_estimate,
    proportion_interval,
)

# The Brier score of a confident error: 2 if all of the probability is on another class.
_BRIER_OF_MISTAKE = 1.5

_NUM_DRAWS = 300
_MAX_CELLS = 1_000_000  # Matrices drawn at once: 8 MB.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
        label: The number of the class.
        support: Number of images of the class.
        num_predicted: Number of images predicted as the class.
        num_right: Number of correct predictions of the class.
        precision: The fraction of the images predicted as the class that are of it; None if there are none.
        recall: The fraction of its images predicted correctly; None if there are none.
        f1: Their harmonic mean; None if no image is of the class and none was predicted as it.
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
    """Metrics of a report, weighted according to its sample.

    Attributes:
        num_examples: The number of images predicted.
        num_right: Number of correct predictions.
        accuracy: Fraction of correct predictions.
        top5_accuracy: Fraction whose label is among the five most probable; None with five classes or fewer.
        balanced_accuracy: Mean recall of the classes that occur.
        macro_f1: Mean F1 of the classes for which it is defined.
        mean_loss: Mean cross-entropy, in nats; None for a single image, which gives no interval.
        brier: Mean squared distance of the probabilities from the one-hot label: 0 to 2; None for a single image.
        classes: In label order.
        confusion: The confusion matrix.
    """

    num_examples: int
    num_right: int
    accuracy: Estimate
    top5_accuracy: Estimate | None
    balanced_accuracy: Estimate
    macro_f1: Estimate
    mean_loss: Estimate | None
    brier: Estimate | None
    classes: tuple[ClassMetrics, ...]
    confusion: Confusion

    @property
    def num_wrong(self) -> int:
        """Number of incorrect predictions."""
        return self.num_examples - self.num_right

    @property
    def untested(self) -> list[int]:
        """The labels of the classes without an image, whose recall is unknown."""
        return [figures.label for figures in self.classes if not figures.support]

    def worst_classes(self, count: int) -> list[ClassMetrics]:
        """Returns the classes with errors, lowest recall first, at most `count`."""
        erring = [figures for figures in self.classes if figures.num_right < figures.support]
        return sorted(erring, key=lambda figures: (figures.num_right / figures.support, -figures.support))[
            :count
        ]


def summarize(outcomes: PredictionTable, weights: np.ndarray, *, num_classes: int) -> Summary:
    """Returns the metrics of predictions.

    Args:
        outcomes: The predictions, at least one.
        weights: float [num_examples], how many images each stands for; the same within a class.
        num_classes: Number of classes, including those that do not occur.
    """
    confusion = count_confusion(outcomes.labels, outcomes.predicted, weights, num_classes=num_classes)
    in_top = (outcomes.top_labels == outcomes.labels[:, np.newaxis]).any(axis=1)
    return Summary(
        num_examples=len(outcomes),
        num_right=int(confusion.counts[confusion.right].sum()),
        accuracy=overall_estimate(outcomes.right, weights, outcomes.labels),
        top5_accuracy=overall_estimate(in_top, weights, outcomes.labels) if num_classes > TOP else None,
        balanced_accuracy=balanced_accuracy(outcomes),
        macro_f1=macro_f1(confusion),
        # A confident error: the actual class adds the square of an equal part.
        mean_loss=mean_estimate(outcomes.losses, weights, high=2 * math.log(max(num_classes, 2))),
        brier=mean_estimate(outcomes.brier, weights, high=_BRIER_OF_MISTAKE),
        classes=class_metrics(outcomes, weights, confusion),
        confusion=confusion,
    )


def class_metrics(
    outcomes: PredictionTable, weights: np.ndarray, confusion: Confusion
) -> tuple[ClassMetrics, ...]:
    """Returns the metrics of each class, in label order; arguments as for `summarize`."""
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
    """Returns F1 from the fraction of the images of or predicted as a class that are both.

    F1 = 2 s / (1 + s) is monotone in that fraction s, which is a proportion: so F1 has a closed-form interval too.
    """
    if overlap is None:
        return None
    return Estimate(*(2 * share / (1 + share) for share in dataclasses.astuple(overlap)))


def balanced_accuracy(outcomes: PredictionTable) -> Estimate:
    """Returns the mean recall of the classes that occur: the accuracy with equal class weights."""
    support = np.bincount(outcomes.labels)
    return overall_estimate(outcomes.right, 1 / support[outcomes.labels], outcomes.labels)


def macro_f1(confusion: Confusion) -> Estimate:
    """Returns the mean F1 of the classes for which it is defined, with its interval.

    Resamples matrices around one in which each class has an additional correct image and error, as a class without
    errors in the sample may still have some. Their spread gives the sample size at which a proportion would vary as
    much; the distance of their mean from the matrix is the bias of a ratio of small counts.
    """
    support = confusion.support
    each = confusion.by_actual(confusion.weights) / np.maximum(support, 1)  # The weight of one image.
    shrunk = support / (support + 2)  # The drawn matrices have as many images as the original.
    rates = np.where(confusion.right, confusion.counts + 1, confusion.counts) * shrunk[confusion.actual]
    one_more = (each * shrunk)[np.newaxis]
    num_others = max(confusion.num_classes - 1, 1)
    none = np.zeros((1, confusion.num_classes))
    value = float(_f1_means(confusion, confusion.counts[np.newaxis], each, none, none)[0])
    spread = (one_more.sum() - one_more) / num_others
    centre = float(_f1_means(confusion, rates[np.newaxis], each, one_more, spread)[0])
    rng = np.random.default_rng(0)
    at_once = max(1, _MAX_CELLS // len(rates))
    drawn = np.concatenate(
        [
            _f1_means(
                confusion,
                rng.poisson(rates, (min(at_once, _NUM_DRAWS - first), len(rates))),
                each,
                *_draw_errors(rng, shrunk, each, min(at_once, _NUM_DRAWS - first)),
            )
            for first in range(0, _NUM_DRAWS, at_once)
        ]
    )
    # With very few images all draws may be identical.
    size = min(float(support.sum()), max(centre * (1 - centre), 1e-3) / max(float(drawn.var()), 1e-6))
    unbiased = min(1.0, max(0.0, value - float(drawn.mean()) + centre))
    # A sample with the same number of images per class has less of that bias: the interval covers both cases.
    ends = [proportion_interval(share * size, size) for share in (value, unbiased)]
    return Estimate(value, min(low for low, _ in ends), max(high for _, high in ends))


def _draw_errors(
    rng: np.random.Generator, rates: np.ndarray, each: np.ndarray, num_draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns [num_draws, num_classes], the weights of drawn errors by actual and by predicted (any other) class."""
    num_classes = len(rates)
    cells = np.repeat(
        np.arange(num_draws * num_classes), rng.poisson(rates, (num_draws, num_classes)).ravel()
    )
    draws, actual = np.divmod(cells, num_classes)
    predicted = (actual + rng.integers(1, max(num_classes, 2), len(actual))) % num_classes
    by_actual, by_predicted = (
        np.bincount(draws * num_classes + labels, each[actual], num_draws * num_classes).reshape(
            num_draws, -1
        )
        for labels in (actual, predicted)
    )
    return by_actual, by_predicted


def _f1_means(
    confusion: Confusion,
    counts: np.ndarray,
    each: np.ndarray,
    by_actual: np.ndarray,
    by_predicted: np.ndarray,
) -> np.ndarray:
    """Returns the macro F1 of several matrices with the cells of `confusion` and other counts, [matrices, cells].

    Args:
        confusion: The cells.
        counts: Number of images in each cell.
        each: Weight of an image of each class.
        by_actual: Additional off-diagonal weight in the rows, [matrices, num_classes].
        by_predicted: The same in the columns.
    """
    num_matrices, num_classes = by_actual.shape
    weights = counts * each[confusion.actual]
    firsts = num_classes * np.arange(num_matrices)[:, np.newaxis]

    def total(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
        sums = np.bincount((firsts + labels).ravel(), values.ravel(), num_matrices * num_classes)
        return sums.reshape(num_matrices, num_classes)

    found = 2 * total(confusion.actual, np.where(confusion.right, weights, 0))
    both = total(confusion.actual, weights) + by_actual + total(confusion.predicted, weights) + by_predicted
    defined = both > 0
    return (found / np.where(defined, both, 1)).sum(axis=1) / np.maximum(defined.sum(axis=1), 1)
