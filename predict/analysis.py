"""What the predictions amount to: pure functions from labels to figures."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# The 97.5th percentile of the normal distribution: intervals hold with 95 % confidence.
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClassFigures:
    """How one class fares.

    Attributes:
        label: The number of the class.
        support: How many pictures are of it.
        num_predicted: How many pictures were taken for it.
        num_right: How many were both.
        precision: num_right / num_predicted; None where nothing was taken for it.
        recall: num_right / support; None where no picture is of it.
        f1: 2 num_right / (support + num_predicted); None where both are 0.
    """

    label: int
    support: int
    num_predicted: int
    num_right: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConfusedPair:
    """How many pictures of one class were taken for another, and their share of the class."""

    actual: int
    predicted: int
    count: int
    share: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The figures of one report.

    Attributes:
        num_examples: The number of pictures predicted.
        num_right: How many predictions were right.
        accuracy: Their share.
        interval: The 95 % Wilson interval of the accuracy.
        mean_loss: The mean cross-entropy, in nats.
        classes: In label order.
        confusion: int64 [actual, predicted] counts.
        confused_pairs: The most frequent first.
    """

    num_examples: int
    num_right: int
    accuracy: float
    interval: tuple[float, float]
    mean_loss: float
    classes: tuple[ClassFigures, ...]
    confusion: np.ndarray
    confused_pairs: tuple[ConfusedPair, ...]

    @property
    def num_wrong(self) -> int:
        """How many predictions were wrong."""
        return self.num_examples - self.num_right

    def worst_classes(self, count: int) -> list[ClassFigures]:
        """Returns the classes with errors, the lowest recall first, at most `count`."""
        erring = [figures for figures in self.classes if figures.num_right < figures.support]
        return sorted(erring, key=lambda figures: (figures.num_right / figures.support, -figures.support))[
            :count
        ]


def summarize(labels: np.ndarray, predicted: np.ndarray, losses: np.ndarray, *, num_classes: int) -> Summary:
    """Returns the figures of predictions.

    Args:
        labels: int [num_examples], at least one.
        predicted: int [num_examples].
        losses: float [num_examples].
        num_classes: Also counts classes that do not occur.
    """
    from sklearn.metrics import confusion_matrix  # It takes a second to import.

    confusion = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    num_right = int(np.trace(confusion))
    return Summary(
        num_examples=len(labels),
        num_right=num_right,
        accuracy=num_right / len(labels),
        interval=wilson_interval(num_right, len(labels)),
        mean_loss=float(np.mean(losses, dtype=np.float64)),
        classes=_class_figures(labels, predicted, confusion),
        confusion=confusion,
        confused_pairs=confused_pairs(confusion),
    )


def wilson_interval(num_right: int, num_examples: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927), which holds near 0 and 1 and for few examples."""
    share = num_right / num_examples
    spread = _Z * math.sqrt(share * (1 - share) / num_examples + _Z**2 / (4 * num_examples**2))
    scale = 1 + _Z**2 / num_examples
    centre = share + _Z**2 / (2 * num_examples)
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Rounding may pass 0, 1 or the share itself by 1e-16.
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def confused_pairs(confusion: np.ndarray) -> tuple[ConfusedPair, ...]:
    """Returns each pair of classes that was confused, the most frequent first."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    pairs = [
        ConfusedPair(
            actual=int(actual),
            predicted=int(predicted),
            count=int(wrong[actual, predicted]),
            share=float(wrong[actual, predicted] / confusion[actual].sum()),
        )
        for actual, predicted in np.argwhere(wrong)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.count, -pair.share)))


def classes_with_most_errors(summary: Summary, count: int) -> Sequence[int]:
    """Returns at most `count` labels in label order: those that take part in the most errors."""
    wrong = summary.confusion * ~np.eye(len(summary.confusion), dtype=bool)
    errors = wrong.sum(axis=0) + wrong.sum(axis=1)
    most = np.argsort(-errors, kind="stable")[:count]
    return sorted(int(label) for label in most)


def _class_figures(
    labels: np.ndarray, predicted: np.ndarray, confusion: np.ndarray
) -> tuple[ClassFigures, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    figures = precision_recall_fscore_support(
        labels,
        predicted,
        labels=np.arange(len(confusion)),
        zero_division=np.nan,  # pyright: ignore[reportArgumentType]  # The stubs know only the word "warn".
    )
    precision, recall, f1, support = (np.asarray(column) for column in figures)
    return tuple(
        ClassFigures(
            label=label,
            support=int(support[label]),
            num_predicted=int(confusion[:, label].sum()),
            num_right=int(confusion[label, label]),
            precision=_defined(precision[label]),
            recall=_defined(recall[label]),
            f1=_defined(f1[label]),
        )
        for label in range(len(confusion))
    )


def _defined(figure: float) -> float | None:
    return None if math.isnan(figure) else float(figure)
