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

from ingest.metadata import RECORDS_PER_BLOCK
from train.order import Blocks, Window

# Blocks that are read at once. Reading is cheap beside decoding: more helps only on slow disks.
_READERS = 16
# Records that a thread decodes in one go: handing over costs 30 microseconds.
_RECORDS_PER_TASK = 8
ALIGNMENT = 64  # Bytes. TensorFlow takes arrays that are aligned so as they are, and no others.


class Record(NamedTuple):
    """A serialized example and its position in the split, in file order."""

    position: int
    payload: bytes


class Batch(NamedTuple):
    """Decoded examples: uint8 [batch, size, size, 3], int32 [batch], and what they were made of."""

    images: np.ndarray
    labels: np.ndarray
    records: list[Record]


# Returns the records of one block, which is a row of the blocks of a window.
ReadBlock = Callable[[Blocks, int], list[bytes]]
# Writes the picture of a record to an array uint8 [size, size, 3] and returns the label.
Decode = Callable[[Record, np.ndarray], int]


def stream_records(windows: Iterable[Window], read_block: ReadBlock) -> Generator[Record]:
    """Yields the records of `windows`, and reads ahead; several threads call `read_block` at a time."""
    with Threads(_READERS) as readers:
        reads = (_Reading(window, read_block, readers) for window in windows)
        current = next(reads, None)
        while current:
            following = next(reads, None)
            yield from current.delivered(following)
            current = following


class _Reading:
    """A window whose blocks are being read."""

    def __init__(self, window: Window, read_block: ReadBlock, readers: ThreadPoolExecutor) -> None:
        self._window = window
        self._read = read_block
        self._readers = readers
        self._blocks: list[Future[list[bytes]]] = []

    def begin(self, share: float) -> None:
        """Sees to it that this share of the blocks is being read, from 0 to 1."""
        while len(self._blocks) < share * len(self._window.blocks):
            self._blocks.append(self._readers.submit(self._read, self._window.blocks, len(self._blocks)))

    def delivered(self, following: "_Reading | None") -> Iterator[Record]:
        """Yields the records, and reads `following` at the same pace: together they hold the bytes of one window."""
        self.begin(1)
        payloads = [payload for block in self._blocks for payload in block.result()]
        self._blocks.clear()
        order = self._window.order.tolist()
        for i, (position, number) in enumerate(zip(self._window.positions.tolist(), order, strict=True)):
            if following and i % RECORDS_PER_BLOCK == 0:
                following.begin((i + 1) / len(order))
            yield Record(position, payloads[number])
            payloads[number] = b""  # What was delivered needs no memory any more.


def stream_batches(
    records: Iterator[Record], decode: Decode, *, image_size: int, batch_size: int, cores: int
) -> Generator[Batch]:
    """Yields `records` decoded, in their order; the last batch may be shorter.

    Args:
        records: In the order in which they are wanted.
        decode: Called by several threads at a time.
        image_size: Height and width of the pictures that `decode` gives.
        batch_size: Of all batches but the last.
        cores: How many threads decode.
    """
    buffers = Buffers((batch_size, image_size, image_size, 3))
    # Enough for every thread to have work while the oldest batch is waited for.
    most_ahead = 1 + math.ceil(2 * cores * _RECORDS_PER_TASK / batch_size)
    ahead: collections.deque[tuple[Batch, list[Future[None]]]] = collections.deque()
    with Threads(cores) as decoders:
        while chosen := list(itertools.islice(records, batch_size)):
            batch = Batch(buffers.take()[: len(chosen)], np.empty(len(chosen), np.int32), chosen)
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


class Buffers:
    """Memory for batches, used again when nobody holds a batch any more.

    Memory that is new costs 25 microseconds for each picture of 300x300: the kernel has to clear it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._free: list[np.ndarray] = []
        self._taken: dict[int, tuple[weakref.ref[_Lease], np.ndarray]] = {}

    def take(self) -> np.ndarray:
        """Returns an array uint8 of the shape, with anything in it."""
        size = math.prod(self._shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(size + ALIGNMENT, np.uint8)
            start = -memory.ctypes.data % ALIGNMENT
            memory = memory[start : start + size].reshape(self._shape)
        lease = _Lease(memory)
        key = id(lease)
        self._taken[key] = (weakref.ref(lease, lambda _: self._give_back(key)), memory)
        return np.asarray(lease)

    def _give_back(self, key: int) -> None:
        self._free.append(self._taken.pop(key)[1])


class _Lease:
    """Lives as long as any array that shows its memory: NumPy keeps the object that it made an array of."""

    def __init__(self, memory: np.ndarray) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory = memory  # Batches outlive the stream that they came from.
