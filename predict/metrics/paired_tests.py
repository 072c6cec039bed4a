"""Paired tests and intervals of two models on the same records: McNemar, difference of accuracies, Cohen's kappa."""

import math

import numpy as np
from scipy.special import bdtr

from shardstream.predict.metrics.intervals import Estimate, Z, effective_size, normal_p_value


def mcnemar(num_fixes: int, num_regressions: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test: of a binomial distribution with p = 1/2.

    Exact for large counts too, where others use chi-square: it is cheap, and for few images only the exact test is
    correct. Records that both models predict correctly or both incorrectly do not matter.
    """
    return min(1.0, 2 * float(bdtr(min(num_fixes, num_regressions), num_fixes + num_regressions, 0.5)))


def cohen_kappa(
    predicted: np.ndarray, other: np.ndarray, weights: np.ndarray, *, num_classes: int
) -> float | None:
    """Returns the agreement of two labellings beyond chance; None if chance alone would make them agree."""
    total = weights.sum(dtype=np.float64)
    agreement = weights[predicted == other].sum(dtype=np.float64) / total
    shares, shares_other = (
        np.bincount(labels, weights, num_classes) / total for labels in (predicted, other)
    )
    by_chance = float(shares @ shares_other)
    return None if by_chance >= 1 - 1e-12 else float((agreement - by_chance) / (1 - by_chance))


def difference_estimate(fixes: float, regressions: float, size: float) -> Estimate:
    """Returns the difference of two accuracies on the same records with its interval (Bonett and Price 2012).

    The interval adds one more of each kind, so that a few records without a difference are not taken as proof.

    Args:
        fixes: Number of records that only the other model predicts correctly.
        regressions: Number of records that only the first model predicts correctly.
        size: Number of records; the effective number if they are weighted.
    """
    gained, lost = (fixes + 1) / (size + 2), (regressions + 1) / (size + 2)
    spread = Z * math.sqrt((gained + lost - (gained - lost) ** 2) / (size + 2))
    value = (fixes - regressions) / size
    centre = gained - lost
    return Estimate(value, max(-1.0, min(value, centre - spread)), min(1.0, max(value, centre + spread)))


def paired_size(fixed: np.ndarray, lost: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """Returns the number of equally weighted pairs that estimate the difference as precisely as a stratified sample.

    As `intervals.stratified_size`, for a difference: the smaller of Kish's size and the size from the variances of the
    strata.
    """
    counts = np.bincount(labels)
    drawn = counts > 0
    counts = counts[drawn]
    fractions = np.bincount(labels, weights)[drawn] / weights.sum(dtype=np.float64)
    gained, given = ((np.bincount(labels, values)[drawn] + 1) / (counts + 3) for values in (fixed, lost))
    variance = np.sum(fractions**2 * (gained + given - (gained - given) ** 2) / counts)
    gains, losses = fractions @ gained, fractions @ given
    return float(min(effective_size(weights), (gains + losses - (gains - losses) ** 2) / variance))


def difference_p_value(fixes: float, regressions: float, size: float) -> float:
    """Returns the p-value of a weighted difference, which is below 0.05 if its interval excludes 0."""
    gained, lost = (fixes + 1) / (size + 2), (regressions + 1) / (size + 2)
    variance = (gained + lost - (gained - lost) ** 2) / (size + 2)
    return normal_p_value((gained - lost) / math.sqrt(variance))
