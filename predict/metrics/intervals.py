"""95 % confidence intervals of metrics from a sample."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

# The 97.5th percentile of the normal distribution, for 95 % intervals.
Z = 1.959963984540054

# Lower 5 % limits of the Poisson mean after observing 0 to 3 events; from 4 on Wilson's limit is used.
_POISSON_LIMITS = (0.0, 0.0513, 0.3554, 0.8177, 1.555)

# These apply to a small fraction of the examples.
_RARE = 0.15

# Significance level: chance alone gives a smaller p-value in one of 20 reports.
SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def wilson_interval(num_right: float, num_examples: float) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson 1927), valid near 0 and 1 and for few examples."""
    share = num_right / num_examples
    spread = Z * math.sqrt(share * (1 - share) / num_examples + Z**2 / (4 * num_examples**2))
    scale = 1 + Z**2 / num_examples
    centre = share + Z**2 / (2 * num_examples)
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Rounding may exceed 0, 1 or the proportion itself by 1e-16.
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def proportion_interval(num_right: float, num_examples: float) -> tuple[float, float]:
    """Returns Wilson's interval, extended if there are only one to three successes or failures.

    There Wilson's interval is too short, with a coverage of 91 instead of 95 % at worst. So the limit of the Poisson
    distribution replaces its nearer end (Brown, Cai and DasGupta 2001). Fractional counts, as with the effective size
    of a weighted sample, are interpolated.
    """
    low, high = wilson_interval(num_right, num_examples)
    rare_right, rare_wrong = (
        float(np.interp(count, range(len(_POISSON_LIMITS)), _POISSON_LIMITS)) / num_examples
        if count < min(len(_POISSON_LIMITS) - 1, _RARE * num_examples)
        else 1.0
        for count in (num_right, num_examples - num_right)
    )
    return min(low, rare_right), max(high, 1 - rare_wrong)


def proportion_estimate(part: float, whole: float, size: float) -> Estimate | None:
    """Returns part / whole with the Wilson interval for a sample of `size`; None if `whole` is 0.

    Args:
        part: The sum of the weights of the successes.
        whole: The sum of all weights.
        size: The effective sample size; the number of examples if all weights are equal.
    """
    if whole <= 0:
        return None
    share = min(1.0, float(part) / float(whole))
    return Estimate(share, *proportion_interval(share * float(size), float(size)))


def effective_size(weights: np.ndarray) -> float:
    """Returns the effective sample size: the number of equally weighted examples as precise as these (Kish 1965)."""
    return float(weights.sum(dtype=np.float64) ** 2 / np.square(weights, dtype=np.float64).sum())


def stratified_size(right: np.ndarray, weights: np.ndarray, strata: np.ndarray) -> float:
    """Returns the size of a uniform sample that estimates the fraction of `right` as precisely as a stratified one.

    Kish's size assumes that all classes are equally hard. If classes with large weights are the hard ones, the variance
    over the strata is larger, so the smaller of both sizes is returned: intervals are rather too wide than too narrow.

    Args:
        right: bool [num_examples].
        weights: float [num_examples], the same within a stratum.
        strata: int [num_examples], the stratum of each example.
    """
    size = effective_size(weights)
    counts = np.bincount(strata)
    drawn = counts > 0
    totals = np.bincount(strata, weights)[drawn] / weights.sum(dtype=np.float64)
    # One more of each kind: a stratum without errors in the sample may still have some.
    shares = (np.bincount(strata, right)[drawn] + 1) / (counts[drawn] + 2)
    variance = np.sum(totals**2 * shares * (1 - shares) / counts[drawn])
    share = float(np.sum(totals * shares))
    return float(min(size, share * (1 - share) / variance))


def overall_estimate(right: np.ndarray, weights: np.ndarray, strata: np.ndarray) -> Estimate:
    """Returns the weighted fraction of `right` with its interval; arguments as for `stratified_size`, at least one."""
    uniform = bool((weights == weights[0]).all())
    size = float(len(weights)) if uniform else stratified_size(right, weights, strata)
    total = weights.sum(dtype=np.float64)
    share = min(1.0, float(weights[right].sum(dtype=np.float64) / total))
    return Estimate(share, *proportion_interval(share * size, size))


def mean_estimate(values: np.ndarray, weights: np.ndarray, *, high: float) -> Estimate | None:
    """Returns the weighted mean of non-negative values, with its interval; None for a single value.

    Losses are skewed: a few images outside the sample may hold most of the loss, so the normal interval of a good model
    is far too narrow. As Agresti and Coull do for a proportion, the upper end includes one more image: a confident
    error with the value `high`. The lower end uses Student's t.

    Args:
        values: float [num_examples].
        weights: float [num_examples].
        high: The value of a confident error; a larger one among the values is used instead.
    """
    size = effective_size(weights)
    if len(values) < 2 or size <= 1:
        return None
    mean, deviation = _moments(values, weights)
    extended = np.append(values, max(high, float(values.max()))), np.append(weights, weights.max())
    mean_above, deviation_above = _moments(*extended)
    t = float(stdtrit(size - 1, 0.975))
    return Estimate(
        mean,
        max(0.0, mean - t * deviation / math.sqrt(size)),
        mean_above + t * deviation_above / math.sqrt(effective_size(extended[1])),
    )


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Returns the weighted mean and the unbiased standard deviation."""
    size = effective_size(weights)
    fractions = weights / weights.sum(dtype=np.float64)
    mean = float(np.sum(fractions * values, dtype=np.float64))
    variance = float(np.sum(fractions * np.square(values - mean), dtype=np.float64))
    return mean, math.sqrt(variance * size / (size - 1))


def normal_p_value(z: float) -> float:
    """Returns the two-sided p-value of a standard normal value."""
    return math.erfc(abs(z) / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for multiple testing (Holm 1979): one in 20 reports has a false positive below 0.05."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = len(p_values) - np.arange(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted.tolist()
