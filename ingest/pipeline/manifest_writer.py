"""Writes manifest.parquet from the catalog."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardstream.ingest.dataset.manifest import METADATA_KEY, make_writer, manifest_schema
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.listing import NO_SPLIT, shown
from shardstream.ingest.pipeline.results import VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_GROUP = 65_536


def write_manifest(catalog: Catalog, path: Path, metadata: bytes) -> None:
    """Writes the manifest of all files, some thousands at a time.

    Columns: path (relative to the source folder), size_bytes, mtime_ns, sha256 (hexadecimal, null if the file
    could not be read), class_name, verdict, reason (how it was repaired, why it was rejected, which file it is
    a duplicate of), split, shard, position (null where there is no record), source_height and source_width (of
    the upright image, in pixels), perceptual_hash (64 bits).

    Args:
        catalog: All files.
        path: Path of the manifest.
        metadata: Metadata to store with the rows.
    """
    schema = manifest_schema().with_metadata({METADATA_KEY: metadata})
    with path.open("wb") as file, make_writer(file, schema) as writer:
        for start in range(0, len(catalog.listing), _ROWS_PER_GROUP):
            rows = np.arange(start, min(start + _ROWS_PER_GROUP, len(catalog.listing)))
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
