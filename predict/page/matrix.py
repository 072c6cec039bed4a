"""The confusion matrix of the page: a table for few classes, and sparse cells of all classes for its script."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from shardstream.predict.metrics.confusion import Confusion

# Larger tables are not readable, and one of 1,000 classes would make a page of 200 MB.
MAX_CLASSES = 20

# Cells for the script, to show tables of other classes: 100 kB.
_MAX_CELLS = 6000

MAX_PAIRS = 300


def matrix_rows(confusion: Confusion, labels: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the rows of the table for these classes."""
    counts, support = confusion.dense(labels), confusion.support
    return [
        {
            "label": actual,
            # Fractions are of the complete row, even if only some of its columns are shown.
            "cells": [
                _cell(predicted, int(counts[row, column]), int(support[actual]))
                for column, predicted in enumerate(labels)
            ],
        }
        for row, actual in enumerate(labels)
    ]


def sparse_cells(confusion: Confusion) -> list[list[int]]:
    """Returns [actual, predicted, count] of the diagonal cells and of the most frequent errors."""
    mistakes = np.flatnonzero(~confusion.right)
    mistakes = mistakes[np.argsort(-confusion.counts[mistakes], kind="stable")][:_MAX_CELLS]
    cells = np.concatenate([np.flatnonzero(confusion.right), mistakes])
    columns = (confusion.actual[cells], confusion.predicted[cells], confusion.counts[cells])
    return np.stack(columns, axis=1).tolist()


def _cell(predicted: int, count: int, support: int) -> dict[str, Any]:
    share = count / max(support, 1)
    return {"label": predicted, "count": count, "share": share, "shade": min(int(10 * share), 9)}
