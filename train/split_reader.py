"""The records of one split, by their position in it, each checked before it is given to anybody."""

import contextlib
import dataclasses
from collections.abc import Generator, Iterator

import numpy as np

from ingest.errors import DatasetError
from ingest.metadata import DatasetInfo
from ingest.records import RecordError
from ingest.rejection import RejectedError
from train.damage import bad_record
from train.decode import PictureDecoder
from train.example_features import find_features
from train.machine import usable_cores
from train.order import Blocks, Window, windows_of
from train.shard_reader import read_block
from train.share import WHOLE, Share
from train.stream import Batch, Record, stream_batches, stream_records

# Of a window that is not shuffled: enough to read far ahead, and not much memory.
_BLOCKS_PER_WINDOW = 16


class SplitReader:
    """A split, or a share of one, whose records can be read from any position; the first of a share is at 0."""

    def __init__(self, info: DatasetInfo, split_name: str, share: Share = WHOLE) -> None:
        self._info = info
        self._split = info.split(split_name)
        start, end = share.block_bounds(self._split)
        blocks = Blocks.of(self._split)[start:end]
        self._first = int(blocks.firsts[0])
        self.blocks = dataclasses.replace(blocks, firsts=blocks.firsts - self._first)
        self._image_key, self._label_key = info.image_key.encode(), info.label_key.encode()

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
        return stream_records(windows, self._read_block)

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
                image_size=decoder.image_size,
                batch_size=batch_size,
                cores=usable_cores(),
            )

    def _read_block(self, blocks: Blocks, row: int) -> list[bytes]:
        shard = self._split.shards[blocks.shards[row]]
        found = read_block(
            self._info.data_dir / shard.filename,
            int(blocks.offsets[row]),
            int(blocks.lengths[row]),
            int(blocks.counts[row]),
        )
        records = []
        for number, record in enumerate(found):
            if isinstance(record, str):
                raise self._bad(int(blocks.firsts[row]) + number, record)
            records.append(record)
        return records

    def _decode(self, decoder: PictureDecoder, record: Record, out: np.ndarray) -> int:
        try:
            features = find_features(record.payload, (self._image_key, self._label_key))
            image, label = features.get(self._image_key), features.get(self._label_key)
            if not isinstance(image, memoryview):
                raise RecordError(f"has no single picture {self._info.image_key!r}")
            if not isinstance(label, int) or not 0 <= label < self._info.num_classes:
                raise RecordError(f"has the label {label}, there are {self._info.num_classes} classes")
            decoder.decode(image, out)
        except RecordError as error:
            raise self._bad(record.position, str(error)) from None
        except RejectedError as error:
            what = f"holds a picture that cannot be decoded ({error})"
            raise self._bad(record.position, what) from None
        return label

    def _bad(self, position: int, what: str) -> DatasetError:
        return bad_record(self._info, self._split, self._first + position, what)
