"""Figures against scikit-learn, and where nothing can be divided."""

import numpy as np
import pytest
from sklearn import metrics

from shardstream.predict.metrics.classification import summarize

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


@pytest.fixture(name="summary_of")
def _summary_of(make_outcomes):
    """Returns the figures of predictions that are certain of themselves."""

    def summary_of(labels, predicted, num_classes, weights=None):
        outcomes = make_outcomes(labels, np.eye(num_classes)[predicted])
        return summarize(
            outcomes, np.ones(len(labels)) if weights is None else weights, num_classes=num_classes
        )

    return summary_of


def values(summary, name):
    figures = [getattr(figures, name) for figures in summary.classes]
    return np.array([np.nan if figure is None else figure.value for figure in figures])


@pytest.mark.parametrize("case", CASES)
def test_figures_agree_with_scikit_learn(summary_of, case):
    actual, predicted, num_classes = CASES[case]
    summary = summary_of(actual, predicted, num_classes)
    every = {"labels": np.arange(num_classes), "average": None, "zero_division": np.nan}
    for name in ("precision", "recall", "f1"):
        expected = getattr(metrics, f"{name}_score")(actual, predicted, **every)
        np.testing.assert_allclose(values(summary, name), expected, rtol=1e-12)
    matrix = summary.confusion.dense(range(num_classes))
    np.testing.assert_array_equal(
        matrix, metrics.confusion_matrix(actual, predicted, labels=np.arange(num_classes))
    )
    assert summary.accuracy.value == pytest.approx(np.mean(actual == predicted))
    assert [figures.support for figures in summary.classes] == np.bincount(
        actual, minlength=num_classes
    ).tolist()
    recalls = values(summary, "recall")
    assert summary.balanced_accuracy.value == pytest.approx(np.nanmean(recalls))
    assert summary.macro_f1.value == pytest.approx(np.nanmean(values(summary, "f1")))
    pairs = summary.confusion.confused_pairs()
    assert sum(pair.count for pair in pairs) == summary.num_wrong == np.sum(actual != predicted)


def test_weights_are_scikit_learns_sample_weights(summary_of):
    actual, predicted = RANDOM.integers(0, 4, 300), RANDOM.integers(0, 4, 300)
    weights = np.array([1.0, 2.5, 9.0, 40.0])[actual]
    summary = summary_of(actual, predicted, 4, weights)
    every = {"average": None, "sample_weight": weights}
    for name in ("precision", "recall", "f1"):
        expected = getattr(metrics, f"{name}_score")(actual, predicted, **every)
        np.testing.assert_allclose(values(summary, name), expected, rtol=1e-12)
    assert summary.accuracy.value == pytest.approx(
        metrics.accuracy_score(actual, predicted, sample_weight=weights)
    )


@pytest.mark.parametrize("case", CASES)
def test_every_figure_lies_in_its_interval(summary_of, case):
    actual, predicted, num_classes = CASES[case]
    summary = summary_of(actual, predicted, num_classes)
    figures = [summary.accuracy, summary.balanced_accuracy, summary.macro_f1]
    figures += [figure for c in summary.classes for figure in (c.precision, c.recall, c.f1)]
    for figure in figures:
        if figure is not None:
            assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_losses_and_brier_scores_agree_with_scikit_learn(make_outcomes):
    probabilities = RANDOM.dirichlet(np.ones(3), 200)
    actual = RANDOM.integers(0, 3, 200)
    summary = summarize(make_outcomes(actual, probabilities), np.ones(200), num_classes=3)
    assert summary.mean_loss.value == pytest.approx(metrics.log_loss(actual, probabilities), rel=1e-5)
    one_against_rest = [
        metrics.brier_score_loss(actual == label, probabilities[:, label]) for label in range(3)
    ]
    assert summary.brier.value == pytest.approx(sum(one_against_rest), rel=1e-5)
    assert summary.top5_accuracy is None


def test_the_share_among_the_five_likeliest_agrees_with_scikit_learn(make_outcomes):
    probabilities = RANDOM.dirichlet(np.ones(30), 200)
    actual = RANDOM.integers(0, 30, 200)
    summary = summarize(make_outcomes(actual, probabilities), np.ones(200), num_classes=30)
    expected = metrics.top_k_accuracy_score(actual, probabilities, k=5, labels=np.arange(30))
    assert summary.top5_accuracy.value == pytest.approx(expected)


def test_a_figure_without_a_denominator_is_none(summary_of):
    summary = summary_of([0, 0], [0, 1], 3)
    found, never_right, nowhere = summary.classes
    assert (nowhere.precision, nowhere.recall, nowhere.f1) == (None, None, None)
    assert (never_right.precision.value, never_right.recall, never_right.f1.value) == (0.0, None, 0.0)
    assert (found.precision.value, found.recall.value) == (1.0, 0.5)
    assert found.f1.value == pytest.approx(2 / 3)


def test_worst_classes_are_those_with_errors_lowest_recall_first(summary_of):
    labels = np.array([0] * 4 + [1] * 4 + [2] * 4)
    predicted = np.array([0, 0, 0, 0, 1, 1, 1, 0, 2, 0, 0, 0])
    summary = summary_of(labels, predicted, 4)
    assert [figures.label for figures in summary.worst_classes(3)] == [2, 1]
    assert [figures.label for figures in summary.worst_classes(1)] == [2]
