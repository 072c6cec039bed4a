"""index.npy: the offset and checksum of each record. Readers memory-map it, so they load only the rows that they use.

A NumPy array with one row per record, in the order of the splits in metadata.json, their shards, and the records in
them: `numpy.load("index.npy", mmap_mode="r")`. 12 bytes per record: 1.2 GB on disk for a hundred million records.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.safe_files import check_regular, open_regular, parse_errors
from shardstream.ingest.dataset.metadata import FORMAT_VERSION, DatasetInfo, ShardInfo
from shardstream.ingest.dataset.records import CHECKSUM_BYTES, HEADER_BYTES, RecordError, framed_length

FILENAME = "index.npy"

# offset: byte offset of the record in its file; checksum: the masked CRC-32C of its payload, as stored in the file.
INDEX_DTYPE = np.dtype([("offset", "<i8"), ("checksum", "<u4")])


def index_rows(offsets: Sequence[int], checksums: Iterable[bytes]) -> np.ndarray:
    """Returns the rows of one shard, `INDEX_DTYPE` [num_examples].

    Args:
        offsets: Byte offset of each record.
        checksums: The last 4 bytes of each framed record.
    """
    rows = np.empty(len(offsets), INDEX_DTYPE)
    rows["offset"] = offsets
    rows["checksum"] = np.frombuffer(b"".join(checksums), "<u4")
    return rows


def scan_shard(path: Path, shard: ShardInfo, repair_hint: str) -> np.ndarray:
    """Returns the rows of a shard by reading the headers of its records.

    Raises:
        DatasetError: The file is missing or does not match the metadata.
    """
    offsets: list[int] = []
    checksums: list[bytes] = []
    offset = 0
    try:
        with open_regular(path, buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for _ in range(shard.num_examples):
                end = offset + framed_length(os.pread(file.fileno(), HEADER_BYTES, offset))
                offsets.append(offset)
                checksums.append(os.pread(file.fileno(), CHECKSUM_BYTES, end - CHECKSUM_BYTES))
                offset = end
                if offset > size:
                    raise RecordError("a record is cut short")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such shard; {repair_hint}") from None
    except OSError as error:
        if is_machine_error(error):
            raise
        raise DatasetError(f"{path}: cannot be read: {error.strerror}; {repair_hint}") from None
    except RecordError as error:
        raise DatasetError(
            f"{path}: record {len(offsets)} at byte {offset}: {error}; {repair_hint}"
        ) from None
    if not offset == size == shard.num_bytes:
        raise DatasetError(
            f"{path}: {shard.num_examples:,} records end at byte {offset:,} of {size:,}, expected "
            f"{shard.num_bytes:,} bytes; {repair_hint}"
        )
    return index_rows(offsets, checksums)


def scan_shards(info: DatasetInfo, shards: Iterable[ShardInfo]) -> np.ndarray:
    """Returns the concatenated rows of several shards of a dataset.

    Raises:
        DatasetError: A file is missing or does not match the metadata.
    """
    parts = [scan_shard(info.data_dir / shard.filename, shard, info.remedy) for shard in shards]
    return np.concatenate(parts) if parts else np.empty(0, INDEX_DTYPE)


def first_rows(info: DatasetInfo) -> dict[str, int]:
    """Returns the first row of each shard, by file name."""
    rows: dict[str, int] = {}
    row = 0
    for filename, shard in info.shards.items():
        rows[filename] = row
        row += shard.num_examples
    return rows


def open_index(info: DatasetInfo) -> np.ndarray:
    """Returns the memory-mapped index of a dataset folder: `INDEX_DTYPE` [num_examples of all splits].

    Raises:
        DatasetError: The index is missing or has another number of rows.
    """
    path = info.data_dir / FILENAME
    num_examples = sum(split.num_examples for split in info.splits.values())
    check_regular(path, info.remedy)
    # NumPy checks the file size against the header without allocating memory.
    with parse_errors(path, info.remedy):
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(rows, np.ndarray) or rows.dtype != INDEX_DTYPE or rows.shape != (num_examples,):
        raise DatasetError(
            f"{path}: expected {num_examples:,} rows of offset and checksum, found {rows.dtype} {rows.shape}; "
            f"{info.remedy}"
        )
    return rows


def shard_rows(index: np.ndarray, info: DatasetInfo, filename: str) -> np.ndarray:
    """Returns the rows of one shard, a view."""
    first = first_rows(info)[filename]
    return index[first : first + info.shards[filename].num_examples]


def split_rows(info: DatasetInfo, split_name: str) -> np.ndarray:
    """Returns the rows of one split: memory-mapped, or scanned from the shards in format 3, which has no index.

    Raises:
        DatasetError: There is no such split, or its index or a shard is missing or corrupt.
    """
    split = info.split(split_name)
    if info.format_version < FORMAT_VERSION:
        return scan_shards(info, split.shards)
    first = first_rows(info)[split.shards[0].filename]
    return open_index(info)[first : first + split.num_examples]


@contextlib.contextmanager
def open_index_writer(path: Path, num_examples: int) -> Iterator[np.ndarray]:
    """Yields the writable rows of a new index, `INDEX_DTYPE` [num_examples], which are flushed to disk on exit."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=INDEX_DTYPE, shape=(num_examples,))
    yield rows
    rows.flush()
