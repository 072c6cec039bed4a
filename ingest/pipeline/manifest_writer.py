"""Writes manifest.parquet from the catalog."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.ingest.dataset.manifest import METADATA_KEY
from shardstream.ingest.dataset.parquet_files import ROWS_PER_GROUP, make_writer
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import NO_SPLIT, shown
from shardstream.ingest.pipeline.results import VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa


def write_manifest(catalog: Catalog, path: Path, metadata: bytes, schema: "pa.Schema") -> None:
    """Writes the manifest of all files, some thousands at a time.

    Columns: path (relative to the source folder), size_bytes, sha256 (hexadecimal, null if the file
    could not be read), class_name, verdict, reason (how it was repaired, why it was rejected, which file it is
    a duplicate of), split, shard, position (null where there is no record), source_height and source_width (of
    the upright image, in pixels), perceptual_hash (64 bits).

    Args:
        catalog: All files.
        path: Path of the manifest.
        metadata: Metadata to store with the rows.
        schema: The columns: `manifest_schema()`, or `old_manifest_schema()` to repair a dataset of shardstream 0.2.0.
    """
    schema = schema.with_metadata({METADATA_KEY: metadata})
    with path.open("wb") as file, make_writer(file, schema) as writer:
        for start in range(0, len(catalog.listing), ROWS_PER_GROUP):
            rows = np.arange(start, min(start + ROWS_PER_GROUP, len(catalog.listing)))
            writer.write_table(_table(catalog, rows, schema))


def load_arrow() -> None:
    """Imports pyarrow early: 0.12 s of a core that is idle while worker processes start.

    A failure is ignored here: it occurs again, and is reported, when the manifest is written.
    """
    with contextlib.suppress(ImportError, MemoryError):
        import pyarrow.parquet  # noqa: F401


def _table(catalog: Catalog, rows: np.ndarray, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    listing = catalog.listing
    splits = catalog.splits[rows]
    no_record, no_size = splits == NO_SPLIT, catalog.heights[rows] == 0
    digests = catalog.digests[rows].astype(">u8").tobytes().hex()
    columns = {
        "path": pa.array([shown(listing.path(row)) for row in rows.tolist()]),
        "size_bytes": pa.array(listing.sizes[rows]),
        "mtime_ns": pa.array(listing.mtimes[rows]),
        "sha256": pa.array(
            [
                digests[64 * i : 64 * (i + 1)] if read else None
                for i, read in enumerate(np.any(catalog.digests[rows], axis=1).tolist())
            ]
        ),
        "class_name": _names(listing.labels[rows], listing.class_names),
        "verdict": _names(catalog.verdicts[rows], VERDICTS),
        "reason": pa.array([catalog.reason(row) for row in rows.tolist()]),
        "split": _names(splits, SPLIT_NAMES, no_record),
        "shard": pa.array(catalog.shards[rows].astype(np.int32), mask=no_record),
        "position": pa.array(catalog.positions[rows].astype(np.int32), mask=no_record),
        "source_height": pa.array(catalog.heights[rows].astype(np.int32), mask=no_size),
        "source_width": pa.array(catalog.widths[rows].astype(np.int32), mask=no_size),
        "perceptual_hash": pa.array(catalog.hashes[rows], mask=~catalog.has_hash[rows]),
    }
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _names(
    numbers: np.ndarray, names: Sequence[str], nulls: np.ndarray | None = None
) -> "pa.DictionaryArray":
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32), mask=nulls), pa.array(names))
