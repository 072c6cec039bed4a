"""Intervals against published numbers, and how often they hold the truth on simulated data."""

import numpy as np
import pytest

from shardstream.predict.inference.selection import select_stratified
from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import class_metrics
from shardstream.predict.metrics.confusion import count_confusion
from shardstream.predict.metrics.intervals import (
    effective_size,
    mean_estimate,
    overall_estimate,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("num_right", "num_examples", "low", "high"),
    [
        # statsmodels.stats.proportion.proportion_confint(..., method="wilson")
        (0, 10, 0.0, 0.277532799862889),
        (10, 10, 0.722467200137111, 1.0),
        (5, 10, 0.236593090512564, 0.763406909487436),
        (1, 1, 0.206549314377459, 1.0),
    ],
)
def test_wilson_interval(num_right, num_examples, low, high):
    assert wilson_interval(num_right, num_examples) == pytest.approx((low, high), abs=1e-7)


@pytest.mark.parametrize(
    ("num_right", "num_examples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(num_right, num_examples, low, high):
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3."""
    assert wilson_interval(num_right, num_examples) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("num_examples", [1, 2, 3, 7, 1000, 123456])
def test_wilson_interval_stays_between_0_and_1_and_holds_the_share(num_examples):
    for num_right in {0, 1, num_examples // 2, num_examples - 1, num_examples}:
        low, high = wilson_interval(num_right, num_examples)
        assert 0 <= low <= num_right / num_examples <= high <= 1


def test_equal_weights_count_each_example_once():
    assert effective_size(np.full(50, 7.5)) == pytest.approx(50)
    assert effective_size(np.array([1.0, 0.0, 0.0])) == pytest.approx(1)


def held(figure, truth):
    return figure.low <= truth <= figure.high


# A share of 0.95 held in 400 trials has a standard deviation of 0.011: four of them below it is 0.906.
_TRIALS, _LEAST = 400, 0.906


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.99])
def test_intervals_of_a_uniform_sample_hold_the_truth_as_often_as_they_say(make_outcomes, accuracy):
    rng = np.random.default_rng(1)
    num_held = np.zeros(3)
    # Class 0 is half of all, and a mistake is any other class: the truth of each figure follows.
    shares = np.array([0.5, 0.3, 0.2])
    wrong = (1 - accuracy) / 2
    taken_for_0 = shares[0] * accuracy + (1 - shares[0]) * wrong
    either = shares[0] + taken_for_0 - shares[0] * accuracy
    overlap = shares[0] * accuracy / either
    truths = (accuracy, shares[0] * accuracy / taken_for_0, 2 * overlap / (1 + overlap))
    for _ in range(_TRIALS):
        labels = rng.choice(3, 120, p=shares)
        predicted = np.where(rng.random(120) < accuracy, labels, (labels + rng.integers(1, 3, 120)) % 3)
        confusion = count_confusion(labels, predicted, np.ones(120), num_classes=3)
        food, *_ = class_metrics(make_outcomes(labels, np.eye(3)[predicted]), np.ones(120), confusion)
        figures = (overall_estimate(labels == predicted, np.ones(120), labels), food.precision, food.f1)
        num_held += [held(*pair) for pair in zip(figures, truths, strict=True)]
    assert (num_held / _TRIALS >= _LEAST).all(), num_held / _TRIALS


@pytest.mark.parametrize(
    "accuracies",
    [(0.9, 0.9, 0.9), (0.5, 0.95, 0.95), (0.98, 0.6, 0.5), (0.99, 1.0, 1.0)],
)
def test_intervals_of_a_stratified_sample_hold_the_truth_as_often_as_they_say(accuracies):
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], [2000, 400, 60])
    right = rng.random(len(labels)) < np.array(accuracies)[labels]
    num_held = 0
    for seed in range(_TRIALS):
        chosen = select_stratified("validation", labels, 90, seed=seed)
        figure = overall_estimate(right[chosen.positions], chosen.weights, labels[chosen.positions])
        num_held += held(figure, right.mean())
    assert num_held / _TRIALS >= _LEAST


def test_intervals_of_means_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    drawn = [mean_estimate(rng.exponential(0.7, 200), np.ones(200)) for _ in range(_TRIALS)]
    assert np.mean([held(figure, 0.7) for figure in drawn]) >= _LEAST


def test_intervals_of_the_calibration_error_hold_the_truth_as_often_as_they_say(make_outcomes):
    rng = np.random.default_rng(4)

    def figure(size):
        confidence = rng.choice([0.62, 0.78, 0.97], size)
        right = rng.random(size) < confidence - 0.15
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        return calibrate(make_outcomes(np.where(right, 0, 1), probabilities), np.ones(size)).ece

    assert np.mean([held(figure(300), 0.15) for _ in range(100)]) >= 0.95 - 4 * 0.022
