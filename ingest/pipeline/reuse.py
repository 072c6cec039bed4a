"""What a dataset that is there knows of the files that it was made of."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.common.safe_files import open_regular
from shardstream.ingest.dataset.manifest import read_rows
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import HEADER_BYTES, RecordError, framed_length
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.results import OK, REJECTED, REPAIRED
from shardstream.ingest.pipeline.scan import Listing, shown

_JUDGED = {"ok": OK, "repaired": REPAIRED, "rejected": REJECTED}


@dataclasses.dataclass(frozen=True, slots=True)
class PreviousState:
    """What was found of the files of a catalog in an older dataset.

    Attributes:
        same: Which files have the path, size and time that they had, bool [files].
        num_before: The number of files that the older dataset was made of.
        num_found: How many of them are there still.
    """

    same: np.ndarray
    num_before: int
    num_found: int


def load_previous(catalog: Catalog, old: DatasetInfo, engine: Engine) -> PreviousState:
    """Fills the rows of `catalog` whose paths are in the manifest of `old` with what that says of them.

    A file that was a duplicate or a conflict has no record there: it is taken for accepted, with a record of no
    bytes. Whether its file still is the same, the caller decides.

    Raises:
        DatasetError: The manifest or a shard of `old` is missing or damaged.
    """
    same = np.zeros(len(catalog.listing), bool)
    num_before = num_found = 0
    shard_numbers = {
        (split.name, number): len(catalog.sources) + i
        for i, (split, number) in enumerate(
            (split, number) for split in old.splits.values() for number in range(len(split.shards))
        )
    }
    catalog.sources += [str(old.data_dir / filename) for filename in old.shards]
    for row, before in _matches(catalog.listing, _rows(old)):
        num_before += 1
        num_found += row is not None
        if row is None or before["sha256"] is None:
            continue
        file = catalog.listing[row]
        same[row] = (file.size_bytes, file.mtime_ns) == (before["size_bytes"], before["mtime_ns"])
        catalog.digests[row] = np.frombuffer(bytes.fromhex(before["sha256"]), ">u8")
        catalog.judged[row] = _JUDGED.get(before["verdict"], OK)
        if before["verdict"] in _JUDGED:
            catalog.reason_numbers[row] = catalog.reason_number(before["reason"])
        catalog.heights[row] = before["source_height"] or 0
        catalog.widths[row] = before["source_width"] or 0
        if before["perceptual_hash"] is not None:
            catalog.has_hash[row], catalog.hashes[row] = True, before["perceptual_hash"]
        if before["split"] is not None:
            catalog.source_numbers[row] = shard_numbers[before["split"], before["shard"]]
            catalog.positions[row] = before["position"]
            catalog.lengths[row] = 1  # Has a record: where, the shards will say.
    _find_records(catalog, old, engine)
    return PreviousState(same, num_before, num_found)


def _rows(old: DatasetInfo) -> Iterator[dict]:
    for rows in read_rows(old):
        yield from rows.to_pylist()


def _matches(listing: Listing, before: Iterator[dict]) -> Iterator[tuple[int | None, dict]]:
    """Yields each row of an older manifest, and the row of the listing with its path.

    Both are in the order of their paths' bytes, so one walk through both is enough.
    """
    row = 0
    path = _path(listing, row)
    for old in before:
        old_path = old["path"].encode()
        while path is not None and path < old_path:
            row += 1
            path = _path(listing, row)
        # A path with bytes that are not UTF-8 was written down spelt out: two files could look like one.
        yield (row if path == old_path and b"\\" not in old_path else None), old


def _path(listing: Listing, row: int) -> bytes | None:
    return shown(listing.path(row)).encode() if row < len(listing) else None


def _find_records(catalog: Catalog, old: DatasetInfo, engine: Engine) -> None:
    """Sets offset and length of each record that was taken over, by its position in its shard."""
    rows = np.flatnonzero(catalog.lengths)
    order = rows[np.argsort(catalog.source_numbers[rows], kind="stable")]
    starts = np.searchsorted(catalog.source_numbers[order], np.arange(len(catalog.sources) + 1))
    numbers = {Path(source).name: number for number, source in enumerate(catalog.sources)}
    paths = [old.data_dir / filename for filename in old.shards]
    for filename, offsets in engine.run_all(index_shard, paths, alone=index_shard):
        number = numbers[filename]
        rows = order[starts[number] : starts[number + 1]]
        if len(offsets) - 1 != old.shards[filename].num_examples:
            raise DatasetError(
                f"{old.data_dir / filename}: {len(offsets) - 1} records, metadata says "
                f"{old.shards[filename].num_examples}; mend it with `shardstream-ingest repair` first"
            )
        catalog.offsets[rows] = offsets[catalog.positions[rows]]
        catalog.lengths[rows] = np.diff(offsets)[catalog.positions[rows]]


def index_shard(path: Path) -> tuple[str, np.ndarray]:
    """Returns the name of a shard, and the offset of each record and of the end, in bytes, uint64 [records + 1].

    Raises:
        DatasetError: The file is missing or damaged.
    """
    offsets = [0]
    try:
        with open_regular(path, buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while offsets[-1] < size:
                header = os.pread(file.fileno(), HEADER_BYTES, offsets[-1])
                offsets.append(offsets[-1] + framed_length(header))
    except (OSError, RecordError) as error:
        raise DatasetError(f"{path}: {error}; mend it with `shardstream-ingest repair` first") from None
    if offsets[-1] != size:
        raise DatasetError(f"{path}: cut inside of a record; mend it with `shardstream-ingest repair` first")
    return path.name, np.asarray(offsets, np.uint64)
