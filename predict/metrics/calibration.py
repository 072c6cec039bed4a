"""Whether the probabilities can be believed: 0.8 should be right eight times of ten."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import (
    Estimate,
    effective_size,
    percentile_estimate,
    proportion_estimate,
)

# As in Guo et al. 2017, "On Calibration of Modern Neural Networks", which most papers follow.
NUM_BINS = 15

_NUM_BOOTSTRAPS = 1000
_NUM_COVERAGES = 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The pictures whose probability lies in an interval that does not include its lower end.

    Attributes:
        low: The lower end.
        high: The upper end.
        num_right: How many of them are right.
        num_wrong: How many are wrong.
        confidence: Their mean probability; None where there are none.
        accuracy: The share of right ones; None where there are none.
    """

    low: float
    high: float
    num_right: int
    num_wrong: int
    confidence: float | None
    accuracy: Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What comes of answering only where the model is sure enough.

    Attributes:
        share: Of the pictures that are answered.
        threshold: The lowest probability among them.
        accuracy: Of the answers.
    """

    share: float
    threshold: float
    accuracy: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How far probabilities and facts agree.

    Attributes:
        bins: 15 of equal width.
        ece: The expected calibration error: the mean distance of confidence and accuracy over the bins.
        confidence: The mean probability of the predicted class.
        coverage: The accuracy of the surest 5 %, 10 % ... of the pictures.
    """

    bins: Sequence[Bin]
    ece: Estimate
    confidence: float
    coverage: Sequence[Coverage]


def calibrate(outcomes: PredictionTable, weights: np.ndarray) -> Calibration:
    """Returns how far probabilities and facts agree; `weights` says for how many each of them stands."""
    right, probabilities = outcomes.right, outcomes.probabilities
    # A probability of exactly 0.2 belongs to the bin that ends there.
    numbers = np.clip(np.ceil(probabilities.astype(np.float64) * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    cells = 2 * numbers + right
    counts = np.bincount(cells, minlength=2 * NUM_BINS)
    totals = np.bincount(cells, weights, 2 * NUM_BINS)
    squares = np.bincount(numbers, np.square(weights, dtype=np.float64), NUM_BINS)
    sums = np.bincount(cells, weights * probabilities.astype(np.float64), 2 * NUM_BINS)
    ece = _expected_error(totals, sums)
    rng = np.random.default_rng(0)
    factors = rng.poisson(counts, (_NUM_BOOTSTRAPS, len(counts))) / np.maximum(counts, 1)
    drawn = np.array([_expected_error(totals * factor, sums * factor) for factor in factors])
    return Calibration(
        bins=[
            Bin(
                low=i / NUM_BINS,
                high=(i + 1) / NUM_BINS,
                num_right=int(counts[2 * i + 1]),
                num_wrong=int(counts[2 * i]),
                confidence=float(_at(sums, i) / _at(totals, i)) if _at(totals, i) else None,
                accuracy=proportion_estimate(
                    totals[2 * i + 1], _at(totals, i), _at(totals, i) ** 2 / squares[i]
                )
                if squares[i]
                else None,
            )
            for i in range(NUM_BINS)
        ],
        ece=percentile_estimate(ece, drawn),
        confidence=float(np.average(probabilities, weights=weights)),
        coverage=_coverages(probabilities, right, weights),
    )


def _at(cells: np.ndarray, number: int) -> float:
    return float(cells[2 * number] + cells[2 * number + 1])


def _expected_error(totals: np.ndarray, sums: np.ndarray) -> float:
    by_bin = totals.reshape(-1, 2)
    gaps = np.abs(sums.reshape(-1, 2).sum(axis=1) - by_bin[:, 1])
    return float(gaps.sum() / max(by_bin.sum(), 1e-12))


def _coverages(probabilities: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[Coverage]:
    order = np.argsort(-probabilities, kind="stable")
    covered = np.cumsum(weights[order], dtype=np.float64)
    found = np.cumsum((weights * right)[order], dtype=np.float64)
    points = []
    for share in np.arange(1, _NUM_COVERAGES + 1) / _NUM_COVERAGES:
        last = min(int(np.searchsorted(covered, share * covered[-1] * (1 - 1e-9))), len(order) - 1)
        # Equal probabilities cannot be told apart by a threshold: all of them are answered.
        threshold = probabilities[order[last]]
        last = int(np.searchsorted(-probabilities[order], -threshold, side="right")) - 1
        accuracy = proportion_estimate(found[last], covered[last], effective_size(weights[order[: last + 1]]))
        if accuracy is not None:
            points.append(
                Coverage(
                    share=float(covered[last] / covered[-1]), threshold=float(threshold), accuracy=accuracy
                )
            )
    return points
