"""Intervals against published numbers, and how often they hold the truth on simulated data."""

import functools

import numpy as np
import pytest

from shardstream.predict.inference.selection import select_stratified
from shardstream.predict.metrics.calibration import calibrate
from shardstream.predict.metrics.classification import (
    balanced_accuracy,
    class_metrics,
    macro_f1,
    summarize,
)
from shardstream.predict.metrics.confusion import count_confusion
from shardstream.predict.metrics.intervals import (
    effective_size,
    mean_estimate,
    overall_estimate,
    proportion_interval,
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


@functools.cache
def loss_population(accuracy, sharpness, num_classes=5, size=40_000):
    """The losses and Brier scores of a model, whose probabilities are calibrated where `sharpness` is 1."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, num_classes, size)
    logits = rng.normal(size=(size, num_classes))
    low, high = 0.0, 12.0
    for _ in range(20):
        signal = (low + high) / 2
        shifted = logits + signal * np.eye(num_classes)[labels]
        right = shifted.argmax(axis=1) == labels
        low, high = (signal, high) if right.mean() < accuracy else (low, signal)
    shares = np.exp(signal * sharpness * (shifted - shifted.max(axis=1, keepdims=True)))
    shares /= shares.sum(axis=1, keepdims=True)
    actual = shares[np.arange(size), labels]
    return -np.log(np.maximum(actual, 1e-7)), np.square(shares).sum(axis=1) - 2 * actual + 1


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.97, 0.995])
@pytest.mark.parametrize("sharpness", [1, 2])
@pytest.mark.parametrize("size", [5, 20, 60, 200])
def test_intervals_of_losses_hold_the_truth_as_often_as_they_say(accuracy, sharpness, size):
    rng = np.random.default_rng(3)
    for values, high in zip(loss_population(accuracy, sharpness), (2 * np.log(5), 1.5), strict=True):
        drawn = (
            mean_estimate(rng.choice(values, size), np.ones(size), high=float(high)) for _ in range(_TRIALS)
        )
        assert np.mean([held(figure, values.mean()) for figure in drawn]) >= _LEAST


def test_a_single_loss_has_no_interval():
    assert mean_estimate(np.array([0.5]), np.ones(1), high=2.0) is None
    assert mean_estimate(np.array([0.5, 0.6]), np.array([1.0, 0.0]), high=2.0) is None


@pytest.mark.parametrize("size", [10, 30, 67, 200, 1000])
@pytest.mark.parametrize("share", [0.001, 0.005, 0.01, 0.03, 0.1, 0.5])
def test_intervals_of_proportions_hold_near_0_and_1_too(size, share):
    from scipy.stats import binom

    counts = np.arange(size + 1)
    chances = binom.pmf(counts, size, share)
    for truth, seen in ((share, counts), (1 - share, size - counts)):
        intervals = [proportion_interval(int(count), size) for count in seen]
        covered = sum(
            chance
            for chance, (low, high) in zip(chances, intervals, strict=True)
            if low - 1e-12 <= truth <= high + 1e-12
        )
        assert covered >= 0.92, (truth, size)


# The sizes of classes, and how many of each are predicted correctly.
@pytest.mark.parametrize(
    ("sizes", "recalls"),
    [
        ([10] * 3, [0.97] * 3),
        ([10] * 3, [0.8] * 3),
        ([67] * 3, [0.995] * 3),
        ([20] * 10, [0.97] * 10),
        ([150, 30, 20], [0.97, 0.9, 0.8]),
        ([4] * 30, [0.9] * 30),
        ([180, 20], [0.5, 0.95]),
    ],
)
@pytest.mark.parametrize("drawn_by_class", [True, False])
def test_intervals_of_class_means_hold_the_truth(make_outcomes, sizes, recalls, drawn_by_class):
    rng = np.random.default_rng(6)
    num_classes, fractions, trials = len(sizes), np.array(sizes) / sum(sizes), 120
    recalls = np.array(recalls)
    matrix = fractions[:, None] * (1 - recalls[:, None]) / (num_classes - 1) * np.ones((1, num_classes))
    np.fill_diagonal(matrix, fractions * recalls)
    truths = recalls.mean(), np.mean(2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1)))
    num_held = np.zeros(2)
    for _ in range(trials):
        counts = sizes if drawn_by_class else rng.multinomial(sum(sizes), fractions)
        labels = np.repeat(np.arange(num_classes), counts)
        wrong = rng.random(len(labels)) >= recalls[labels]
        predicted = (labels + wrong * rng.integers(1, num_classes, len(labels))) % num_classes
        weights = np.ones(len(labels))
        confusion = count_confusion(labels, predicted, weights, num_classes=num_classes)
        figures = (
            balanced_accuracy(make_outcomes(labels, np.eye(num_classes)[predicted])),
            macro_f1(confusion),
        )
        num_held += [held(*pair) for pair in zip(figures, truths, strict=True)]
    # 120 trials: three standard deviations below 0.95.
    assert (num_held / trials >= 0.89).all(), num_held / trials


def test_what_was_all_correct_is_not_certain(make_outcomes):
    labels = np.repeat([0, 1], 10)
    summary = summarize(make_outcomes(labels, np.eye(2)[labels]), np.ones(20), num_classes=2)
    for figure in (summary.accuracy, summary.balanced_accuracy, summary.macro_f1):
        assert figure.value == figure.high == 1
        assert 0.7 < figure.low < 0.9


@pytest.mark.parametrize("shift", [0, 0.02, 0.05, 0.15])
@pytest.mark.parametrize("size", [30, 200, 1000])
@pytest.mark.parametrize("shape", [(8, 1), (4, 3)])
def test_intervals_of_the_calibration_error_hold_the_truth(make_outcomes, shift, size, shape):
    rng = np.random.default_rng(4)
    everything = rng.beta(*shape, 200_000).clip(0.01, 1)
    numbers = np.ceil(15 * everything).astype(int) - 1
    gaps = np.clip(everything - shift, 0, 1) - everything
    truth = np.abs(np.bincount(numbers, gaps, 15)).sum() / len(everything)
    drawn = []
    for _ in range(100):
        confidence = rng.choice(everything, size)
        right = rng.random(size) < confidence - shift
        # Of many classes each other one has less.
        shares = np.concatenate([confidence[:, None], np.tile((1 - confidence[:, None]) / 200, 200)], axis=1)
        drawn.append(calibrate(make_outcomes(np.where(right, 0, 1), shares), np.ones(size)).ece)
    assert np.mean([held(figure, truth) for figure in drawn]) >= 0.95 - 3 * 0.022
    if not shift and size >= 200:  # A calibrated model is told so.
        assert np.mean([figure.low == 0 for figure in drawn]) >= 0.88
        assert np.mean([figure.value for figure in drawn]) < 0.02
