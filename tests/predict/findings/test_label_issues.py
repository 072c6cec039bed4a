"""Wrong labels: what is listed is mostly wrong, at every quality of the model, and nothing where that cannot be."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from shardstream.predict.findings.label_issues import find_label_issues


def simulate(make_outcomes, seed, num_trained, blur, noise, model):
    """Trains on digits with wrong labels and returns the accuracy on others, their issues, and which are wrong."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order, images = rng.permutation(len(images)), images / 16 + rng.normal(0, blur, images.shape)
    digits = digits.astype(np.int32)
    wrong = rng.random(len(digits)) < noise
    labels = np.where(wrong, (digits + rng.integers(1, 10, len(digits))) % 10, digits)
    train, test = order[:num_trained], order[-700:]
    model.fit(images[train], labels[train])
    shares = np.zeros((700, 10), np.float32)
    shares[:, model.classes_] = model.predict_proba(images[test])
    issues = find_label_issues(make_outcomes(labels[test], shares), num_classes=10)
    return (shares.argmax(axis=1) == digits[test]).mean(), issues, wrong[test]


# The number of training images and their noise, and the accuracy that comes of it.
QUALITIES = [(300, 0.45, 0.6), (400, 0.25, 0.8), (1000, 0.02, 0.95)]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(("num_trained", "blur", "accuracy"), QUALITIES)
@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_at_least_half_of_what_is_listed_is_wrong(make_outcomes, num_trained, blur, accuracy, noise):
    num_listed = num_wrong = num_planted = 0
    accuracies = []
    for seed in range(2):
        for model in (
            MLPClassifier((64,), max_iter=150, random_state=seed),
            LogisticRegression(max_iter=300, C=10),
        ):
            found, issues, wrong = simulate(make_outcomes, seed, num_trained, blur, noise, model)
            accuracies.append(found)
            num_listed += len(issues.rows)
            num_wrong += wrong[issues.rows].sum()
            num_planted += wrong.sum()
    assert abs(np.mean(accuracies) - accuracy) < 0.06
    assert num_wrong >= 0.5 * num_listed
    if accuracy < 0.7:  # Its errors hide them.
        assert num_listed <= 4
    if accuracy > 0.9:
        assert num_wrong >= 0.5 * num_planted


def test_a_weak_model_claims_nothing_and_shows_its_most_confident_errors(make_outcomes):
    _, issues, _ = simulate(make_outcomes, 0, 100, 0.8, 0, LogisticRegression(max_iter=300, C=10))
    assert len(issues.rows) == 0
    assert issues.expected_precision is None
    assert len(issues.errors) == 24


def test_the_most_probable_come_first_and_each_once(make_outcomes):
    _, issues, _ = simulate(make_outcomes, 1, 1000, 0.02, 0.05, LogisticRegression(max_iter=300, C=10))
    assert (np.diff(issues.probabilities) <= 0).all()
    assert issues.probabilities.min() >= 0.5
    assert len(np.unique(issues.rows)) == len(issues.rows) > 10
    assert not set(issues.errors.tolist()) & set(issues.rows.tolist())


@pytest.mark.parametrize(
    ("labels", "shares"),
    [([0], [[0.1, 0.9]]), ([0, 1], [[1.0, 0.0], [0.0, 1.0]]), ([0] * 3, [[0.4, 0.3, 0.3]] * 3)],
)
def test_few_images_prove_nothing(make_outcomes, labels, shares):
    assert len(find_label_issues(make_outcomes(labels, shares), num_classes=len(shares[0])).rows) == 0


def test_many_classes_are_no_more_than_their_five_most_probable_ones(make_outcomes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 3000)
    # Calibrated: of those that are given 0.6, four in ten are wrong; hardly any of the others.
    confidence = np.where(np.arange(3000) < 2000, 0.9999, 0.6)
    shares = np.tile((1 - confidence[:, None]) / 99, 100)
    predicted = np.where(rng.random(3000) < confidence, labels, (labels + 3) % 100)
    shares[np.arange(3000), predicted] = confidence
    planted = rng.choice(np.flatnonzero(predicted[:2000] == labels[:2000]), 60, replace=False)
    labels[planted] = (labels[planted] + 7) % 100
    issues = find_label_issues(make_outcomes(labels, shares), num_classes=100)
    assert set(issues.rows.tolist()) == set(planted.tolist())
