import itertools
import tracemalloc

import numpy as np
import pytest

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.train.data.sampling import WHOLE_BATCH, BatchSlice, EpochSampler, LaneRuns

RECORD_BYTES = 40_000


def sampler(
    num_examples=2103, *, batch_size=24, seed=5, record_bytes=RECORD_BYTES, **options
) -> EpochSampler:
    return EpochSampler.make(
        num_examples, num_bytes=record_bytes * num_examples, batch_size=batch_size, seed=seed, **options
    )


def steps(
    a_sampler: EpochSampler, count: int, *, start_step: int = 0, part: BatchSlice = WHOLE_BATCH
) -> np.ndarray:
    windows = a_sampler.windows(start_step=start_step, part=part)
    batches = itertools.chain.from_iterable(window.positions for window in windows)
    return np.stack(list(itertools.islice(batches, count)))


def test_order_is_stable():
    # Changing these numbers changes the order in which every existing run goes on after it was stopped.
    small = sampler(12, batch_size=4, seed=7)
    assert steps(small, 4).tolist() == GOLDEN_SMALL
    large = sampler(1600, batch_size=6, seed=7)
    assert large.num_lanes == 6
    assert steps(large, 2, start_step=300).tolist() == GOLDEN_LARGE


GOLDEN_SMALL = [[0, 5, 8, 1], [10, 7, 11, 6], [9, 3, 4, 2], [11, 7, 0, 4]]
GOLDEN_LARGE = [[132, 380, 773, 930, 1284, 1560], [219, 386, 545, 955, 1319, 1562]]


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "lanes"),
    [
        (70, 16, 1),
        (3000, 32, 8),
        (100_000, 32, 32),
        (100_000, 48, 48),
        (100_000, 128, 64),
        (100_000, 100, 50),
        (100_000, 97, 1),  # A prime has no other divisor up to 64.
    ],
)
def test_lanes(num_examples, batch_size, lanes):
    assert sampler(num_examples, batch_size=batch_size).num_lanes == lanes


@pytest.mark.parametrize(
    ("record_bytes", "run_length", "window_steps"),
    [(40_000, 13, 69), (270_000, 1, 10), (5_000_000, 1, 1), (100, 16, 1365), (512 * 1024, 1, 5)],
)
def test_sizes_of_runs_and_windows(record_bytes, run_length, window_steps):
    found = sampler(100_000, record_bytes=record_bytes)
    assert (found.run_length, found.window_steps) == (run_length, window_steps)


@pytest.mark.parametrize("batch_size", [1, 5, 24, 64, 2103])
@pytest.mark.parametrize("window_bytes", [1, 2_000_000, 2**26])
def test_an_epoch_has_each_example_at_most_once(batch_size, window_bytes):
    one = sampler(batch_size=batch_size, window_bytes=window_bytes)
    count = one.steps_per_epoch
    assert count == 2103 // batch_size
    epochs = steps(one, 2 * count).reshape(2, -1)
    for epoch in epochs:
        assert len(np.unique(epoch)) == count * batch_size
        assert epoch.min() >= 0
        assert epoch.max() < 2103
    assert (epochs[0] != epochs[1]).any() or batch_size == 1


def test_another_remainder_is_left_out_in_each_epoch():
    one = sampler(batch_size=64)
    left_out = [
        frozenset(range(2103)) - set(epoch.tolist())
        for epoch in steps(one, 20 * one.steps_per_epoch).reshape(20, -1)
    ]
    assert {len(it) for it in left_out} == {2103 % 64}
    assert len(set(left_out)) == 20


@pytest.mark.parametrize("window_bytes", [1, 2_000_000, 2**26])
def test_any_step_can_be_the_first(window_bytes):
    one = sampler(window_bytes=window_bytes)
    whole = steps(one, 3 * one.steps_per_epoch)
    for start in [0, 1, 2, 3, 40, 86, 87, 88, 120, 174, 175]:
        assert (steps(one, 30, start_step=start) == whole[start : start + 30]).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 12, 24])
def test_parts_joined_are_the_global_batch(count):
    one = sampler()
    parts = [steps(one, 100, part=BatchSlice(i, count)) for i in range(count)]
    assert (np.concatenate(parts, axis=1) == steps(one, 100)).all()


@pytest.mark.parametrize("count", [2, 3, 4, 6, 8, 24])
def test_a_part_stays_in_its_record_range(count):
    one = sampler()
    assert one.num_lanes == 8
    ranges = []
    for i in range(count):
        start, end = one.record_range(BatchSlice(i, count))
        positions = steps(one, 2 * one.steps_per_epoch, part=BatchSlice(i, count))
        assert start <= positions.min()
        assert positions.max() < end
        ranges.append((start, end))
    if 8 % count == 0:  # Hosts share no record.
        assert [end for _, end in ranges[:-1]] == [start for start, _ in ranges[1:]]


@pytest.mark.parametrize("change", [{"seed": 6}, {"batch_size": 48}])
def test_seed_and_batch_size_decide_the_order(change):
    assert set(map(tuple, steps(sampler(), 50)[:, :4])).isdisjoint(
        map(tuple, steps(sampler(**change), 25)[:, :4])
    )


def test_runs_are_consecutive_records_of_a_lane():
    runs = LaneRuns(3, 40, 4)
    starts, counts = runs.bounds(np.arange(len(runs)))
    assert starts.tolist() == [3, 7, 11, 15, 19, 23, 27, 31, 35, 39]
    assert counts.tolist() == [4, 4, 4, 4, 4, 4, 4, 4, 4, 1]


def test_records_of_a_batch_come_from_everywhere():
    one = sampler(50_000, batch_size=32)
    for batch in steps(one, 20):
        assert np.histogram(batch, bins=32, range=(0, 50_000))[0].tolist() == [1] * 32


def test_100_million_records_need_no_array_of_them():
    one = EpochSampler.make(10**8, num_bytes=4 * 10**12, batch_size=1024, seed=1)
    part = BatchSlice(3, 64)  # A lane of 64: an array of its own records would have 12 MB.
    tracemalloc.start()
    try:
        window = next(one.windows(start_step=10**6, part=part))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert window.positions.shape[1] == 16
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("num_examples", "options", "error", "message"),
    [
        (
            5,
            {"batch_size": 6},
            DatasetError,
            "an epoch has 0 steps: batch_size 6 is larger than the split of 5",
        ),
        (5, {"batch_size": 0}, ConfigError, "batch_size must be positive, got 0"),
        (50, {"seed": -1}, ConfigError, "seed must not be negative, got -1"),
    ],
)
def test_refusals(num_examples, options, error, message):
    with pytest.raises(error, match=message):
        sampler(num_examples, **options)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_part_that_there_is_not(shard):
    with pytest.raises(ConfigError, match="shard must be"):
        BatchSlice(*shard)


def test_parts_divide_the_batch():
    with pytest.raises(ConfigError, match="batch_size 24 is not divisible by the 5 shards"):
        next(sampler().windows(part=BatchSlice(0, 5)))
