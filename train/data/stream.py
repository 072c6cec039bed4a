"""The records of windows as decoded batches, by threads that work ahead of the one that asks.

Reading, checksums and decoding let go of Python's global lock. What is left of it is 30 microseconds for each picture,
so that a process can deliver some 30,000 a second before its threads wait for one another. TensorFlow's own way
(`plain_stream.py`) needs no lock, and a tenth more processor time.
"""

import collections
import itertools
import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK
from shardstream.train.data.order import Blocks, Window

# Blocks that are read at once. Reading is cheap beside decoding: more helps only on slow disks.
_READERS = 16
# Records that a thread decodes in one go: handing over costs 30 microseconds.
_RECORDS_PER_TASK = 8
ALIGNMENT = 64  # Bytes. TensorFlow takes arrays that are aligned so as they are, and no others.


class Record(NamedTuple):
    """A serialized example and its position in the split, in file order.

    The bytes are a view of the memory of a window, which is used again when nobody holds a record of it any more.
    """

    position: int
    payload: memoryview


class Batch(NamedTuple):
    """Decoded examples: uint8 [batch, size, size, 3], int32 [batch], and what they were made of."""

    images: np.ndarray
    labels: np.ndarray
    records: list[Record]


# Reads one block, a row of the blocks of a window, into an array uint8 of its length, and returns its records in there.
ReadBlock = Callable[[Blocks, int, np.ndarray], list[memoryview]]
# Writes the picture of a record to an array uint8 [size, size, 3] and returns the label.
Decode = Callable[[Record, np.ndarray], int]


class Buffers:
    """Memory for batches and windows, used again when nobody holds what is in it any more.

    Memory that is new costs 25 microseconds for each picture of 300x300: the kernel has to clear it.
    """

    def __init__(self) -> None:
        """Begins without any."""
        self._free: list[np.ndarray] = []
        self._taken: dict[int, tuple[weakref.ref[_Lease], np.ndarray]] = {}

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array uint8 of the shape, with anything in it."""
        size = math.prod(shape)
        memory = self._memory(size)
        lease = _Lease(memory[:size].reshape(shape))
        key = id(lease)
        self._taken[key] = (weakref.ref(lease, lambda _: self._give_back(key)), memory)
        return np.asarray(lease)

    def _memory(self, size: int) -> np.ndarray:
        """Returns an array uint8 that is aligned for TensorFlow and has at least `size` bytes."""
        while self._free:
            memory = self._free.pop()
            if len(memory) >= size:
                return memory
        # Windows differ a little: the next one is to fit, too.
        memory = np.empty(size + size // 16 + ALIGNMENT, np.uint8)
        return memory[-memory.ctypes.data % ALIGNMENT :]

    def _give_back(self, key: int) -> None:
        self._free.append(self._taken.pop(key)[1])


class _Lease:
    """Lives as long as any array that shows its memory: NumPy keeps the object that it made an array of."""

    def __init__(self, memory: np.ndarray) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory = memory  # Batches outlive the stream that they came from.


def stream_records(windows: Iterable[Window], read_block: ReadBlock, buffers: Buffers) -> Generator[Record]:
    """Yields the records of `windows`, and reads ahead; several threads call `read_block` at a time."""
    with Threads(_READERS) as readers:
        reads = (_Reading(window, read_block, buffers, readers) for window in windows)
        current = next(reads, None)
        while current:
            following = next(reads, None)
            yield from current.delivered(following)
            current = following


class _Reading:
    """A window whose blocks are being read, each to its place in the memory of the window."""

    def __init__(
        self, window: Window, read_block: ReadBlock, buffers: Buffers, readers: ThreadPoolExecutor
    ) -> None:
        self._window = window
        self._read = read_block
        self._buffers = buffers
        self._readers = readers
        counts = window.blocks.counts
        self._rows = np.repeat(np.arange(len(counts)), counts)[window.order]
        self._numbers = window.order - (np.cumsum(counts) - counts)[self._rows]
        # The first that is wanted is read first, so that nothing waits for the whole window.
        rows, wanted = np.unique(self._rows, return_index=True)
        self._to_read = collections.deque(rows[np.argsort(wanted)].tolist())
        self._num_blocks = len(rows)
        self._blocks: dict[int, Future[list[memoryview]]] = {}
        self._memory = np.empty(0, np.uint8)
        self._ends = np.cumsum(window.blocks.lengths).tolist()

    def begin(self, share: float) -> None:
        """Sees to it that this share of the blocks is being read, from 0 to 1."""
        if not self._blocks:
            self._memory = self._buffers.take((self._ends[-1],))
        while len(self._blocks) < share * self._num_blocks:
            row = self._to_read.popleft()
            end = self._ends[row]
            out = self._memory[end - int(self._window.blocks.lengths[row]) : end]
            self._blocks[row] = self._readers.submit(self._read, self._window.blocks, row, out)

    def delivered(self, following: "_Reading | None") -> Iterator[Record]:
        """Yields the records, and reads `following` at the same pace."""
        self.begin(1)
        positions, rows = self._window.positions.tolist(), self._rows.tolist()
        for i, (position, row, number) in enumerate(
            zip(positions, rows, self._numbers.tolist(), strict=True)
        ):
            if following and i % RECORDS_PER_BLOCK == 0:
                following.begin((i + 1) / len(positions))
            yield Record(position, self._blocks[row].result()[number])


def stream_batches(
    records: Iterator[Record],
    decode: Decode,
    buffers: Buffers,
    *,
    image_size: int,
    batch_size: int,
    cores: int,
) -> Generator[Batch]:
    """Yields `records` decoded, in their order; the last batch may be shorter.

    Args:
        records: In the order in which they are wanted.
        decode: Called by several threads at a time.
        buffers: The memory of the batches.
        image_size: Height and width of the pictures that `decode` gives.
        batch_size: Of all batches but the last.
        cores: How many threads decode.
    """
    shape = (batch_size, image_size, image_size, 3)
    # Enough for every thread to have work while the oldest batch is waited for.
    most_ahead = 1 + math.ceil(2 * cores * _RECORDS_PER_TASK / batch_size)
    ahead: collections.deque[tuple[Batch, list[Future[None]]]] = collections.deque()
    with Threads(cores) as decoders:
        while chosen := list(itertools.islice(records, batch_size)):
            batch = Batch(buffers.take(shape)[: len(chosen)], np.empty(len(chosen), np.int32), chosen)
            starts = range(0, len(chosen), _RECORDS_PER_TASK)
            ahead.append((batch, [decoders.submit(_decode_some, decode, batch, start) for start in starts]))
            if len(ahead) > most_ahead:
                yield _finished(*ahead.popleft())
        while ahead:
            yield _finished(*ahead.popleft())


def _decode_some(decode: Decode, batch: Batch, start: int) -> None:
    for i in range(start, min(start + _RECORDS_PER_TASK, len(batch.records))):
        batch.labels[i] = decode(batch.records[i], batch.images[i])


def _finished(batch: Batch, tasks: list[Future[None]]) -> Batch:
    for task in tasks:
        task.result()
    return batch


class Threads(ThreadPoolExecutor):
    """Threads that drop what they have not begun when nobody wants it any more."""

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)
