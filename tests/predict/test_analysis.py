"""Figures against scikit-learn, against numbers from the literature, and where nothing can be divided."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from predict.analysis import classes_with_most_errors, confused_pairs, summarize, wilson_interval

RANDOM = np.random.default_rng(7)

CASES = {
    "random": (RANDOM.integers(0, 5, 400), RANDOM.integers(0, 5, 400), 5),
    "mostly right": (labels := RANDOM.integers(0, 4, 300), np.where(RANDOM.random(300) < 0.9, labels, 0), 4),
    "one class present": (np.zeros(20, int), RANDOM.integers(0, 3, 20), 3),
    "a class never predicted": (RANDOM.integers(0, 3, 60), RANDOM.integers(0, 2, 60), 3),
    "a class that does not occur": (RANDOM.integers(0, 2, 60), RANDOM.integers(0, 2, 60), 4),
    "all right": (np.arange(30) % 3, np.arange(30) % 3, 3),
    "all wrong": (np.arange(30) % 3, (np.arange(30) + 1) % 3, 3),
    "one picture": (np.array([1]), np.array([2]), 3),
}


@pytest.mark.parametrize("case", CASES)
def test_figures_agree_with_scikit_learn(case):
    actual, predicted, num_classes = CASES[case]
    summary = summarize(actual, predicted, np.ones(len(actual)), num_classes=num_classes)
    every = {"labels": np.arange(num_classes), "average": None, "zero_division": np.nan}
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        figures = [getattr(figures, name) for figures in summary.classes]
        np.testing.assert_array_equal(
            np.array([np.nan if figure is None else figure for figure in figures]),
            score(actual, predicted, **every),
        )
    np.testing.assert_array_equal(
        summary.confusion, confusion_matrix(actual, predicted, labels=np.arange(num_classes))
    )
    assert summary.accuracy == np.mean(actual == predicted)
    assert [figures.support for figures in summary.classes] == np.bincount(
        actual, minlength=num_classes
    ).tolist()
    assert (
        sum(pair.count for pair in summary.confused_pairs) == summary.num_wrong == np.sum(actual != predicted)
    )


def test_a_figure_without_a_denominator_is_none():
    summary = summarize(np.array([0, 0]), np.array([0, 1]), np.ones(2), num_classes=3)
    nowhere, never_right, found = summary.classes[2], summary.classes[1], summary.classes[0]
    assert (nowhere.precision, nowhere.recall, nowhere.f1) == (None, None, None)
    assert (never_right.precision, never_right.recall, never_right.f1) == (0.0, None, 0.0)
    assert (found.precision, found.recall, found.f1) == (1.0, 0.5, pytest.approx(2 / 3))


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


def test_confused_pairs_come_most_frequent_first():
    confusion = np.array([[5, 1, 0], [3, 9, 0], [2, 1, 1]])
    found = [(pair.actual, pair.predicted, pair.count, pair.share) for pair in confused_pairs(confusion)]
    # Of equally frequent pairs the one that is the larger share of its class.
    assert found == [(1, 0, 3, 0.25), (2, 0, 2, 0.5), (2, 1, 1, 0.25), (0, 1, 1, 1 / 6)]


def test_worst_classes_are_those_with_errors_lowest_recall_first():
    labels = np.array([0] * 4 + [1] * 4 + [2] * 4)
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2, 0, 0, 0])
    summary = summarize(labels, predicted, np.ones(12), num_classes=4)
    assert [figures.label for figures in summary.worst_classes(3)] == [2, 1]
    assert [figures.label for figures in summary.worst_classes(1)] == [2]


def test_a_matrix_of_many_classes_keeps_those_with_errors():
    labels = np.arange(100)
    predicted = labels.copy()
    predicted[[10, 20]] = [90, 90]
    summary = summarize(labels, predicted, np.ones(100), num_classes=100)
    assert classes_with_most_errors(summary, 3) == [10, 20, 90]


def test_mean_loss():
    losses = np.array([0.25, 0.5, 3.0], np.float32)
    assert summarize(np.zeros(3, int), np.zeros(3, int), losses, num_classes=2).mean_loss == 1.25
