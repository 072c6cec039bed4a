import numpy as np
import pytest

from shardstream.train.engine import cross_validation
from shardstream.train.engine.cross_validation import (
    assign_folds,
    choose_head,
    cross_validate,
    predict_out_of_fold,
)


def drawn(num_examples=400, noise=3.0, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_examples)
    centers = generator.normal(0, 1, (num_classes, 10))
    return (centers[labels] + generator.normal(0, noise, (num_examples, 10))).astype(np.float32), labels


@pytest.mark.parametrize(
    ("labels", "num_folds", "counts"),
    [
        ([0] * 10 + [1] * 5, 5, [[2, 1]] * 5),
        ([0, 0, 0, 1], 2, [[2, 0], [1, 1]]),
        ([0], 5, [[1]]),
    ],
)
def test_folds_hold_classes_in_equal_parts(labels, num_folds, counts):
    labels = np.array(labels)
    folds = assign_folds(labels, None, num_folds=num_folds, seed=3)
    found = [np.bincount(labels[folds == fold], minlength=labels.max() + 1).tolist() for fold in set(folds)]
    assert sorted(found) == sorted(counts)


def test_folds_part_no_group():
    generator = np.random.default_rng(0)
    groups, labels = generator.integers(0, 40, 500), generator.integers(0, 3, 500)
    folds = assign_folds(labels, groups, num_folds=5, seed=1)
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    sizes = np.bincount(folds)
    assert len(sizes) == 5
    assert sizes.min() > 80
    np.testing.assert_array_equal(folds, assign_folds(labels, groups, num_folds=5, seed=1))


@pytest.mark.parametrize("groups", [None, np.arange(60) // 2])
def test_the_seed_decides_the_folds(groups):
    labels = np.arange(60) // 2 % 3
    one, again, other = (assign_folds(labels, groups, num_folds=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_noise_wants_more_regularization_than_signal():
    strengths = [cross_validate(*drawn(noise=noise), num_classes=3, seed=0).l2 for noise in (0.2, 10)]
    assert strengths[0] < strengths[1]


def test_the_estimate_is_that_of_new_examples():
    features, labels = drawn(4000)
    head, found = choose_head(features[:400], labels[:400], num_classes=3, seed=0)
    accuracy = (head.logits(features[400:]).argmax(axis=1) == labels[400:]).mean()
    assert abs(accuracy - found.accuracy) < 0.08
    assert found.num_examples == 400


def test_copies_in_other_groups_would_spoil_the_estimate():
    features, labels = drawn(200, noise=6)
    copies = np.concatenate([features] * 2), np.concatenate([labels] * 2)
    groups = np.concatenate([np.arange(200)] * 2)
    apart, together = (cross_validate(*copies, num_classes=3, seed=0, groups=g) for g in (None, groups))
    assert together.cross_entropy > apart.cross_entropy


def test_class_weights_lift_the_rare_class():
    features, labels = drawn(600, noise=4)
    kept = (labels != 2) | (np.arange(600) % 8 == 0)
    features, labels = features[kept], labels[kept]
    plain, _ = choose_head(features, labels, num_classes=3, seed=0)
    weights = len(labels) / (3 * np.bincount(labels))
    balanced, _ = choose_head(features, labels, num_classes=3, seed=0, class_weights=weights.tolist())
    recalls = [(head.logits(features).argmax(axis=1)[labels == 2] == 2).mean() for head in (plain, balanced)]
    assert recalls[0] < recalls[1]


def test_of_many_examples_some_are_enough(monkeypatch):
    monkeypatch.setattr(cross_validation, "MAX_EXAMPLES", 150)
    found = cross_validate(*drawn(), num_classes=3, seed=0)
    assert found.num_examples == 150


@pytest.mark.parametrize("num_examples", [1, 2, 7])
def test_very_few_examples(num_examples):
    features, labels = drawn(num_examples)
    head, found = choose_head(features, labels, num_classes=3, seed=0)
    assert np.isfinite(head.kernel).all()
    assert found.temperature == 1


def test_out_of_fold_every_example_is_predicted_once_by_what_has_not_seen_it():
    # Noise of more dimensions than examples: whoever has seen an example knows its label.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(150, 400)).astype(np.float32)
    labels = rng.integers(0, 2, 150)
    # Copies, which tell each other's label unless they are in one group.
    features, labels = np.concatenate([features, features]), np.concatenate([labels, labels])

    def accuracy(groups):
        folds = list(predict_out_of_fold(features, labels, num_classes=2, seed=1, groups=groups))
        rows = np.concatenate([rows for rows, _ in folds])
        probabilities = np.concatenate([probabilities for _, probabilities in folds])
        assert sorted(rows.tolist()) == list(range(300))
        assert probabilities.dtype == np.float32
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
        return (probabilities.argmax(axis=1) == labels[rows]).mean()

    assert accuracy(np.tile(np.arange(150), 2)) < 0.65
    assert accuracy(None) > 0.75
