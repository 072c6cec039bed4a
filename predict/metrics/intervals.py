"""How far a figure from a sample may be from the truth: 95 % intervals."""

import dataclasses
import math

import numpy as np

# The 97.5th percentile of the normal distribution: intervals hold with 95 % confidence.
Z = 1.959963984540054


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson_interval(num_right: float, num_examples: float) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927), which holds near 0 and 1 and for few examples."""
    share = num_right / num_examples
    spread = Z * math.sqrt(share * (1 - share) / num_examples + Z**2 / (4 * num_examples**2))
    scale = 1 + Z**2 / num_examples
    centre = share + Z**2 / (2 * num_examples)
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Rounding may pass 0, 1 or the share itself by 1e-16.
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def proportion_estimate(part: float, whole: float, size: float) -> Estimate | None:
    """Returns part / whole with the Wilson interval of a sample of `size`; None where there is nothing to divide by.

    Args:
        part: The sum of the weights of those that count.
        whole: The sum of all weights.
        size: The effective size of the sample; the number of examples where all weigh the same.
    """
    if whole <= 0:
        return None
    share = min(1.0, float(part) / float(whole))
    return Estimate(share, *wilson_interval(share * float(size), float(size)))


def effective_size(weights: np.ndarray) -> float:
    """Returns how many examples of equal weight tell as much as these (Kish 1965)."""
    return float(weights.sum(dtype=np.float64) ** 2 / np.square(weights, dtype=np.float64).sum())


def stratified_size(right: np.ndarray, weights: np.ndarray, strata: np.ndarray) -> float:
    """Returns how many examples drawn uniformly would tell as much of the share of `right` as a stratified sample.

    Kish's size takes the classes for equally hard. Where the ones that stand for many are the hard ones, the variance
    of the strata is larger, so the smaller size of both is returned: intervals are rather too wide than too narrow.

    Args:
        right: bool [num_examples].
        weights: float [num_examples], the same within a stratum.
        strata: int [num_examples], the number of each one's stratum.
    """
    size = effective_size(weights)
    counts = np.bincount(strata)
    drawn = counts > 0
    totals = np.bincount(strata, weights)[drawn] / weights.sum(dtype=np.float64)
    # One more of each kind: a stratum without an error is not one that cannot have any.
    shares = (np.bincount(strata, right)[drawn] + 1) / (counts[drawn] + 2)
    variance = np.sum(totals**2 * shares * (1 - shares) / counts[drawn])
    share = float(np.sum(totals * shares))
    return float(min(size, share * (1 - share) / variance))


def overall_estimate(right: np.ndarray, weights: np.ndarray, strata: np.ndarray) -> Estimate:
    """Returns the weighted share of `right` with its interval; arguments as for `stratified_size`, at least one."""
    uniform = bool((weights == weights[0]).all())
    size = float(len(weights)) if uniform else stratified_size(right, weights, strata)
    total = weights.sum(dtype=np.float64)
    share = min(1.0, float(weights[right].sum(dtype=np.float64) / total))
    return Estimate(share, *wilson_interval(share * size, size))


def mean_estimate(values: np.ndarray, weights: np.ndarray) -> Estimate:
    """Returns the weighted mean of values that are not negative, with the interval of the normal distribution."""
    shares = weights / weights.sum(dtype=np.float64)
    mean = float(np.sum(shares * values, dtype=np.float64))
    spread = Z * math.sqrt(float(np.sum(np.square(shares * (values - mean)), dtype=np.float64)))
    return Estimate(mean, max(0.0, mean - spread), mean + spread)


def percentile_estimate(value: float, drawn: np.ndarray) -> Estimate:
    """Returns `value` with the interval that 95 % of its bootstrapped values lie in."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(min(low, value)), float(max(high, value)))
