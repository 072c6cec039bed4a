import itertools

import numpy as np
import pytest

from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.pipeline import shard_plan
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.shard_plan import cut, plan_by_hash

QUARTER = 1 << 62
Records = dict[int, int]  # Bytes by hash.


def ranges(records: Records, max_bytes: int) -> list[tuple[int, ...]]:
    """Returns the hashes in each shard."""
    hashes = np.array(sorted(records), np.uint64)
    lengths = np.array([records[number] for number in sorted(records)], np.uint32)
    starts = cut(hashes, lengths, max_bytes=max_bytes)
    return [tuple(hashes[start:end].tolist()) for start, end in itertools.pairwise(starts)]


@pytest.mark.parametrize(
    ("hashes", "max_bytes", "starts"),
    [
        ([], 10, [0]),
        ([5], 1, [0, 1]),  # One record is never cut.
        ([0, 1, 2, 3], 40, [0, 4]),
        ([0, QUARTER, 2 * QUARTER, 3 * QUARTER], 20, [0, 2, 4]),
        ([0, QUARTER, 2 * QUARTER, 3 * QUARTER], 10, [0, 1, 2, 3, 4]),
        ([2 * QUARTER, 3 * QUARTER, 3 * QUARTER + 1], 20, [0, 1, 3]),  # The lower half has none: no shard.
        ([0, 1, 3 * QUARTER], 10, [0, 1, 2, 3]),
        ([7, 7, 7], 10, [0, 3]),  # Hashes that are one cannot be told apart.
    ],
)
def test_ranges(hashes, max_bytes, starts):
    found = cut(np.array(hashes, np.uint64), np.full(len(hashes), 10, np.uint32), max_bytes=max_bytes)
    assert found == starts


def drawn_records(seed: int) -> tuple[Records, int]:
    """Some records, and the most bytes of a shard: hashes that differ in few bits are among them."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 64, rng.integers(1, 60), np.uint64) >> rng.integers(0, 64, dtype=np.uint64)
    return {number: int(rng.integers(1, 100)) for number in hashes.tolist()}, int(rng.integers(1, 500))


@pytest.mark.parametrize("seed", range(50))
def test_no_record_is_lost_no_shard_is_empty_or_too_large(seed):
    records, max_bytes = drawn_records(seed)
    shards = ranges(records, max_bytes)
    assert [number for shard in shards for number in shard] == sorted(records)
    for shard in shards:
        assert len(shard) == 1 or sum(records[number] for number in shard) <= max_bytes


@pytest.mark.parametrize("seed", range(50))
def test_a_new_record_changes_one_shard_at_most(seed):
    records, max_bytes = drawn_records(seed)
    before = ranges(records, max_bytes)
    for number, num_bytes in drawn_records(seed + 1000)[0].items():
        if number not in records:
            after = ranges({**records, number: num_bytes}, max_bytes)
            assert len(set(before) - set(after)) <= 1


def test_sizes_stay_near_what_was_asked_for():
    numbers = np.random.default_rng(1).integers(0, 1 << 64, 50_000, np.uint64).tolist()
    for count in (5_000, 9_000, 20_000, 50_000):
        sizes = [40 * len(shard) for shard in ranges(dict.fromkeys(numbers[:count], 40), 15_000)]
        assert 0.6 * 10_000 < np.mean(sizes) <= 1.5 * 10_000
        assert min(sizes) > 0.5 * 10_000


@pytest.mark.parametrize(("max_shards", "num_shards"), [(1000, (150, 300)), (40, (20, 40))])
def test_there_are_no_more_shards_than_metadata_have_room_for(tmp_path, monkeypatch, max_shards, num_shards):
    monkeypatch.setattr(shard_plan, "_MAX_SHARDS", max_shards)
    listing = Listing(tmp_path, ("one",))
    for number in range(1000):
        listing.append(b"one/%d" % number, 0, FileState.of(tmp_path.stat()))
    catalog = Catalog(listing)
    catalog.digests[:] = np.random.default_rng(1).integers(0, 1 << 63, (1000, 4), np.uint64)
    catalog.splits[:] = np.arange(1000) % 5 == 0  # Two of them.
    catalog.lengths[:] = 1000
    plan = plan_by_hash(catalog, tmp_path, name="d", seed=1, shard_bytes=5000)
    assert num_shards[0] <= len(plan.shards) <= num_shards[1]
    assert sorted(plan.rows(without=()).tolist()) == list(range(1000))
    for shard in plan.shards:
        assert (catalog.positions[shard.rows] == np.arange(len(shard.rows))).all()
