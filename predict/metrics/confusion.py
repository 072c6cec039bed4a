"""A sparse confusion matrix: only the non-zero cells are stored."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConfusedPair:
    """Images of one class that were predicted as another.

    Attributes:
        actual: The label.
        predicted: The predicted class.
        count: Number of images in the sample.
        share: Their fraction of the class.
        share_of_errors: Their fraction of all errors, weighted according to the sample.
    """

    actual: int
    predicted: int
    count: int
    share: float
    share_of_errors: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Confusion:
    """Row i of each array belongs to cell i; cells are ordered by actual, then by predicted class.

    Attributes:
        num_classes: Number of classes, including those that do not occur.
        actual: int64, the label.
        predicted: int64, the predicted class.
        counts: int64, number of images.
        weights: float64, number of images they stand for.
    """

    num_classes: int
    actual: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    weights: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool, the cells on the diagonal."""
        return self.actual == self.predicted

    @property
    def support(self) -> np.ndarray:
        """int64 [num_classes], number of images of each class."""
        return self.by_actual(self.counts).astype(np.int64)

    def by_actual(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 [num_classes], the row sums of cell values."""
        return np.bincount(self.actual, values, self.num_classes)

    def by_predicted(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 [num_classes], the column sums of cell values."""
        return np.bincount(self.predicted, values, self.num_classes)

    def on_diagonal(self, values: np.ndarray) -> np.ndarray:
        """Returns float64 [num_classes], the cell values on the diagonal."""
        return np.bincount(self.actual[self.right], values[self.right], self.num_classes)

    def dense(self, labels: Sequence[int]) -> np.ndarray:
        """Returns int64 [len(labels), len(labels)], the counts of the submatrix of these classes."""
        place = np.full(self.num_classes, -1)
        place[list(labels)] = np.arange(len(labels))
        rows, columns = place[self.actual], place[self.predicted]
        inside = (rows >= 0) & (columns >= 0)
        matrix = np.zeros((len(labels), len(labels)), np.int64)
        matrix[rows[inside], columns[inside]] = self.counts[inside]
        return matrix

    def confused_pairs(self) -> list[ConfusedPair]:
        """Returns each pair of classes that was confused, most frequent first by weight."""
        cells = np.flatnonzero(~self.right)
        weights = self.weights[cells]
        shares = weights / self.by_actual(self.weights)[self.actual[cells]]
        of_errors = weights / max(float(weights.sum()), 1e-12)
        order = np.lexsort((self.predicted[cells], self.actual[cells], -shares, -np.round(weights, 6)))
        return [
            ConfusedPair(
                actual=int(self.actual[cells[i]]),
                predicted=int(self.predicted[cells[i]]),
                count=int(self.counts[cells[i]]),
                share=float(shares[i]),
                share_of_errors=float(of_errors[i]),
            )
            for i in order
        ]

    def classes_with_most_errors(self, count: int) -> list[int]:
        """Returns at most `count` labels in label order: those involved in the most errors by weight."""
        wrong = np.where(self.right, 0, self.weights)
        errors = self.by_actual(wrong) + self.by_predicted(wrong)
        return sorted(np.argsort(-errors, kind="stable")[:count].tolist())


def count_confusion(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, num_classes: int
) -> Confusion:
    """Returns the confusion matrix of int labels and predictions, both [num_examples]."""
    cells, places = np.unique(labels.astype(np.int64) * num_classes + predicted, return_inverse=True)
    return Confusion(
        num_classes=num_classes,
        actual=cells // num_classes,
        predicted=cells % num_classes,
        counts=np.bincount(places, minlength=len(cells)),
        weights=np.bincount(places, weights, len(cells)),
    )
