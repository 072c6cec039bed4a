"""Reads many records with few requests, each of which may cost a disk seek.

Records are requested in shard order, which is not the order of the files that hold them. They are read one window at a
time: all records of a window in the order of their locations, adjacent records with one request.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# Records that one process buffers in memory until their turn.
WINDOW_BYTES = 128 << 20
MAX_REQUEST_BYTES = 8 << 20
# Reading over a gap of this size takes a disk no longer than a seek.
_MAX_GAP_BYTES = 32 << 10


@dataclasses.dataclass(frozen=True, slots=True)
class RecordPlaces:
    """The locations of records, in the order in which they are requested.

    Attributes:
        sources: The files to read.
        source_numbers: The file of each record, an index into `sources`, uint32 [records].
        offsets: The byte offset of each record in its file, uint64 [records].
        lengths: The bytes of each record including framing, uint32 [records].
    """

    sources: Sequence[str]
    source_numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.lengths)

    def describe(self, record: int) -> tuple[str, int]:
        """Returns the file of a record and its offset there, for errors."""
        return self.sources[int(self.source_numbers[record])], int(self.offsets[record])

    def windows(self) -> Iterator[slice]:
        """Yields slices of consecutive records of at most WINDOW_BYTES, or of one larger record."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            end = max(start + 1, int(np.searchsorted(ends, before + WINDOW_BYTES, side="right")))
            yield slice(start, end)
            start = end

    def requests(self, window: slice) -> list[npt.NDArray[np.intp]]:
        """Returns the records of a window in file order, grouped by request."""
        numbers, offsets = self.source_numbers[window], self.offsets[window].astype(np.int64)
        order = np.lexsort((offsets, numbers))
        numbers, offsets, lengths = numbers[order], offsets[order], self.lengths[window][order]
        is_near = offsets[1:] - (offsets[:-1] + lengths[:-1]) <= _MAX_GAP_BYTES
        # Requests are cut at fixed parts of the file, not by accumulated size, so that this vectorizes.
        in_one_part = offsets[1:] // MAX_REQUEST_BYTES == offsets[:-1] // MAX_REQUEST_BYTES
        joined = (numbers[1:] == numbers[:-1]) & is_near & in_one_part
        return np.split(order + window.start, np.flatnonzero(~joined) + 1)


def read_records(places: RecordPlaces) -> Iterator[bytes]:
    """Yields each record with its framing, unchecked; shorter if its file is truncated."""
    for window in places.windows():
        records = _read_window(places, window)
        records.reverse()
        while records:  # Frees each record after it was yielded.
            yield records.pop()


def _read_window(places: RecordPlaces, window: slice) -> list[bytes]:
    records = [b""] * (window.stop - window.start)
    number, descriptor = -1, -1
    try:
        for request in places.requests(window):
            if (
                places.source_numbers[request[0]] != number
            ):  # One open file at a time: there may be a million.
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
