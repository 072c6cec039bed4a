import itertools
from concurrent.futures import Future

import numpy as np
import pytest

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.records import encode_entries, encode_example, frame
from shardstream.ingest.dataset.source_state import FileState
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.pipeline import record_reads, sorted_runs
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import Listing
from shardstream.ingest.pipeline.record_reads import read_records
from shardstream.ingest.pipeline.shard_plan import record_places
from shardstream.ingest.pipeline.sorted_runs import (
    estimate_requests,
    is_worth_a_pass,
    merge,
    sort_where_seeks_are_slow,
)


class Inline(Engine):
    """Runs each task at once, here."""

    def submit(self, function, task):
        future = Future()
        try:
            future.set_result(function(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def in_flight(self):
        return 2


@pytest.fixture
def catalog(tmp_path):
    """400 records of 30 files, in the order of the files."""
    rng = np.random.default_rng(1)
    listing = Listing(tmp_path, ("one", "two"))
    for number in range(400):
        (tmp_path / "photo").touch()
        listing.append(b"one/%d" % number, 0, FileState.of((tmp_path / "photo").stat()))
    catalog = Catalog(listing)
    rows = np.arange(400)
    catalog.source_numbers[:] = rows * 30 // 400
    for source in range(30):
        path = tmp_path / f"unit{source}.pictures"
        offset = 0
        with path.open("wb") as file:
            for row in np.flatnonzero(catalog.source_numbers == source).tolist():
                entries = {"image": rng.bytes(int(rng.integers(1, 4000))), "label": row}
                record = frame(encode_example(encode_entries(entries)))
                catalog.offsets[row], catalog.lengths[row] = offset, len(record)
                offset += file.write(record)
        catalog.sources.append(str(path))
    return catalog


@pytest.fixture
def rows():
    """The order in which records are wanted; some are not."""
    return np.random.default_rng(2).permutation(400)[:390].astype(np.uint32)


def content(catalog, rows):
    return list(read_records(record_places(catalog, rows)))


def test_each_pass_leaves_fewer_files_and_the_same_records(catalog, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(record_reads, "WINDOW_BYTES", 100_000)
    monkeypatch.setattr(record_reads, "_MAX_GAP_BYTES", 0)
    monkeypatch.setattr(sorted_runs, "_MAX_MERGED", 4)
    before, num_requests = content(catalog, rows), estimate_requests(catalog, rows)
    (tmp_path / "runs").mkdir()
    num_runs = []
    while not num_runs or num_runs[-1] > 1:
        paths = merge(catalog, rows, tmp_path / "runs", Inline())
        assert {catalog.sources[number] for number in catalog.source_numbers[rows]} == set(map(str, paths))
        assert content(catalog, rows) == before
        num_runs.append(len(paths))
    assert num_runs == [8, 2, 1]  # First as many files as fill a window, then four runs at a time.
    assert num_requests > 200
    assert estimate_requests(catalog, rows) < 12


def test_a_disk_that_seeks_quickly_is_left_alone(catalog, rows, tmp_path):
    sources = list(catalog.sources)
    sort_where_seeks_are_slow(catalog, rows, tmp_path, Inline())
    assert catalog.sources == sources


def test_a_slow_one_is_sorted_until_that_costs_more_than_the_seeks(catalog, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(record_reads, "WINDOW_BYTES", 100_000)
    monkeypatch.setattr(sorted_runs, "_secs_per_request", lambda *_: 0.01)
    before = content(catalog, rows)
    (tmp_path / "runs").mkdir()
    sort_where_seeks_are_slow(catalog, rows, tmp_path / "runs", Inline())
    assert content(catalog, rows) == before
    in_use = {catalog.sources[number] for number in catalog.source_numbers[rows]}
    assert in_use == {str(path) for path in (tmp_path / "runs").iterdir()}  # The first pass is removed.
    assert not is_worth_a_pass(estimate_requests(catalog, rows), 0.01, int(catalog.lengths[rows].sum()))


def test_sorting_ends_with_a_single_run_whatever_the_estimates_are(catalog, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_runs, "_MAX_MERGED", 4)
    monkeypatch.setattr(record_reads, "WINDOW_BYTES", 100)  # Every record takes a request, in order or not.
    num_passes = itertools.count(1)
    monkeypatch.setattr(sorted_runs, "is_worth_a_pass", lambda *_: next(num_passes) <= 20)
    before = content(catalog, rows)
    (tmp_path / "runs").mkdir()
    sort_where_seeks_are_slow(catalog, rows, tmp_path / "runs", Inline())
    assert content(catalog, rows) == before
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert next(num_passes) < 20


def test_without_room_for_the_passes_nothing_is_sorted(catalog, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_runs, "_secs_per_request", lambda *_: 0.01)
    monkeypatch.setattr(sorted_runs, "has_room", lambda *_: False)
    sources = list(catalog.sources)
    sort_where_seeks_are_slow(catalog, rows, tmp_path, Inline())
    assert catalog.sources == sources


@pytest.mark.parametrize(
    ("num_requests", "secs", "num_bytes", "worth"),
    [
        (1_000_000, 0.01, 41_000_000_000, True),  # A million photos on a disk: 2.8 h, or 14 min a pass.
        (1_000_000, 0.0001, 41_000_000_000, False),  # On an SSD.
        (6_000, 0.01, 41_000_000_000, False),  # Sorted already.
    ],
)
def test_when_a_pass_is_worth_its_time(num_requests, secs, num_bytes, worth):
    assert is_worth_a_pass(num_requests, secs, num_bytes) == worth


def test_a_damaged_record_is_named_where_it_lies(catalog, rows, tmp_path):
    path = tmp_path / "unit7.pictures"
    damaged = bytearray(path.read_bytes())
    damaged[30] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DatasetError, match=r"unit7\.pictures: at byte 0: .*wrong checksum.*makes it anew"):
        merge(catalog, np.arange(400, dtype=np.uint32), tmp_path, Inline())
