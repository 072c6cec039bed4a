"""manifest.parquet: a row for every source file, so that every record leads back to a file on disk."""

from pathlib import Path

import numpy as np

from ingest.catalog import VERDICTS, Catalog
from ingest.scan import shown
from ingest.splits import SPLIT_NAMES
from ingest.units import FileVerdict, read_verdicts

FILENAME = "manifest.parquet"
_ROWS_PER_GROUP = 65_536


def write_manifest(catalog: Catalog, path: Path) -> None:
    """Writes the manifest of all files, some units at a time.

    Columns: path (relative to the source folder), size_bytes, mtime_ns, sha256 (hexadecimal, null if the file
    could not be read), class_name, verdict, reason (how it was repaired, why it was rejected, which file it is
    a duplicate of), split, shard, position (null where there is no record), source_height and source_width (of
    the upright picture, in pixels), perceptual_hash (64 bits).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("sha256", pa.string()),
            ("class_name", pa.dictionary(pa.int32(), pa.string())),
            ("verdict", pa.dictionary(pa.int32(), pa.string())),
            ("reason", pa.string()),
            ("split", pa.dictionary(pa.int32(), pa.string())),
            ("shard", pa.int32()),
            ("position", pa.int32()),
            ("source_height", pa.int32()),
            ("source_width", pa.int32()),
            ("perceptual_hash", pa.uint64()),
        ]
    )
    rows: list[dict[str, object]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for unit in catalog.units:
            rows += [_row(catalog, unit.first + i, verdict) for i, verdict in enumerate(read_verdicts(unit))]
            if len(rows) >= _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _row(catalog: Catalog, row: int, file: FileVerdict) -> dict[str, object]:
    verdict = VERDICTS[catalog.verdicts[row]]
    has_record = bool(catalog.splits[row] < len(SPLIT_NAMES))
    was_read = file.source_height > 0
    return {
        "path": file.path,
        "size_bytes": file.size_bytes,
        "mtime_ns": file.mtime_ns,
        "sha256": file.sha256 or None,
        "class_name": catalog.listing.class_names[catalog.labels[row]],
        "verdict": verdict,
        "reason": _reason(catalog, row, verdict, file),
        "split": SPLIT_NAMES[catalog.splits[row]] if has_record else None,
        "shard": int(catalog.shards[row]) if has_record else None,
        "position": int(catalog.positions[row]) if has_record else None,
        "source_height": file.source_height if was_read else None,
        "source_width": file.source_width if was_read else None,
        "perceptual_hash": np.uint64(file.perceptual_hash) if was_read else None,
    }


def _reason(catalog: Catalog, row: int, verdict: str, file: FileVerdict) -> str:
    original = shown(catalog.listing[int(catalog.originals[row])].path)
    if verdict == "duplicate":
        return f"same content as {original}"
    if verdict == "conflict":
        return f"the same content is in more than one category, first as {original}"
    return file.reason
