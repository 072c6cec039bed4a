"""Reading many records with few requests, each of which may cost a disk a seek.

Records are asked for in the order of a shard, which is none of the files that they are in. They are read a window at a
time: all records of a window in the order of their places, those that lie beside each other with one request.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# What one process holds in memory: records that wait for their turn.
WINDOW_BYTES = 128 << 20
MAX_REQUEST_BYTES = 8 << 20
# To read over so much takes a disk no longer than to seek behind it.
_MAX_GAP_BYTES = 32 << 10


@dataclasses.dataclass(frozen=True, slots=True)
class RecordPlaces:
    """Where records are, in the order in which they are wanted.

    Attributes:
        sources: The files that are read.
        source_numbers: For each record an index into `sources`, uint32 [records].
        offsets: And the offset there, uint64 [records].
        lengths: And the bytes there, framing included, uint32 [records].
    """

    sources: Sequence[str]
    source_numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.lengths)

    def describe(self, record: int) -> tuple[str, int]:
        """Returns the file of a record, and its offset there."""
        return self.sources[int(self.source_numbers[record])], int(self.offsets[record])

    def windows(self) -> Iterator[slice]:
        """Yields consecutive records of at most WINDOW_BYTES, or one that is larger."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + WINDOW_BYTES, side="right")))
            yield slice(start, end)
            start = end

    def requests(self, window: slice) -> list[npt.NDArray[np.intp]]:
        """Returns the records of a window as they lie in their files, those of each request together."""
        numbers, offsets = self.source_numbers[window], self.offsets[window].astype(np.int64)
        order = np.lexsort((offsets, numbers))
        numbers, offsets, lengths = numbers[order], offsets[order], self.lengths[window][order]
        is_near = offsets[1:] - (offsets[:-1] + lengths[:-1]) <= _MAX_GAP_BYTES
        # By parts of the file, not by what was read before: computed for all at once.
        in_one_part = offsets[1:] // MAX_REQUEST_BYTES == offsets[:-1] // MAX_REQUEST_BYTES
        joined = (numbers[1:] == numbers[:-1]) & is_near & in_one_part
        return np.split(order + window.start, np.flatnonzero(~joined) + 1)


def read_records(places: RecordPlaces) -> Iterator[bytes]:
    """Yields each record as it is in its file, framing included; shorter where its file ends before. Checks nothing."""
    for window in places.windows():
        records = _read_window(places, window)
        records.reverse()
        while records:  # What was yielded leaves the memory.
            yield records.pop()


def _read_window(places: RecordPlaces, window: slice) -> list[bytes]:
    records = [b""] * (window.stop - window.start)
    number, descriptor = -1, -1
    try:
        for request in places.requests(window):
            if places.source_numbers[request[0]] != number:  # One is open at a time: there may be a million.
                if descriptor >= 0:
                    os.close(descriptor)
                number, descriptor = int(places.source_numbers[request[0]]), -1
                descriptor = os.open(places.sources[number], os.O_RDONLY | os.O_CLOEXEC)
            offsets, lengths = places.offsets[request].tolist(), places.lengths[request].tolist()
            first = offsets[0]
            data = os.pread(descriptor, offsets[-1] + lengths[-1] - first, first)
            for record, offset, length in zip(request.tolist(), offsets, lengths, strict=True):
                records[record - window.start] = data[offset - first : offset - first + length]
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return records
