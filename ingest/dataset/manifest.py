"""manifest.parquet: one row per source file, so that every record can be traced to a file on disk."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.parquet_files import ROWS_AT_ONCE, open_parquet
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shardstream.ingest.dataset.metadata import DatasetInfo

FILENAME = "manifest.parquet"
# The manifest also has a copy of the metadata except its own hash, so either file can be rebuilt from the other.
METADATA_KEY = b"shardstream"
REMEDY = "repair it with `shardstream-ingest repair`"
# All verdicts on a file.
VERDICTS = ("ok", "repaired", "duplicate", "conflict", "rejected")

_MAX_TEXT_BYTES = 1 << 16
_LEADS_OUT = r"^/|(^|/)\.\.?(/|$)|//|\x00"
_TEXTS = ["path", "sha256", "reason"]


@contextlib.contextmanager
def open_manifest(path: Path, *, read_dictionary: Sequence[str] = ()) -> "Iterator[pq.ParquetFile]":
    """Opens a manifest for reading, and converts errors of its reader to a DatasetError.

    Args:
        path: Path of the manifest.
        read_dictionary: Text columns to read dictionary-encoded.

    Raises:
        DatasetError: The file is missing, corrupt, or not a manifest.
    """
    with open_parquet(path, manifest_schema(), REMEDY, read_dictionary=read_dictionary) as manifest:
        yield manifest


def read_metadata(path: Path) -> bytes:
    """Returns the metadata that were given to `write_manifest`.

    Raises:
        DatasetError: The manifest is missing or corrupt, or has no such metadata.
    """
    with open_manifest(path) as manifest:
        metadata = (manifest.schema_arrow.metadata or {}).get(METADATA_KEY)
    if metadata is None:
        raise DatasetError(f"{path}: not a manifest of this program: it has no metadata in it; {REMEDY}")
    return metadata


def read_rows(info: "DatasetInfo") -> "Iterator[pa.RecordBatch]":
    """Yields all rows of a dataset's manifest, some thousands at a time, each checked against the metadata.

    Text columns are dictionary-encoded, so repeated values are in memory once.

    Raises:
        DatasetError: The manifest is missing, corrupt, or does not match the metadata; raised after the last row at
            the latest.
    """
    path = info.data_dir / FILENAME
    with open_manifest(path, read_dictionary=_TEXTS) as manifest:
        check_num_rows(info, manifest)
        check = _RowCheck(info)
        for batch in manifest.iter_batches(batch_size=ROWS_AT_ONCE):
            check.add(batch)
            yield batch
        check.finish()


def check_num_rows(info: "DatasetInfo", manifest: "pq.ParquetFile") -> None:
    """Raises DatasetError unless the manifest of `info` has one row per file."""
    num_rows, expected = manifest.metadata.num_rows, sum(info.verdicts.values())
    if num_rows != expected:
        path = info.data_dir / FILENAME
        raise DatasetError(f"{path}: {num_rows:,} rows, expected {expected:,} files; {REMEDY}")


def check_lengths(info: "DatasetInfo", name: str, texts: "pa.StringArray") -> None:
    """Raises DatasetError if a text of the column `name` is longer than any that `write_manifest` writes."""
    import pyarrow.compute as pc

    longest = pc.call_function("max", [pc.call_function("binary_length", [texts])]).as_py() or 0
    if longest > _MAX_TEXT_BYTES:
        raise DatasetError(f"{info.data_dir / FILENAME}: has a {name} of {longest:,} bytes; {REMEDY}")


def check_rows(info: "DatasetInfo") -> None:
    """Raises DatasetError unless the manifest of `info` has one row per record and matches the metadata."""
    for _ in read_rows(info):
        pass


class _RowCheck:
    """Compares rows with the classes, verdicts, shards and record counts of the metadata."""

    def __init__(self, info: "DatasetInfo") -> None:
        self._info = info
        self._num_found = {name: np.zeros(split.num_examples, bool) for name, split in info.splits.items()}
        self._firsts = {
            name: np.cumsum([0, *(shard.num_examples for shard in split.shards)])
            for name, split in info.splits.items()
        }
        self._verdicts: dict[str, int] = {}

    def add(self, batch: "pa.RecordBatch") -> None:
        for name in _TEXTS:
            check_lengths(self._info, name, batch.column(name).dictionary)
        self._check_texts(batch)
        classes = set(batch.column("class_name").dictionary.to_pylist())
        for count in batch.column("verdict").value_counts().to_pylist():
            if count["values"] not in VERDICTS:
                raise self._error(f"a verdict that is none of {', '.join(VERDICTS)}")
            self._verdicts[count["values"]] = self._verdicts.get(count["values"], 0) + count["counts"]
        if batch.column("path").null_count or batch.column("class_name").null_count:
            raise self._error("a row without a path or a class")
        if classes - set(self._info.class_names):
            raise self._error("a class that is none of the dataset")
        for name in ("source_height", "source_width"):
            if (np.asarray(batch.column(name).fill_null(0)) < 0).any():
                raise self._error(f"a negative {name}")
        self._check_places(batch)

    def finish(self) -> None:
        missing = sum(int((~found).sum()) for found in self._num_found.values())
        if missing:
            raise self._error(f"no row for {missing:,} records")
        found, expected = (
            {k: v for k, v in counts.items() if v} for counts in (self._verdicts, self._info.verdicts)
        )
        if found != expected:
            raise self._error("other numbers of verdicts than the metadata")

    def _check_texts(self, batch: "pa.RecordBatch") -> None:
        import pyarrow.compute as pc

        def matching(name: str, pattern: str) -> "pa.BooleanArray":
            texts = [batch.column(name).dictionary]
            return pc.call_function("match_substring_regex", texts, pc.MatchSubstringOptions(pattern))

        hashes = matching("sha256", "^[0-9a-f]{64}$")
        if len(hashes) and not pc.call_function("all", [hashes]).as_py():
            raise self._error("a sha256 that is none")
        if pc.call_function("any", [matching("path", _LEADS_OUT)]).as_py():
            raise self._error("a path that leads out of the photos")

    def _check_places(self, batch: "pa.RecordBatch") -> None:
        has_place = np.asarray(batch.column("split").is_valid())
        if not has_place.any():
            return
        splits = np.asarray(batch.column("split").filter(has_place).cast("string"))
        shards, positions = (
            np.asarray(batch.column(name).fill_null(-1)).astype(np.int64)[has_place]
            for name in ("shard", "position")
        )
        hashed = np.asarray(batch.column("sha256").is_valid())
        if not hashed[has_place].all():
            raise self._error("a record of a file without a sha256")
        for name in set(splits.tolist()):
            if name not in self._firsts:
                raise self._error(f"a split that is none of {', '.join(SPLIT_NAMES)}")
            chosen = splits == name
            self._note(self._firsts[name], self._num_found[name], shards[chosen], positions[chosen])

    def _note(self, firsts: np.ndarray, found: np.ndarray, shards: np.ndarray, positions: np.ndarray) -> None:
        if (shards < 0).any() or (shards >= len(firsts) - 1).any():
            raise self._error("a shard that is not there")
        if (positions < 0).any() or (positions >= np.diff(firsts)[shards]).any():
            raise self._error("a record that is not there")
        places = firsts[shards] + positions
        if found[places].any() or len(np.unique(places)) != len(places):
            raise self._error("two rows for one record")
        found[places] = True

    def _error(self, what: str) -> DatasetError:
        return DatasetError(f"{self._info.data_dir / FILENAME}: has {what}; {REMEDY}")


def is_of_old_layout(info: "DatasetInfo") -> bool:
    """Whether the manifest has the columns that shardstream 0.2.0 wrote.

    Raises:
        DatasetError: The manifest is missing or corrupt.
    """
    with open_manifest(info.data_dir / FILENAME) as manifest:
        return "mtime_ns" in manifest.schema_arrow.names


def old_manifest_schema() -> "pa.Schema":
    """Returns the columns of a manifest of shardstream 0.2.0, with modification times of the source files."""
    import pyarrow as pa

    return manifest_schema().insert(2, pa.field("mtime_ns", pa.int64()))


def manifest_schema() -> "pa.Schema":
    """Returns the columns of the manifest, see `pipeline.manifest_writer.write_manifest`."""
    import pyarrow as pa

    name = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
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
