import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shardstream.train.engine import linear_head
from shardstream.train.engine.linear_head import HeadProblem, LinearHead
from shardstream.train.engine.temperature import log_softmax

ROOT = Path(__file__).parents[3]


def drawn(num_examples=700, num_features=20, num_classes=4, seed=0):
    """Examples around a center for each class, close enough that no head can tell all of them apart."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_examples)
    centers = generator.normal(0, 1.5, (num_classes, num_features))
    scales = generator.uniform(2, 10, num_features)
    features = (centers[labels] + generator.normal(0, 2, (num_examples, num_features))) * scales + 3
    return features.astype(np.float32), labels


def test_the_head_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = drawn()
    features = np.asarray(features, np.float64)
    standardized = (features - features.mean(axis=0)) / features.std(axis=0)
    l2 = 0.02
    head = HeadProblem(features, labels, num_classes=4).fit(l2, tolerance=1e-9)
    theirs = linear_model.LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-10, max_iter=2000)
    theirs.fit(standardized, labels)
    expected = theirs.predict_log_proba(standardized)
    np.testing.assert_allclose(log_softmax(head.logits(features)), expected, atol=1e-5)


def test_weights_count_as_often_as_they_say():
    features, labels = drawn(300)
    weights = np.where(labels == 2, 3.0, 1.0)
    repeated = np.concatenate([np.arange(300), *[np.flatnonzero(labels == 2)] * 2])
    # Standardized alike: by the features of a problem with all of them.
    one, two = (
        HeadProblem(features, labels, num_classes=4, weights=weights),
        HeadProblem(features[repeated], labels[repeated], num_classes=4),
    )
    two._mean, two._stddev = one._mean, one._stddev
    two._kept = None
    heads = [problem.fit(0.1, tolerance=1e-10) for problem in (one, two)]
    np.testing.assert_allclose(heads[0].kernel, heads[1].kernel, atol=1e-7)


def test_a_start_changes_the_way_and_not_the_result():
    features, labels = drawn()
    problem = HeadProblem(features, labels, num_classes=4)
    strong = problem.fit(1.0, tolerance=1e-10)
    cold, warm = problem.fit(0.1, tolerance=1e-10), problem.fit(0.1, tolerance=1e-10, start=strong)
    np.testing.assert_allclose(warm.kernel, cold.kernel, atol=1e-7)
    np.testing.assert_allclose(warm.bias, cold.bias, atol=1e-6)


def test_blocks_that_are_not_kept_give_the_same_bits(monkeypatch):
    features, labels = drawn()
    kept = HeadProblem(features, labels, num_classes=4).fit(0.1)
    monkeypatch.setattr(linear_head, "_MAX_KEPT_BYTES", 0)
    made_anew = HeadProblem(features, labels, num_classes=4).fit(0.1)
    assert kept.kernel.tobytes() == made_anew.kernel.tobytes()


def test_a_feature_that_never_varies_and_one_example():
    features, labels = drawn(50)
    features[:, 3] = 7
    head = HeadProblem(features, labels, num_classes=4).fit(0.1)
    np.testing.assert_array_equal(head.kernel[3], 0)
    one = HeadProblem(features[:1], labels[:1], num_classes=4).fit(0.1)
    assert np.isfinite(one.kernel).all()
    assert one.logits(features[:1]).argmax() == labels[0]


def test_a_feature_that_hardly_varied_does_not_decide_alone():
    features, labels = drawn(num_classes=2)
    features[:, 3] = 0.01 * np.random.default_rng(1).normal(size=len(labels))
    new = features[:20].copy()
    new[:, 3] += 10  # No farther off than other features are.
    head = HeadProblem(features, labels, num_classes=2).fit(1e-4)
    usual, moved = head.logits(features[:20]), head.logits(new)
    assert np.abs(moved - usual).max() < np.ptp(head.logits(features))


def test_logits_and_their_temperature():
    head = LinearHead(np.eye(3), np.array([0.0, 1, 2]))
    features = np.arange(6, dtype=np.float16).reshape(2, 3)
    expected = [[0, 2, 4], [3, 5, 7]]
    np.testing.assert_array_equal(head.logits(features), expected)
    np.testing.assert_array_equal(head.calibrated(4).logits(features), np.array(expected) / 4)
    assert head.logits(features[:0]).shape == (0, 3)


_PROGRAM = """
import hashlib, sys
import numpy as np
from shardstream.train.engine import linear_head
from shardstream.train.engine.cross_validation import choose_head
linear_head.usable_cores = lambda: int(sys.argv[1])
generator = np.random.default_rng(0)
labels = generator.integers(0, 12, 1500)
features = generator.normal(labels[:, None] % np.arange(1, 301), 20).astype(np.float16)
head, found = choose_head(features, labels, num_classes=12, seed=5)
print(hashlib.sha256(head.kernel.tobytes() + head.bias.tobytes()).hexdigest(), found)
"""


def test_any_number_of_threads_gives_the_same_bits():
    found = set()
    for cores, blas in ((1, 1), (4, 1), (3, 4)):
        threads = {f"{name}_NUM_THREADS": str(blas) for name in ("OPENBLAS", "OMP", "MKL")}
        command = [sys.executable, "-c", _PROGRAM, str(cores)]
        done = subprocess.run(
            command, env=os.environ | threads, cwd=ROOT, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert "CrossValidation" in found.pop()
