import numpy as np

from shardstream.predict.findings.issues import find_label_issues, find_odd_pictures


def test_labels_that_a_sure_model_contradicts_come_surest_first(make_outcomes):
    labels = [0] * 10 + [1] * 10 + [0, 0, 0]
    shares = [[0.8, 0.2]] * 10 + [[0.3, 0.7]] * 10
    # Surer than the pictures of class 1 are of it, a little surer, and less sure.
    shares += [[0.25, 0.75], [0.02, 0.98], [0.45, 0.55]]
    outcomes = make_outcomes(labels, shares)
    assert find_label_issues(outcomes, num_classes=2).tolist() == [21, 20]


def test_a_class_without_pictures_can_be_suspected_too(make_outcomes):
    shares = [[0.1, 0.1, 0.8], [0.4, 0.15, 0.45], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]
    outcomes = make_outcomes([0] * 4, shares)
    assert find_label_issues(outcomes, num_classes=3).tolist() == [0]


def test_of_those_that_the_model_is_not_sure_of_as_many_are_suspected(make_outcomes):
    sure = [[0.9, 0.1]] * 45 + [[0.1, 0.9]] * 5
    unsure = [[0.55, 0.45]] * 35 + [[0.3, 0.7], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55], [0.48, 0.52]]
    outcomes = make_outcomes([0] * 90 + [1] * 50, [*sure, *unsure, *[[0.15, 0.85]] * 50])
    # A tenth of the 50 that it is sure of, so a tenth of all 90; of the other class none.
    assert find_label_issues(outcomes, num_classes=2).tolist() == [*range(45, 50), 87, 85, 86, 88]


def test_planted_labels_are_found(make_outcomes):
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 500)
    # A model that is right nine times of ten, and surer where it is.
    sure = np.where(rng.random(500) < 0.9, rng.uniform(0.7, 0.99, 500), rng.uniform(0.1, 0.4, 500))
    shares = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    shares[np.arange(500), truth] = sure
    planted = rng.choice(500, 50, replace=False)
    labels = truth.copy()
    labels[planted] = (labels[planted] + 1) % 3
    found = find_label_issues(make_outcomes(labels, shares), num_classes=3)
    # What the model does not know itself it cannot find.
    known = [row for row in planted.tolist() if sure[row] > 0.9]
    assert len(known) > 10
    assert set(known) <= set(found.tolist())


def test_odd_pictures_are_told_from_their_class(make_outcomes):
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 1], 100)
    sharpness = rng.normal(np.where(labels == 0, 40, 12), 2)
    brightness = rng.normal(np.where(labels == 0, 180, 90), 8)
    widths, heights = np.full(200, 640), np.full(200, 480)
    sharpness[3], brightness[150], brightness[20], widths[70], heights[70] = 8, 10, 252, 480, 640
    outcomes = make_outcomes(
        labels, [[0.6, 0.4]] * 200, sharpness=sharpness, brightness=brightness, widths=widths, heights=heights
    )
    found = find_odd_pictures(outcomes)
    assert {(3, "blurred"), (150, "dark"), (20, "bright"), (70, "shape")} <= {
        (odd.row, odd.oddity) for odd in found
    }
    # 12 is usual for class 1, and would be blurred for class 0.
    assert len(found) <= 4 + 6
    assert [odd.oddity for odd in found[:4]] != ["shape"] * 4


def test_pictures_that_are_all_alike_are_not_odd(make_outcomes):
    assert find_odd_pictures(make_outcomes([0] * 5, [[1.0, 0.0]] * 5)) == []
