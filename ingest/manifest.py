"""manifest.parquet: a row for every source file, so that every record leads back to a file on disk."""

import hashlib
import io
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.ingest.catalog import NO_SPLIT, Catalog
from shardstream.ingest.errors import DatasetError
from shardstream.ingest.scan import shown
from shardstream.ingest.splits import SPLIT_NAMES
from shardstream.ingest.verdicts import VERDICTS
from shardstream.ingest.whole_files import file_sha256

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from typing_extensions import Buffer

FILENAME = "manifest.parquet"
_ROWS_PER_GROUP = 65_536
# The metadata are in it as well, but for its own hash: with either file the other can be made again.
_METADATA_KEY = b"shardstream"


def write_manifest(catalog: Catalog, path: Path, metadata: bytes) -> None:
    """Writes the manifest of all files, some thousands at a time.

    Columns: path (relative to the source folder), size_bytes, mtime_ns, sha256 (hexadecimal, null if the file
    could not be read), class_name, verdict, reason (how it was repaired, why it was rejected, which file it is
    a duplicate of), split, shard, position (null where there is no record), source_height and source_width (of
    the upright picture, in pixels), perceptual_hash (64 bits).

    Args:
        catalog: All files.
        path: Of the manifest.
        metadata: What goes into it beside the rows.
    """
    schema = _schema().with_metadata({_METADATA_KEY: metadata})
    with _writer(path, schema) as writer:
        for start in range(0, len(catalog.listing), _ROWS_PER_GROUP):
            rows = np.arange(start, min(start + _ROWS_PER_GROUP, len(catalog.listing)))
            writer.write_table(_table(catalog, rows, schema))


def load_arrow() -> None:
    """Loads what writing takes, 0.12 s of a core: one has nothing to do while worker processes start."""
    import pyarrow.parquet  # noqa: F401


def open_manifest(path: Path) -> "pq.ParquetFile":
    """Opens a manifest for reading.

    Raises:
        DatasetError: It is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_metadata(path: Path) -> bytes:
    """Returns what was given to `write_manifest`.

    Raises:
        DatasetError: The manifest is missing or damaged, or there is nothing of ours in it.
    """
    import pyarrow as pa

    try:
        with open_manifest(path) as manifest:
            metadata = (manifest.schema_arrow.metadata or {}).get(_METADATA_KEY)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if metadata is None:
        raise DatasetError(f"{path}: not a manifest of this program: it has no metadata in it")
    return metadata


def salvage_metadata(path: Path) -> bytes:
    """Returns what may be what was given to `write_manifest`, however damaged the rest of a manifest is.

    Parquet has it in the footer as it is, a JSON object of which only the last line begins with a brace.
    """
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(b"{", content.rfind(_METADATA_KEY))
        end = content.find(b"\n}\n", start)
        return content[start : end + len(b"\n}\n")]


def is_as_written(path: Path) -> bool:
    """Returns whether a manifest is, byte for byte, what is written of its own rows: it was not changed since.

    The checksums of Parquet's pages do not cover its footer, where the metadata are. They have to do where another
    version of Arrow, which writes other bytes of the same rows, wrote the manifest.

    Raises:
        DatasetError: It is missing or damaged.
    """
    import pyarrow as pa

    again = _Hash()
    try:
        with open_manifest(path) as manifest, _writer(again, manifest.schema_arrow) as writer:
            for group in range(manifest.num_row_groups):
                writer.write_table(manifest.read_row_group(group))
            is_of_this_version = manifest.metadata.created_by.endswith(f" {pa.cpp_version}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from None
    return not is_of_this_version or again.digest.hexdigest() == file_sha256(path)


class _Hash(io.RawIOBase):
    """A file of which only the hash is kept."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._num_bytes = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def write(self, content: "Buffer", /) -> int:
        self.digest.update(content)
        self._num_bytes += memoryview(content).nbytes
        return memoryview(content).nbytes


def _writer(file: "Path | io.RawIOBase", schema: "pa.Schema") -> "pq.ParquetWriter":
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read: {' '.join(str(error).split())[:120]}; mend it with `shardstream-ingest repair`"
    )


def _schema() -> "pa.Schema":
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("sha256", pa.string()),
            ("class_name", name),
            ("verdict", name),
            ("reason", pa.string()),
            ("split", name),
            ("shard", pa.int32()),
            ("position", pa.int32()),
            ("source_height", pa.int32()),
            ("source_width", pa.int32()),
            ("perceptual_hash", pa.uint64()),
        ]
    )


def _table(catalog: Catalog, rows: np.ndarray, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    listing = catalog.listing
    splits = catalog.splits[rows]
    no_record, no_size = splits == NO_SPLIT, catalog.heights[rows] == 0
    digests = catalog.digests[rows].astype(">u8").tobytes().hex()
    columns = [
        pa.array([shown(listing.path(row)) for row in rows.tolist()]),
        pa.array(listing.sizes[rows]),
        pa.array(listing.mtimes[rows]),
        pa.array(
            [
                digests[64 * i : 64 * (i + 1)] if read else None
                for i, read in enumerate(np.any(catalog.digests[rows], axis=1).tolist())
            ]
        ),
        _names(listing.labels[rows], listing.class_names),
        _names(catalog.verdicts[rows], VERDICTS),
        pa.array([catalog.reason(row) for row in rows.tolist()]),
        _names(splits, SPLIT_NAMES, no_record),
        pa.array(catalog.shards[rows].astype(np.int32), mask=no_record),
        pa.array(catalog.positions[rows].astype(np.int32), mask=no_record),
        pa.array(catalog.heights[rows].astype(np.int32), mask=no_size),
        pa.array(catalog.widths[rows].astype(np.int32), mask=no_size),
        pa.array(catalog.hashes[rows], mask=~catalog.has_hash[rows]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _names(
    numbers: np.ndarray, names: Sequence[str], nulls: np.ndarray | None = None
) -> "pa.DictionaryArray":
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32), mask=nulls), pa.array(names))
