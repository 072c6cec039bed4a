"""Splits are a pure function of (seed, key): the promise that lets a dataset grow."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import ConfigError
from ingest.splits import assign_split, check_fractions, draw

KEYS = st.binary(min_size=32, max_size=32)
FRACTION = st.integers(0, 49).map(lambda percent: percent / 100)
SEED = st.integers(-(2**40), 2**40)


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


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


@pytest.mark.parametrize(
    ("fractions", "sentence"),
    [
        ({"validation": 0.7, "test": 0.3}, "--validation 0.7 and --test 0.3 leave nothing to train on"),
        ({"validation": 1.0}, "--validation has to be at least 0 and less than 1, got 1"),
        ({"test": -0.1}, "--test has to be at least 0 and less than 1, got -0.1"),
    ],
)
def test_fractions_that_cannot_be(fractions, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_fractions(fractions)
