"""Calibration: predictions with probability 0.8 should be correct eight times out of ten."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from shardstream.predict.inference.prediction_table import PredictionTable
from shardstream.predict.metrics.intervals import Estimate, Z, effective_size, proportion_estimate

# As in Guo et al. 2017, "On Calibration of Modern Neural Networks", and most later papers.
NUM_BINS = 15

_NUM_DRAWS = 4000
# Expected noise in a distance d of standard deviation s, about 1.38 s exp(-(d/s)^2): exact for a true distance of 0,
# sqrt(2 / pi) s, and within 0.05 s from 2 s on.
_BIAS = 1.382
# Standard deviations from which the sign of a distance is considered certain.
_BEYOND_CHANCE = 3.0
_NUM_COVERAGES = 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The images whose probability is in a half-open interval, without its lower end.

    Attributes:
        low: The lower end.
        high: The upper end.
        num_right: Number of correct predictions.
        num_wrong: Number of incorrect predictions.
        confidence: Mean probability; None for an empty bin.
        accuracy: Fraction of correct predictions; None for an empty bin.
    """

    low: float
    high: float
    num_right: int
    num_wrong: int
    confidence: float | None
    accuracy: Estimate | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """Selective prediction: the result of answering only above a confidence threshold.

    Attributes:
        share: Fraction of the images that are answered.
        threshold: The lowest probability among them.
        accuracy: Accuracy of the answers.
    """

    share: float
    threshold: float
    accuracy: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Calibration of the predicted probabilities.

    Attributes:
        bins: 15 of equal width.
        ece: The expected calibration error: the mean distance of confidence and accuracy over the bins, bias-corrected.
        ece_uncorrected: The same without correction, as usually reported (Guo et al. 2017).
        confidence: The mean probability of the predicted class.
        coverage: The accuracy of the most confident 5 %, 10 % ... of the images.
    """

    bins: Sequence[Bin]
    ece: Estimate
    ece_uncorrected: float
    confidence: float
    coverage: Sequence[Coverage]


def calibrate(outcomes: PredictionTable, weights: np.ndarray) -> Calibration:
    """Returns the calibration; `weights` says for how many images each prediction stands."""
    right, probabilities = outcomes.right, outcomes.probabilities
    # A probability of exactly 0.2 belongs to the bin with this upper end.
    numbers = np.clip(np.ceil(probabilities.astype(np.float64) * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    cells = 2 * numbers + right
    counts = np.bincount(cells, minlength=2 * NUM_BINS)
    totals = np.bincount(cells, weights, 2 * NUM_BINS)
    squares = np.bincount(numbers, np.square(weights, dtype=np.float64), NUM_BINS)
    sums = np.bincount(cells, weights * probabilities.astype(np.float64), 2 * NUM_BINS)
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
        ece=_expected_error(counts, totals, sums, squares),
        ece_uncorrected=_uncorrected_error(totals, sums),
        confidence=float(np.average(probabilities, weights=weights)),
        coverage=_coverages(probabilities, right, weights),
    )


def _at(cells: np.ndarray, number: int) -> float:
    return float(cells[2 * number] + cells[2 * number + 1])


def _uncorrected_error(totals: np.ndarray, sums: np.ndarray) -> float:
    by_bin = totals.reshape(-1, 2)
    return float(np.abs(sums.reshape(-1, 2).sum(axis=1) - by_bin[:, 1]).sum() / by_bin.sum())


def _expected_error(
    counts: np.ndarray, totals: np.ndarray, sums: np.ndarray, squares: np.ndarray
) -> Estimate:
    """Returns the bias-corrected expected calibration error, with an interval valid for calibrated models too.

    The plug-in error is never 0, as the accuracy of a bin varies by chance: for a calibrated model and 200 images it
    is about 0.06. The expected noise is subtracted from each distance, as far as the distance may be due to chance.
    The interval follows from the triangle inequality: the error of a sum of distances is at most the sum of the errors
    of each, with its sign only if the distance is significant. Conditional on the probabilities, as the bins are.

    Args:
        counts: int [2 * bins], the number of images in each bin, incorrect and correct predictions.
        totals: float, their weights.
        sums: float, their weighted probabilities.
        squares: float [bins], the sums of squared weights.
    """
    by_bin, counts = totals.reshape(-1, 2), counts.reshape(-1, 2)
    filled = counts.sum(axis=1) > 0
    by_bin, counts, squares = by_bin[filled], counts[filled], squares[filled]
    weights = by_bin.sum(axis=1)
    gaps = np.abs(sums.reshape(-1, 2).sum(axis=1)[filled] - by_bin[:, 1]) / weights
    # One more of each kind: a bin without errors in the sample may still have some.
    accuracies = (counts[:, 1] + 1) / (counts.sum(axis=1) + 2)
    deviations = np.sqrt(accuracies * (1 - accuracies) * squares) / weights
    fractions = weights / weights.sum()
    value = float(fractions @ gaps)
    bias = float(fractions @ (deviations * _BIAS * np.exp(-np.square(gaps / deviations))))
    noise = np.random.default_rng(0).standard_normal((_NUM_DRAWS, len(gaps))) * deviations
    noise = np.where(gaps > _BEYOND_CHANCE * deviations, noise, np.abs(noise)) @ fractions
    spread = Z * float(np.linalg.norm(fractions * deviations))
    low = max(0.0, value - float(np.percentile(noise, 97.5)))
    return Estimate(max(low, value - bias), low, min(1.0, value + spread))


def _coverages(probabilities: np.ndarray, right: np.ndarray, weights: np.ndarray) -> list[Coverage]:
    order = np.argsort(-probabilities, kind="stable")
    covered = np.cumsum(weights[order], dtype=np.float64)
    found = np.cumsum((weights * right)[order], dtype=np.float64)
    points = []
    for share in np.arange(1, _NUM_COVERAGES + 1) / _NUM_COVERAGES:
        last = min(int(np.searchsorted(covered, share * covered[-1] * (1 - 1e-9))), len(order) - 1)
        # A threshold cannot separate equal probabilities: all of them are answered.
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
