"""manifest.parquet: a row for every source file, so that every record leads back to a file on disk."""

import hashlib
import io
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from typing_extensions import Buffer

FILENAME = "manifest.parquet"
# The metadata are in it as well, but for its own hash: with either file the other can be made again.
METADATA_KEY = b"shardstream"


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
            metadata = (manifest.schema_arrow.metadata or {}).get(METADATA_KEY)
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
        start = content.find(b"{", content.rfind(METADATA_KEY))
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
        with open_manifest(path) as manifest, make_writer(again, manifest.schema_arrow) as writer:
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


def make_writer(file: "Path | io.RawIOBase", schema: "pa.Schema") -> "pq.ParquetWriter":
    """Returns a writer whose pages are compressed and have checksums."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path}: cannot be read: {' '.join(str(error).split())[:120]}; mend it with `shardstream-ingest repair`"
    )


def manifest_schema() -> "pa.Schema":
    """Returns the columns of the manifest, see `pipeline.manifest_writer.write_manifest`."""
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
