import os

import numpy as np
import pytest

from shardstream.ingest.pipeline import record_reads
from shardstream.ingest.pipeline.record_reads import RecordPlaces, read_records

SIZE = 1000


@pytest.fixture
def requests(monkeypatch):
    """The place and the bytes of each request."""
    asked = []

    def pread(descriptor, num_bytes, offset):
        asked.append((os.fstat(descriptor).st_ino, offset, num_bytes))
        return original(descriptor, num_bytes, offset)

    original = os.pread
    monkeypatch.setattr(os, "pread", pread)
    return asked


def places(folder, order: np.ndarray, *, records_per_file: int) -> RecordPlaces:
    """Records of their own number, in files one behind the other, that are wanted in `order`."""
    num_files = -(-(int(order.max()) + 1) // records_per_file)
    for file in range(num_files):
        numbers = range(file * records_per_file, (file + 1) * records_per_file)
        content = b"".join(number.to_bytes(4, "big") * (SIZE // 4) for number in numbers)
        (folder / str(file)).write_bytes(content)
    return RecordPlaces(
        sources=[str(folder / str(file)) for file in range(num_files)],
        source_numbers=(order // records_per_file).astype(np.uint32),
        offsets=(order % records_per_file * SIZE).astype(np.uint64),
        lengths=np.full(len(order), SIZE, np.uint32),
    )


def numbers_of(wanted: RecordPlaces) -> list[int]:
    records = list(read_records(wanted))
    assert all(record == record[:4] * (SIZE // 4) for record in records)
    return [int.from_bytes(record[:4], "big") for record in records]


@pytest.mark.parametrize("window_bytes", [1, 7 * SIZE, 1 << 20])
def test_records_come_in_the_order_in_which_they_are_wanted(tmp_path, monkeypatch, window_bytes):
    monkeypatch.setattr(record_reads, "WINDOW_BYTES", window_bytes)
    order = np.random.default_rng(1).permutation(100)[:70]
    assert numbers_of(places(tmp_path, order, records_per_file=9)) == order.tolist()


def test_each_file_is_read_once_where_a_window_has_room_for_all(tmp_path, requests):
    order = np.random.default_rng(1).permutation(100)
    assert numbers_of(places(tmp_path, order, records_per_file=10)) == order.tolist()
    assert [(offset, num_bytes) for _, offset, num_bytes in requests] == [(0, 10 * SIZE)] * 10
    assert len({file for file, *_ in requests}) == 10


def test_what_is_far_apart_is_not_read_over_and_no_request_is_large(tmp_path, requests, monkeypatch):
    monkeypatch.setattr(record_reads, "_MAX_GAP_BYTES", 2 * SIZE)
    monkeypatch.setattr(record_reads, "MAX_REQUEST_BYTES", 10 * SIZE)
    order = np.array([3, 0, 6, 25, 20, 21, 22, 30])
    assert numbers_of(places(tmp_path, order, records_per_file=100)) == order.tolist()
    assert [(offset // SIZE, num_bytes // SIZE) for _, offset, num_bytes in requests] == [
        (0, 7),
        (20, 6),
        (30, 1),
    ]


def test_no_window_has_more_than_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(record_reads, "WINDOW_BYTES", 10)
    lengths = np.array([4, 4, 4, 30, 1, 9, 1], np.uint32)
    none = np.zeros(7, np.uint32)
    wanted = RecordPlaces(["x"], none, none.astype(np.uint64), lengths)
    assert [lengths[window].tolist() for window in wanted.windows()] == [[4, 4], [4], [30], [1, 9], [1]]


def test_a_file_that_ends_early_gives_less(tmp_path):
    wanted = places(tmp_path, np.arange(3), records_per_file=3)
    os.truncate(tmp_path / "0", 2 * SIZE + 10)
    assert [len(record) for record in read_records(wanted)] == [SIZE, SIZE, 10]
