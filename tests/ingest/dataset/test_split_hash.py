"""Splits are a pure function of (seed, key): the promise that lets a dataset grow."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.split_hash import (
    SPLIT_NAMES,
    assign_split,
    check_fractions,
    draw,
    hash_all_to_uint64,
    splits_of,
    stratify,
)

KEYS = st.binary(min_size=32, max_size=32)
FRACTION = st.integers(0, 49).map(lambda percent: percent / 100)
SEED = st.integers(-(2**40), 2**40)
FOLDER = st.dictionaries(st.text(min_size=1, max_size=3), st.binary(max_size=2), max_size=20)
NUMBER = st.integers(0, 2**64 - 1)
PICTURES = st.lists(st.tuples(NUMBER, st.integers(0, 4)), max_size=60, unique_by=lambda picture: picture[0])


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def split_folder(folder, fractions, seed):
    """Returns the split of each file of `folder`, from name to content."""
    keys = b"".join(hashlib.sha256(content).digest() for content in folder.values())
    splits = splits_of(hash_all_to_uint64(seed, "split", keys), fractions)
    return dict(zip(folder, (SPLIT_NAMES[split] for split in splits), strict=True))


def stratified(pictures, fractions):
    numbers, labels = zip(*pictures, strict=True) if pictures else ((), ())
    splits = stratify(np.array(numbers, np.uint64), np.array(labels, np.uint16), fractions)
    assert splits.dtype == np.uint8
    return [SPLIT_NAMES[split] for split in splits]


def test_the_assignment_never_changes():
    # Changing this list moves pictures between training and validation in every existing dataset.
    fractions = {"validation": 0.3, "test": 0.2}
    assert [assign_split(key(number), fractions, seed=123) for number in range(12)] == [
        "validation",
        "train",
        "train",
        "validation",
        "test",
        "validation",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
    ]
    assert draw(123, "order", key(0)) == 12180834125647561745


@given(FOLDER, FOLDER, FRACTION, FRACTION, SEED)
def test_files_that_come_move_no_other(before, new, validation, test, seed):
    fractions = {"validation": validation, "test": test}
    old = split_folder(before, fractions, seed)
    after = split_folder(new | before, fractions, seed)
    assert {name: after[name] for name in before} == old


@given(FOLDER, st.randoms(), FRACTION, FRACTION, SEED)
def test_files_that_go_move_no_other_nor_does_the_order(before, random, validation, test, seed):
    fractions = {"validation": validation, "test": test}
    names = random.sample(list(before), random.randint(0, len(before)))
    old = split_folder(before, fractions, seed)
    assert split_folder({name: before[name] for name in names}, fractions, seed) == {n: old[n] for n in names}


@given(FOLDER, FRACTION, FRACTION, SEED)
def test_renaming_moves_nothing_and_one_content_has_one_split(before, validation, test, seed):
    fractions = {"validation": validation, "test": test}
    old = split_folder(before, fractions, seed)
    renamed = split_folder({f"copy of {name}": content for name, content in before.items()}, fractions, seed)
    assert list(renamed.values()) == list(old.values())
    assert len({(before[name], split) for name, split in old.items()}) == len(set(before.values()))


@given(st.lists(KEYS, max_size=5), SEED, st.sampled_from(["split", "order", ""]))
def test_many_are_drawn_the_same_numbers_as_one(keys, seed, purpose):
    assert hash_all_to_uint64(seed, purpose, b"".join(keys)).tolist() == [
        draw(seed, purpose, key) for key in keys
    ]


def test_a_hundred_thousand_are_drawn_the_same_numbers_as_one():
    keys = [key(number) for number in range(100_000)]
    assert hash_all_to_uint64(123, "split", b"".join(keys)).tolist() == [
        draw(123, "split", key) for key in keys
    ]


@pytest.mark.parametrize(
    ("validation", "test", "splits"),
    [
        (0.0, 0.0, ["train"] * 6),
        (0.25, 0.0, ["train"] * 4 + ["validation"] * 2),
        (0.0, 0.25, ["test"] * 2 + ["train"] * 4),
        (0.25, 0.25, ["test"] * 2 + ["train"] * 2 + ["validation"] * 2),
        (0.75, 0.0, ["train"] * 2 + ["validation"] * 4),
    ],
)
def test_a_split_is_a_range_of_numbers(validation, test, splits):
    numbers = np.array([0, 2**62 - 1, 2**62, 3 * 2**62 - 1, 3 * 2**62, 2**64 - 1], np.uint64)
    found = splits_of(numbers, {"validation": validation, "test": test})
    assert [SPLIT_NAMES[split] for split in found] == splits


@given(KEYS, FRACTION, FRACTION, FRACTION, SEED)
def test_a_larger_fraction_only_adds(one, validation, test, more, seed):
    small = assign_split(one, {"validation": validation, "test": test}, seed=seed)
    if validation + more + test < 1:
        large = assign_split(one, {"validation": validation + more, "test": test}, seed=seed)
        assert large == small or (small, large) == ("train", "validation")
    if validation + more + test < 1:
        large = assign_split(one, {"validation": validation, "test": test + more}, seed=seed)
        assert large == small or (small, large) == ("train", "test")


@given(KEYS, SEED)
def test_a_fraction_of_nothing_holds_nothing_out(one, seed):
    assert assign_split(one, {"validation": 0, "test": 0}, seed=seed) == "train"


@pytest.mark.parametrize("fractions", [{"validation": 0.2, "test": 0.1}, {"validation": 0.05, "test": 0}])
def test_the_shares_are_as_asked(fractions):
    num_keys = 20_000
    splits = [assign_split(key(number), fractions, seed=5) for number in range(num_keys)]
    for name, fraction in fractions.items():
        # Five standard deviations of a binomial: wrong once in two million seeds.
        slack = 5 * (num_keys * fraction * (1 - fraction)) ** 0.5
        assert abs(splits.count(name) - num_keys * fraction) <= slack


def test_another_seed_gives_another_assignment():
    fractions = {"validation": 0.5}
    a, b = ([assign_split(key(n), fractions, seed=seed) for n in range(1000)] for seed in (1, 2))
    assert 400 < sum(x != y for x, y in zip(a, b, strict=True)) < 600


def rounded(percent, count):
    """Returns so many percent of `count`, rounded half up."""
    return (2 * percent * count + 100) // 200


@given(PICTURES, st.integers(0, 99), st.integers(0, 99))
def test_stratified_shares_are_exact_in_each_class(pictures, validation, test):
    assume(validation + test < 100)
    splits = stratified(pictures, {"validation": validation / 100, "test": test / 100})
    found = Counter((label, split) for (_, label), split in zip(pictures, splits, strict=True))
    for label, count in Counter(label for _, label in pictures).items():
        in_validation, in_test = found[label, "validation"], found[label, "test"]
        assert in_validation == min(rounded(validation, count), count - 1)
        assert in_test == min(rounded(test, count), count - 1 - in_validation)


@pytest.mark.parametrize(
    ("count", "validation", "test", "expected"),
    [
        (1, 0.9, 0.0, (1, 0, 0)),  # The only one is trained on.
        (2, 0.2, 0.0, (2, 0, 0)),
        (2, 0.25, 0.0, (1, 1, 0)),  # Half a picture is a picture.
        (2, 0.45, 0.45, (1, 1, 0)),  # Two halves are two, but one has to be left.
        (10, 0.45, 0.45, (1, 5, 4)),
        (10, 0.15, 0.0, (8, 2, 0)),  # 0.15 as it is written: the nearest binary number is less.
        (205, 0.2, 0.1, (143, 41, 21)),
    ],
)
def test_stratified_counts(count, validation, test, expected):
    pictures = [(draw(1, "split", key(number)), 3) for number in range(count)]
    splits = stratified(pictures, {"validation": validation, "test": test})
    assert tuple(map(splits.count, SPLIT_NAMES)) == expected


@given(PICTURES, st.randoms(), FRACTION, FRACTION)
def test_stratified_splits_depend_on_the_own_class_alone_and_not_on_the_order(
    pictures, random, validation, test
):
    fractions = {"validation": validation, "test": test}
    expected = dict(zip(pictures, stratified(pictures, fractions), strict=True))
    chosen = [picture for picture in pictures if picture[1] != 2]
    random.shuffle(chosen)
    assert stratified(chosen, fractions) == [expected[picture] for picture in chosen]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=40), FRACTION, FRACTION)
def test_stratified_pictures_of_one_number_and_class_stay_together(pictures, validation, test):
    splits = stratified(pictures, {"validation": validation, "test": test})
    assert len(set(zip(pictures, splits, strict=True))) == len(set(pictures))
    for label in {label for _, label in pictures}:
        assert "train" in {s for picture, s in zip(pictures, splits, strict=True) if picture[1] == label}


def test_stratified_splits_are_nearly_those_of_the_plain_rule():
    num_keys, fractions = 20_000, {"validation": 0.2, "test": 0.1}
    numbers = hash_all_to_uint64(5, "split", b"".join(map(key, range(num_keys))))
    labels = np.arange(num_keys, dtype=np.uint16) % 4
    differ = stratify(numbers, labels, fractions) != splits_of(numbers, fractions)
    # For each class and split as many as the plain rule has too many or too few: a standard deviation is 28 or 21.
    assert 0 < differ.sum() < 5 * (4 * 28 + 4 * 21)


@pytest.mark.parametrize(
    ("fractions", "sentence"),
    [
        ({"validation": 0.7, "test": 0.3}, "--validation 0.7 and --test 0.3 leave nothing to train on"),
        ({"validation": 1.5}, "--validation has to be from 0 to 1, got 1.5"),
        ({"validation": 1.0, "test": 0.2}, "--validation 1 and --test 0.2 leave nothing to train on"),
        ({"test": -0.1}, "--test has to be from 0 to 1, got -0.1"),
    ],
)
def test_fractions_that_cannot_be(fractions, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_fractions(fractions)
