"""The records of one split, by their position in it, each checked before it is given to anybody."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator

import numpy as np

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import RecordError
from shardstream.train.data.bad_records import good_blocks
from shardstream.train.data.corruption import bad_record
from shardstream.train.data.decode import PictureDecoder
from shardstream.train.data.order import Blocks, Window, windows_of
from shardstream.train.data.records import decode_record
from shardstream.train.data.shard_reader import read_block
from shardstream.train.data.share import WHOLE, Share
from shardstream.train.data.stream import Batch, Buffers, Record, stream_batches, stream_records

# Of a window that is not shuffled: enough to read far ahead, and not much memory.
_BLOCKS_PER_WINDOW = 16


class SplitReader:
    """A split, or a share of one, whose records can be read from any position; the first of a share is at 0."""

    def __init__(self, info: DatasetInfo, split_name: str, share: Share = WHOLE) -> None:
        self._info = info
        self._split = info.split(split_name)
        start, end = share.block_bounds(self._split)
        blocks = good_blocks(info, self._split, Blocks.of(self._split)[start:end])
        # Numbered without gaps: what is not of this share, or bad, is not there.
        self.blocks = dataclasses.replace(blocks, firsts=np.cumsum(blocks.counts) - blocks.counts)
        self._firsts_in_split = blocks.firsts
        self._windows = Buffers()
        self.buffers = Buffers()

    def free_windows(self) -> None:
        """Gives the memory of windows back, for who may not read again; the next reading takes it anew."""
        self._windows = Buffers()

    def ordered_windows(self) -> Iterator[Window]:
        """Yields windows that deliver all records in file order."""
        for start in range(0, len(self.blocks), _BLOCKS_PER_WINDOW):
            blocks = self.blocks[start : start + _BLOCKS_PER_WINDOW]
            yield Window(blocks, np.arange(blocks.counts.sum()))

    def windows_of(self, positions: np.ndarray) -> Iterator[Window]:
        """Yields windows that deliver the records at `positions`, int64 and each at most once, in that order."""
        return windows_of(self.blocks, positions, blocks_per_window=_BLOCKS_PER_WINDOW)

    def records(self, windows: Iterator[Window]) -> Generator[Record]:
        """Yields the records that `windows` deliver.

        Raises:
            DatasetError: One is damaged.
        """
        return stream_records(windows, self._read_block, self._windows)

    def batches(
        self, windows: Iterator[Window], decoder: PictureDecoder, *, batch_size: int
    ) -> Generator[Batch]:
        """Yields them decoded; the last batch may be shorter.

        Raises:
            DatasetError: One is damaged, or cannot be decoded.
        """

        def decode(record: Record, out: np.ndarray) -> int:
            return self._decode(decoder, record, out)

        with contextlib.closing(self.records(windows)) as records:
            yield from stream_batches(
                records,
                decode,
                self.buffers,
                image_size=decoder.image_size,
                batch_size=batch_size,
                cores=usable_cores(),
            )

    def _read_block(self, blocks: Blocks, row: int, out: np.ndarray) -> list[memoryview]:
        records: list[memoryview] = []
        for number, record in enumerate(read_block(self._info.data_dir, self._split, blocks, row, out)):
            if isinstance(record, str):
                raise self._bad(int(blocks.firsts[row]) + number, record)
            records.append(record)
        return records

    def _decode(self, decoder: PictureDecoder, record: Record, out: np.ndarray) -> int:
        try:
            return decode_record(self._info, decoder, record.payload, out)
        except RecordError as error:
            raise self._bad(record.position, str(error)) from None

    def _bad(self, position: int, what: str) -> DatasetError:
        row = int(np.searchsorted(self.blocks.firsts, position, side="right")) - 1
        in_split = int(self._firsts_in_split[row]) + position - int(self.blocks.firsts[row])
        return bad_record(self._info, self._split, in_split, what)
