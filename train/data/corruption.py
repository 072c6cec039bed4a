"""Names the record that stopped a pipeline, and how to repair it."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import tensorflow as tf

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import (
    CHECKSUM_BYTES,
    HEADER_BYTES,
    RecordError,
    framed_length,
    unframe,
)
from shardstream.train.data.pixels import ExampleDecoder
from shardstream.train.data.record_source import Place, find_origins
from shardstream.train.data.split_index import SplitIndex

Batch = TypeVar("Batch")

# Records sampled from a file that is opened for the first time: the first, the last, and some in between.
_CHECKED_RECORDS = 5


def dataset_error(error: tf.errors.OpError) -> DatasetError | None:
    """Returns the DatasetError that one of our pipelines raised inside the graph, or None for any other error."""
    found = re.search(r"DatasetError: (.*?)\nTraceback ", error.message, re.DOTALL)
    return DatasetError(found.group(1)) if found else None


def naming_corruption(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields `batches`, and converts errors of our pipelines to DatasetError.

    Raises:
        DatasetError: A file or record is missing or corrupt.
    """
    try:
        yield from batches
    except tf.errors.OpError as error:
        raise (dataset_error(error) or error) from None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RecordChecker:
    """Inspects files and records of a split one by one, off the hot path, to find out what is wrong with them.

    Attributes:
        info: The dataset.
        index: Index of the split.
        decoder: Decoder of its records.
    """

    info: DatasetInfo
    index: SplitIndex
    decoder: ExampleDecoder

    def find_corruption(self, positions: np.ndarray) -> DatasetError:
        """Returns the error that names the first missing or corrupt file or record among those of `positions`."""
        for shard in np.unique(self.index.shards_of(positions)).tolist():
            if message := self.shard_error(shard):
                return DatasetError(message)
        for position in positions.tolist():
            if reason := self.record_error(position):
                return self.name_record(position, reason)
        paths = ", ".join(
            str(self.index.path(shard)) for shard in np.unique(self.index.shards_of(positions))[:3]
        )
        return DatasetError(
            f"{paths}: could not be read a moment ago, and every record is intact now; look at the disk or network, "
            "and start again"
        )

    def shard_error(self, shard: int) -> str | None:
        """Returns what is wrong with a complete file: missing, wrong size, or wrong records."""
        if message := self.index.offsets_error(shard):
            return message
        path, expected = self.index.path(shard), self.index.shards[shard]
        first, end = self.index.first_rows[shard : shard + 2].tolist()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return f"{path}: no such shard; {self.index.repair_hint}"
        except OSError as error:
            return f"{path}: {error.strerror}"
        try:
            size = os.fstat(descriptor).st_size
            if size != expected.num_bytes:
                return f"{path}: {size:,} bytes, expected {expected.num_bytes:,}; {self.index.repair_hint}"
            rows = np.unique(np.linspace(first, end - 1, _CHECKED_RECORDS).astype(np.int64))
            num_equal = sum(self._has_checksum(descriptor, row, end) for row in rows.tolist())
            # One corrupt record does not make the file invalid: it is named when it is read.
            if 2 * num_equal > len(rows):
                return None
        except OSError as error:
            return f"{path}: {error.strerror}"
        finally:
            os.close(descriptor)
        return (
            f"{path}: holds other records than were written here: a foreign or swapped shard, or a corrupt one; "
            f"{self.index.repair_hint}"
        )

    def record_error(self, position: int) -> str | None:
        """Returns what is wrong with one record, phrased to follow its name."""
        found = self.index.locate(position)
        try:
            with self.index.path(found.shard).open("rb") as file:
                file.seek(found.start)
                framed = file.read(found.end - found.start)
            if len(framed) < found.end - found.start:
                return "is cut short"
            framed_length(framed[:HEADER_BYTES])
            payload = unframe(framed)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except RecordError as error:
            return _without_subject(str(error))
        if int.from_bytes(framed[-CHECKSUM_BYTES:], "little") != found.checksum:
            return "is another one than was written here: a foreign or swapped shard"
        return self._decoding_error(payload)

    def name_record(self, position: int, reason: str) -> DatasetError:
        """Returns the error about one record: its file, number, source file, what is wrong and how to repair it."""
        shard, number, *_ = self.index.locate(position)
        place = Place(self.index.name, shard, number)
        origin = find_origins(self.info, [place]).get(place)
        made_of = f" (of {origin.path})" if origin else ""
        return DatasetError(
            f"{self.index.path(shard)}: record {number}{made_of} {reason}; {self.index.repair_hint}"
        )

    def _decoding_error(self, payload: bytes) -> str | None:
        try:
            with tf.device("CPU"):
                self.decoder(tf.constant(payload))
        except (tf.errors.OpError, ValueError) as error:
            text = str(error).partition("}} ")[2] or str(error)
            return f"cannot be decoded: {text.splitlines()[0].partition(' [Op:')[0]}"
        return None

    def _has_checksum(self, descriptor: int, row: int, end_row: int) -> bool:
        records = self.index.records
        is_last = row + 1 == end_row
        end = os.fstat(descriptor).st_size if is_last else int(records["offset"][row + 1])
        found = os.pread(descriptor, CHECKSUM_BYTES, end - CHECKSUM_BYTES)
        return int.from_bytes(found, "little") == int(records["checksum"][row])


def _without_subject(sentence: str) -> str:
    return sentence.removeprefix("the record ").removeprefix("a record ")
