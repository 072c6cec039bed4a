import dataclasses
import re

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.predict.inference.labels import read_labels
from shardstream.predict.inference.selection import (
    select,
    select_all,
    select_batch,
    select_sample,
    select_stratified,
    share_out,
)


def test_a_sample_is_a_pure_function_of_the_seed():
    first, again = (select_sample("validation", 1000, 100, seed=5) for _ in range(2))
    other = select_sample("validation", 1000, 100, seed=6)
    assert first.positions.tolist() == again.positions.tolist() != other.positions.tolist()


def test_a_sample_stays_what_it_was():
    # Changing these changes which pictures every earlier report was about.
    assert select_sample("validation", 1000, 5, seed=123).positions.tolist() == [15, 53, 591, 680, 909]
    assert select_sample("validation", 1_000_000, 5, seed=123).positions.tolist() == [
        15440,
        53820,
        592946,
        682349,
        909086,
    ]


@pytest.mark.parametrize(("num_available", "size"), [(10, 9), (1000, 1), (1000, 999), (100_000, 50)])
def test_a_sample_has_no_record_twice_and_is_in_file_order(num_available, size):
    positions = select_sample("validation", num_available, size, seed=1).positions
    assert len(set(positions.tolist())) == len(positions) == size
    assert (np.diff(positions) > 0).all()
    assert positions.min() >= 0
    assert positions.max() < num_available


def test_every_record_is_drawn_equally_often():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[select_sample("validation", 20, 5, seed=seed).positions] += 1
    # 500 each is expected, with a standard deviation of 19.4.
    assert np.abs(counts - 500).max() < 5 * 19.4


@pytest.mark.parametrize("size", [50, 51, 10_000])
def test_a_sample_of_more_than_there_are_is_all_of_them(size):
    selection = select_sample("validation", 50, size, seed=1)
    assert selection.positions.tolist() == list(range(50))
    assert selection.description == "all 50 images of the validation split"


@pytest.mark.parametrize(
    ("number", "first", "last"),
    [(1, 0, 31), (2, 32, 63), (3, 64, 79)],  # The last batch has what is left.
)
def test_a_batch_is_32_records_in_file_order(number, first, last):
    assert select_batch("validation", 80, number).positions.tolist() == list(range(first, last + 1))


def test_a_batch_past_the_end_says_how_many_there_are():
    sentence = "--batch 4: the validation split has 80 images, 3 batches of 32; give 1 to 3"
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        select_batch("validation", 80, 4)


def test_descriptions_say_how_the_pictures_were_chosen():
    assert select_sample("test", 4000, 32, seed=9).description == (
        "a uniform sample of 32 of the 4,000 images of the test split, seed 9"
    )
    assert select_batch("validation", 80, 3).description == (
        "batch 3 of 3: images 65 to 80 of the 80 of the validation split, in file order"
    )


def test_select_does_what_the_options_ask_for(trial):
    def positions(**options):
        return select(trial.info, "validation", seed=4, **{"size": 200, **options}).positions.tolist()

    everything = select_all("validation", 81).positions.tolist()
    assert positions(batch=2) == select_batch("validation", 81, 2).positions.tolist()
    assert positions(size=7) == select_sample("validation", 81, 7, seed=4).positions.tolist()
    assert positions(every_record=True) == positions() == everything
    for ranked in ("worst", "confident-errors", "borderline"):
        assert positions(size=7, sampling=ranked) == everything


@pytest.mark.parametrize(
    ("counts", "size", "shares"),
    [
        ([100, 100, 100], 30, [10, 10, 10]),
        ([100, 2, 100], 30, [14, 2, 14]),  # What a rare class lacks goes to the others.
        ([100, 7, 3], 50, [40, 7, 3]),
        ([100, 100], 31, [15, 16]),
        ([5, 5, 5], 1, [1, 1, 1]),  # One of each at the least.
        ([1, 1], 9, [1, 1]),
    ],
)
def test_each_class_gives_the_same_as_far_as_it_has_so_many(counts, size, shares):
    assert share_out(np.array(counts), size).tolist() == shares


def test_a_stratified_sample_stands_for_the_split():
    labels = np.random.default_rng(0).choice(4, 1000, p=[0.7, 0.2, 0.09, 0.01])
    chosen = select_stratified("validation", labels, 80, seed=3)
    again = select_stratified("validation", labels, 80, seed=3)
    assert chosen.positions.tolist() == again.positions.tolist()
    assert (np.diff(chosen.positions) > 0).all()
    drawn = labels[chosen.positions]
    # Each class weighs as much as it has pictures.
    np.testing.assert_allclose(np.bincount(drawn, chosen.weights), np.bincount(labels), rtol=1e-6)
    assert np.bincount(drawn).min() == np.bincount(labels).min()
    assert chosen.description == (
        "a stratified sample of 80 of the 1,000 images of the validation split, seed 3, each class weighted by its size"
    )


def test_labels_come_from_the_manifest_in_the_order_of_the_records(built):
    info, labels = built
    assert read_labels(info, "validation").tolist() == labels


def test_a_manifest_that_speaks_of_other_records_is_refused(built, trial):
    info, _ = built
    split = info.splits["validation"]
    longer = dataclasses.replace(split.shards[0], num_examples=split.shards[0].num_examples + 3)
    splits = {"validation": dataclasses.replace(split, shards=(longer, *split.shards[1:]))}
    with pytest.raises(DatasetError, match=r"manifest.parquet: has no row for 3 of the \d+ records"):
        read_labels(dataclasses.replace(info, splits=splits), "validation")
