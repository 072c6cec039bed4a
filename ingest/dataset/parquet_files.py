"""Parquet files of a dataset folder, which may come from a stranger."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import open_regular, parse_errors

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# For writing.
ROWS_PER_GROUP = 65_536
# For reading.
ROWS_AT_ONCE = 16_384
# Limits for reading: a small file can decompress to any number of rows, and a whole row group is in memory at once.
_MAX_ROWS_PER_GROUP = 1 << 20
_MAX_GROUP_BYTES = 1 << 30


def make_writer(file: "BinaryIO", schema: "pa.Schema") -> "pq.ParquetWriter":
    """Returns a writer whose pages are compressed and have checksums."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


@contextlib.contextmanager
def open_parquet(
    path: Path, schema: "pa.Schema", remedy: str, *, read_dictionary: Sequence[str] = ()
) -> "Iterator[pq.ParquetFile]":
    """Opens a Parquet file for reading, and converts errors of its reader to a DatasetError.

    Args:
        path: Path of the file.
        schema: The columns that it must have, among others.
        remedy: What to do about an error, for the end of its message.
        read_dictionary: Text columns to read dictionary-encoded.

    Raises:
        DatasetError: The file is missing or corrupt, or has other columns.
    """
    import pyarrow.parquet as pq

    # Not opened by path: Arrow's reader would block on a pipe, and accepts only UTF-8 paths.
    with (
        parse_errors(path, remedy),
        open_regular(path) as file,
        pq.ParquetFile(file, page_checksum_verification=True, read_dictionary=list(read_dictionary)) as table,
    ):
        _check_schema(path, table, schema, remedy)
        yield table


def _check_schema(path: Path, table: "pq.ParquetFile", schema: "pa.Schema", remedy: str) -> None:
    found = table.schema_arrow
    for field in schema:
        if field.name not in found.names:
            raise DatasetError(f"{path}: has no column {field.name!r}; {remedy}")
        kind = found.field(field.name).type
        if _value_type(kind) != _value_type(field.type):
            raise DatasetError(f"{path}: column {field.name!r} is {kind}, expected {field.type}; {remedy}")
    for group in range(table.metadata.num_row_groups):
        rows = table.metadata.row_group(group)
        if rows.num_rows > _MAX_ROWS_PER_GROUP or rows.total_byte_size > _MAX_GROUP_BYTES:
            raise DatasetError(
                f"{path}: row group {group} has {rows.num_rows:,} rows of {rows.total_byte_size:,} bytes, more than "
                f"this program writes; {remedy}"
            )


def _value_type(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
