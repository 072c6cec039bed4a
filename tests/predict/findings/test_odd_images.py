import numpy as np

from shardstream.predict.findings.odd_images import find_odd_pictures


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


def test_what_a_class_often_has_is_not_odd(make_outcomes):
    # Phone photos: a fifth upright, the others lying, and a few of each other shape that is usual in the whole.
    sizes = [(480, 640)] * 60 + [(640, 480)] * 15 + [(480, 480)] * 6 + [(480, 720)] * 6 + [(300, 900)]
    heights, widths = np.array(sizes * 2).T
    brightness = np.where(np.arange(len(widths)) % 5 == 0, 30, 180) + np.arange(len(widths)) % 7
    outcomes = make_outcomes(
        [0] * len(sizes) + [1] * len(sizes),
        [[0.6, 0.4]] * len(widths),
        heights=heights,
        widths=widths,
        brightness=brightness,
    )
    found = find_odd_pictures(outcomes)
    assert {(odd.row, odd.oddity) for odd in found} == {(87, "shape"), (175, "shape")}
