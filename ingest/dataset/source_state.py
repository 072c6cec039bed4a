"""source_state.parquet: size, times and inode of each source file, by which an update recognizes unchanged files.

Not part of the dataset: neither `verify` nor the fingerprint includes it, and without it an update reads every file.
It has a row for each row of the manifest, in the same order, and names that manifest by its SHA-256.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import check_regular
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.parquet_files import (
    ROWS_AT_ONCE,
    ROWS_PER_GROUP,
    make_writer,
    open_parquet,
)
from shardstream.ingest.execution.processes import run_alone

if TYPE_CHECKING:
    import pyarrow as pa

FILENAME = "source_state.parquet"
_MANIFEST_KEY = b"manifest_sha256"
_REMEDY = "every file is read again"


class FileState(NamedTuple):
    """What the file system says of a source file; equal states mean unchanged content.

    The time of the last status change (ctime) shows changes by programs that restore the modification time.

    Attributes:
        size_bytes: Its size.
        mtime_ns: Modification time in nanoseconds since 1970.
        ctime_ns: Time of the last status change in nanoseconds since 1970.
        inode: Number of the file in its file system.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """Returns the state in a stat result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def write_source_states(path: Path, columns: Sequence[np.ndarray], manifest_sha256: str) -> None:
    """Writes the states of all source files, some thousands at a time.

    Args:
        path: Path of the new file.
        columns: The fields of `FileState` in its order, int64 [files] each, the last uint64 [files].
        manifest_sha256: SHA-256 of the manifest with the same rows, in hexadecimal.
    """
    import pyarrow as pa

    schema = _schema().with_metadata({_MANIFEST_KEY: manifest_sha256.encode()})
    with path.open("wb") as file, make_writer(file, schema) as writer:
        for start in range(0, len(columns[0]), ROWS_PER_GROUP):
            window = [pa.array(column[start : start + ROWS_PER_GROUP]) for column in columns]
            writer.write_table(pa.Table.from_arrays(window, schema=schema))


def check_source_states(info: DatasetInfo) -> None:
    """Reads the file completely, so that `read_source_states` finds no error.

    Raises:
        DatasetError: The file is missing, corrupt, or of another manifest; the message ends with the consequence.
    """
    path = info.data_dir / FILENAME
    check_regular(path, _REMEDY)
    try:
        # In its own process: a corrupt Parquet file may crash the C++ reader.
        num_rows = run_alone(_num_rows, info)
    except BrokenExecutor:
        raise DatasetError(f"{path}: corrupt: reading it kills its process; {_REMEDY}") from None
    if num_rows != sum(info.verdicts.values()):
        raise DatasetError(f"{path}: {num_rows:,} rows, the manifest has another number; {_REMEDY}")


def read_source_states(info: DatasetInfo) -> Iterator[FileState]:
    """Yields the state of the source file of each row of the manifest.

    Raises:
        DatasetError: The file is missing, corrupt, or of another manifest.
    """
    for batch in _batches(info):
        yield from map(FileState._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _num_rows(info: DatasetInfo) -> int:
    return sum(len(batch) for batch in _batches(info))


def _batches(info: DatasetInfo) -> "Iterator[pa.RecordBatch]":
    path = info.data_dir / FILENAME
    with open_parquet(path, _schema(), _REMEDY) as table:
        if (table.schema_arrow.metadata or {}).get(_MANIFEST_KEY) != info.manifest_sha256.encode():
            raise DatasetError(f"{path}: of another manifest; {_REMEDY}")
        if table.schema_arrow.names != list(FileState._fields):
            raise DatasetError(f"{path}: columns {table.schema_arrow.names}, expected others; {_REMEDY}")
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE)


def _schema() -> "pa.Schema":
    import pyarrow as pa

    kinds = (pa.int64(), pa.int64(), pa.int64(), pa.uint64())
    return pa.schema(list(zip(FileState._fields, kinds, strict=True)))
