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


def test_what_a_few_of_every_class_have_is_a_kind_of_its_own(make_outcomes):
    # Of each of ten classes two of twenty are by a second camera, which is less sharp; one of all is truly blurred.
    labels = np.repeat(np.arange(10), 20)
    camera = np.tile(np.arange(20) < 2, 10)
    sharpness = np.where(camera, 9, 20) * np.random.default_rng(3).uniform(0.95, 1.05, 200)
    sharpness[50] = 2
    found = find_odd_pictures(make_outcomes(labels, np.eye(10)[labels], sharpness=sharpness))
    assert [(odd.row, odd.oddity) for odd in found] == [(50, "blurred")]


def test_what_nobody_sees_is_not_odd_however_alike_a_class_is(make_outcomes):
    rng = np.random.default_rng(4)
    brightness, sharpness = rng.normal(170, 1, 100), rng.normal(20, 0.2, 100)
    brightness[[5, 6, 7]], sharpness[8], sharpness[9] = (150, 110, 230), 14, 8
    found = find_odd_pictures(
        make_outcomes([0] * 100, [[1.0, 0.0]] * 100, brightness=brightness, sharpness=sharpness)
    )
    assert {(odd.row, odd.oddity) for odd in found} == {(6, "dark"), (7, "bright"), (9, "blurred")}
