import gc
import threading

import numpy as np
import pytest

from shardstream.train.data.order import Blocks, Window
from shardstream.train.data.stream import Buffers, Record, stream_batches, stream_records


def make_windows(num_windows: int, blocks_each: int = 4) -> list[Window]:
    """Windows of blocks of 16 whose records are delivered backwards."""
    num_blocks = num_windows * blocks_each
    counts = np.full(num_blocks, 16)
    rows = np.arange(num_blocks)
    blocks = Blocks(rows * 0, rows * 160, counts, rows * 16, counts * 10, rows.astype(np.uint32))
    return [
        Window(blocks[start : start + blocks_each], np.arange(16 * blocks_each)[::-1])
        for start in range(0, num_blocks, blocks_each)
    ]


def read_block(blocks: Blocks, row: int, out: np.ndarray) -> list[memoryview]:
    positions = [b"%10d" % (blocks.firsts[row] + i) for i in range(blocks.counts[row])]
    out[:] = np.frombuffer(b"".join(positions), np.uint8)
    return [memoryview(out)[start : start + 10] for start in range(0, len(out), 10)]


def stream_of(windows, read_block=read_block):
    return stream_records(windows, read_block, Buffers())


def decode(record: Record, out: np.ndarray) -> int:
    out[:] = record.position % 256
    return record.position


def batches(records, *, cores=2, decode=decode):
    return stream_batches(records, decode, Buffers(), image_size=4, batch_size=10, cores=cores)


def num_threads() -> int:
    return sum(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def test_records_come_in_the_order_of_the_windows():
    records = list(stream_of(make_windows(3)))
    assert [record.position for record in records] == [
        position for start in (0, 64, 128) for position in reversed(range(start, start + 64))
    ]
    assert all(int(bytes(record.payload)) == record.position for record in records)


def test_no_more_than_a_window_is_read_ahead():
    read: list[int] = []

    def counting(blocks, row, out):
        read.append(row)
        return read_block(blocks, row, out)

    records = stream_of(make_windows(6), counting)
    for _ in range(64 + 32):
        next(records)
    records.close()
    assert len(read) <= 2 * 4 + 3  # Two windows, of which the second is half used, and half of the third.


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_batches_are_decoded_in_order(cores):
    found = list(batches(stream_of(make_windows(2)), cores=cores))
    assert [len(batch.labels) for batch in found] == [10] * 12 + [8]
    expected = [*reversed(range(64)), *reversed(range(64, 128))]
    assert np.concatenate([batch.labels for batch in found]).tolist() == expected
    assert (np.concatenate([batch.images for batch in found])[:, 0, 0, 0] == np.array(expected) % 256).all()


def test_memory_is_used_again_but_not_while_anything_shows_it():
    kept = []
    addresses = set()
    for number, batch in enumerate(batches(stream_of(make_windows(20)))):
        if number < 3:  # A view is enough, however it was made.
            kept.append((batch.labels, np.asarray(batch.images)[2:].reshape(-1, 48)[:, 7]))
        else:
            addresses.add(batch.images.ctypes.data)
        del batch
    assert len(addresses) < 10
    for labels, shown in kept:
        assert (shown == labels[2:] % 256).all()


def test_batches_outlive_their_stream():
    found = list(batches(stream_of(make_windows(2))))
    gc.collect()
    others = [np.full(found[0].images.nbytes + 64, 255, np.uint8) for _ in range(50)]
    assert (
        np.concatenate([batch.images for batch in found])[:, 1, 2, 1]
        == [record.position for batch in found for record in batch.records]
    ).all()
    del others


def test_pictures_are_aligned_for_tensorflow():
    assert all(batch.images.ctypes.data % 64 == 0 for batch in batches(stream_of(make_windows(2))))


def test_batches_are_decoded_before_they_are_asked_for():
    decoded = threading.Semaphore(0)

    def counting(record, out):
        decoded.release()
        return decode(record, out)

    stream = batches(stream_of(make_windows(4)), decode=counting)
    next(stream)
    for _ in range(30):  # What was asked for, and two batches more.
        assert decoded.acquire(timeout=60)
    stream.close()


@pytest.mark.parametrize("num_taken", [0, 1, 5])
def test_threads_end_when_nobody_wants_more(num_taken):
    before = num_threads()
    records = stream_of(make_windows(4))
    stream = batches(records)
    for _ in range(num_taken):
        next(stream)
    stream.close()
    records.close()
    assert num_threads() == before


@pytest.mark.parametrize("where", ["reading", "decoding"])
def test_an_error_comes_in_its_place_and_ends_the_threads(where):
    def fail_reading(blocks, row, out):
        if where == "reading" and blocks.firsts[row] == 64 + 32:
            raise ValueError("mine")
        return read_block(blocks, row, out)

    def fail_decoding(record, out):
        if where == "decoding" and record.position == 20:
            raise ValueError("mine")
        return decode(record, out)

    before = num_threads()
    records = stream_of(make_windows(4), fail_reading)
    seen = []
    with pytest.raises(ValueError, match="mine"):
        seen += batches(records, decode=fail_decoding)
    records.close()
    assert num_threads() == before
