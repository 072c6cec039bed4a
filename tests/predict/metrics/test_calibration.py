"""Calibration against another implementation, and by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from shardstream.predict.metrics.calibration import NUM_BINS, calibrate


def another_ece(probabilities, right, weights):
    """As in the code of Guo et al. 2017: a loop over bins that do not include their lower end."""
    total = 0.0
    for low in np.arange(NUM_BINS) / NUM_BINS:
        inside = (probabilities > low) & (probabilities <= low + 1 / NUM_BINS)
        if inside.any():
            gap = np.average(probabilities[inside], weights=weights[inside]) - np.average(
                right[inside], weights=weights[inside]
            )
            total += abs(gap) * weights[inside].sum() / weights.sum()
    return total


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_agrees_with_another_implementation(make_outcomes, seed, weighted):
    rng = np.random.default_rng(seed)
    outcomes = make_outcomes(rng.integers(0, 4, 500), rng.dirichlet(np.full(4, 0.4), 500))
    weights = rng.uniform(1, 5, 500) if weighted else np.ones(500)
    calibration = calibrate(outcomes, weights)
    expected = another_ece(outcomes.probabilities, outcomes.right, weights)
    assert calibration.ece_uncorrected == pytest.approx(expected, abs=1e-6)
    assert calibration.ece.low <= calibration.ece.value <= expected <= calibration.ece.high


def test_the_curve_agrees_with_scikit_learn(make_outcomes):
    rng = np.random.default_rng(0)
    outcomes = make_outcomes(rng.integers(0, 3, 900), rng.dirichlet(np.ones(3), 900))
    bins = [one for one in calibrate(outcomes, np.ones(900)).bins if one.accuracy is not None]
    accuracy, confidence = calibration_curve(outcomes.right, outcomes.probabilities, n_bins=NUM_BINS)
    np.testing.assert_allclose([one.accuracy.value for one in bins], accuracy)
    np.testing.assert_allclose([one.confidence for one in bins], confidence, rtol=1e-6)


def test_coverage_answers_the_surest_first(make_outcomes):
    confidence = np.array([0.95, 0.9, 0.85, 0.6])
    outcomes = make_outcomes([0, 0, 1, 1], np.stack([confidence, 1 - confidence], axis=1))
    points = calibrate(outcomes, np.ones(4)).coverage
    found = {(point.share, round(point.threshold, 2), round(point.accuracy.value, 3)) for point in points}
    assert found == {(0.25, 0.95, 1.0), (0.5, 0.9, 1.0), (0.75, 0.85, 0.667), (1.0, 0.6, 0.5)}


def test_equal_probabilities_are_answered_together(make_outcomes):
    outcomes = make_outcomes([0, 1, 0, 1], [[0.8, 0.2]] * 4)
    points = calibrate(outcomes, np.ones(4)).coverage
    assert {(point.share, point.accuracy.value) for point in points} == {(1.0, 0.5)}


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [([0], [[1.0, 0.0]]), ([1, 1], [[1.0, 0.0], [1.0, 0.0]]), ([0, 0], [[0.5, 0.5], [0.5, 0.5]])],
)
def test_few_and_certain_pictures_have_figures_too(make_outcomes, labels, probabilities):
    calibration = calibrate(make_outcomes(labels, probabilities), np.ones(len(labels)))
    assert sum(one.num_right + one.num_wrong for one in calibration.bins) == len(labels)
    assert 0 <= calibration.ece.low <= calibration.ece.value <= 1
    assert calibration.coverage[-1].share == 1
