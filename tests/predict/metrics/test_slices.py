"""Parts of the pictures: planted differences are found, chance and hard classes are not."""

import itertools

import numpy as np
import pytest

from shardstream.predict.metrics.intervals import holm
from shardstream.predict.metrics.slices import find_slices as find_weighted_slices


@pytest.fixture(name="outcomes_of")
def _outcomes_of(make_outcomes):
    def outcomes_of(labels, right, **columns):
        shares = np.where(right, 0.8, 0.2)
        return make_outcomes(
            labels, np.stack([np.where(labels == k, shares, 1 - shares) for k in (0, 1)], 1), **columns
        )

    return outcomes_of


def find_slices(outcomes):
    return find_weighted_slices(outcomes, np.ones(len(outcomes)))


def telling(slices):
    return {(one.attribute, one.folder) for one in slices if one.stands_out}


def test_chance_alone_is_named_in_few_reports(outcomes_of):
    rng = np.random.default_rng(0)
    num_named = 0
    for _ in range(200):
        labels = rng.integers(0, 2, 300)
        outcomes = outcomes_of(
            labels,
            rng.random(300) < 0.85,
            brightness=rng.uniform(0, 255, 300).astype(np.float32),
            sharpness=rng.uniform(1, 60, 300).astype(np.float32),
            heights=rng.integers(200, 900, 300),
        )
        num_named += bool(telling(find_slices(outcomes)))
    assert num_named / 200 <= 0.05 + 4 * 0.016


def test_dark_pictures_that_fail_are_found(outcomes_of):
    rng = np.random.default_rng(1)
    labels, brightness = rng.integers(0, 2, 400), rng.uniform(0, 255, 400)
    right = rng.random(400) < np.where(brightness < 64, 0.5, 0.95)
    slices = find_slices(outcomes_of(labels, right, brightness=brightness.astype(np.float32)))
    (dark,) = (one for one in slices if one.stands_out and one.accuracy.value < one.expected)
    assert (dark.attribute, dark.low < 5, 55 < dark.high < 75) == ("brightness", True, True)
    assert dark.accuracy.low <= dark.accuracy.value <= dark.accuracy.high < dark.expected
    assert dark.num_wrong == (~right & (brightness <= dark.high)).sum()


def test_a_part_with_more_of_a_hard_class_is_no_discovery(outcomes_of):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 2000)
    right = rng.random(2000) < np.where(labels == 0, 0.99, 0.6)
    # Pictures of the hard class are dark, and no harder for it.
    brightness = rng.normal(np.where(labels == 0, 180, 60), 10).astype(np.float32)
    assert telling(find_slices(outcomes_of(labels, right, brightness=brightness))) == set()


def test_a_folder_that_fails_is_found_where_classes_have_several(outcomes_of):
    rng = np.random.default_rng(3)
    labels, folders = np.repeat([0, 1], 200), np.repeat([0, 1, 2, 3], 100).astype(np.int32)
    right = rng.random(400) < np.where(folders == 2, 0.55, 0.95)
    names = ("a/one", "a/two", "b/<three>", "b/four")
    slices = find_slices(outcomes_of(labels, right, folders=folders, folder_names=names))
    assert ("folder", "b/<three>") in telling(slices)
    assert [one.folder for one in slices if one.attribute == "folder"] == list(names)


def test_a_folder_for_each_class_says_nothing_of_its_own(outcomes_of):
    labels = np.repeat([0, 1], 50)
    slices = find_slices(
        outcomes_of(labels, labels == 0, folders=labels.astype(np.int32), folder_names=("a", "b"))
    )
    assert [one for one in slices if one.attribute == "folder"] == []


def test_few_pictures_or_equal_ones_have_no_parts(outcomes_of):
    labels = np.array([0, 1, 0, 1, 1])
    assert find_slices(outcomes_of(labels, labels == 1, brightness=np.arange(5, dtype=np.float32))) == []
    assert find_slices(outcomes_of(np.repeat([0, 1], 100), np.ones(200, bool))) == []


def test_parts_share_no_picture(outcomes_of):
    rng = np.random.default_rng(4)
    brightness = rng.choice([10.0, 20.0, 200.0], 300).astype(np.float32)
    slices = find_slices(outcomes_of(rng.integers(0, 2, 300), rng.random(300) < 0.8, brightness=brightness))
    dark = [one for one in slices if one.attribute == "brightness"]
    assert sum(one.count for one in dark) == 300
    assert all(one.high < other.low for one, other in itertools.pairwise(dark))


def test_holm_as_in_his_paper():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_a_group_of_a_stratified_sample_is_judged_by_what_it_stands_for(outcomes_of):
    # 9 in 10 images of the whole are of class 0, of which a half was drawn. Bright ones of class 0 fail, and so many
    # bright ones of class 1 do not that by counts alone bright images are no worse.
    labels = np.repeat([0, 1], 200)
    weights = np.where(labels == 0, 9.0, 1.0)
    bright = np.tile(np.arange(200) < 100, 2)
    right = np.where(labels == 0, ~bright | (np.arange(400) % 100 < 80), bright | (np.arange(400) % 100 < 80))
    outcomes = outcomes_of(labels, right, brightness=np.where(bright, 200, 50).astype(np.float32))
    assert telling(find_slices(outcomes)) == set()
    slices = [one for one in find_weighted_slices(outcomes, weights) if one.attribute == "brightness"]
    dark, light = sorted(slices, key=lambda one: one.low)
    assert light.accuracy.value == pytest.approx(0.9 * 0.8 + 0.1)
    assert light.expected == pytest.approx(0.9 * 0.9 + 0.1 * 0.9)
    assert light.stands_out
    assert light.accuracy.value < light.expected
    assert dark.accuracy.value > dark.expected
