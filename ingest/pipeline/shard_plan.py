"""Assigns records to shards: a pure function of the records."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.records import relabelled_lengths
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.dataset.validation import shard_filename
from shardstream.ingest.pipeline.catalog import Catalog, shuffled_rows
from shardstream.ingest.pipeline.listing import NO_SPLIT
from shardstream.ingest.pipeline.record_reads import RecordPlaces
from shardstream.ingest.pipeline.shards import ShardSpec

Rows = npt.NDArray[np.uint32]
_HASH_BITS = 64
# metadata.json has 220 bytes per shard, and is read completely whenever the dataset is opened.
_MAX_SHARDS = 80_000


class PlannedShard(NamedTuple):
    """The rows of the catalog that a shard will hold, in order."""

    path: Path
    split: str
    rows: Rows


class ShardPlan:
    """The shards of all splits. Their specs are created lazily: together they may not fit into memory."""

    def __init__(
        self, catalog: Catalog, folder: Path, *, name: str, splits: Mapping[str, Sequence[Rows]]
    ) -> None:
        """Sets shard and position of each record in `catalog`.

        Args:
            catalog: All files.
            folder: The folder for the shards.
            name: Name of the dataset.
            splits: The rows of each shard of each split.
        """
        self.shards: list[PlannedShard] = []
        self._catalog = catalog
        for split, shards in splits.items():
            for number, rows in enumerate(shards):
                catalog.shards[rows] = number
                catalog.positions[rows] = np.arange(len(rows))
                path = folder / shard_filename(name, split, number, len(shards))
                self.shards.append(PlannedShard(path, split, rows))

    def specs(self, *, without: Collection[str]) -> Iterator[ShardSpec]:
        """Yields the specs of the shards to write, except those with the file names in `without`."""
        return (
            make_spec(self._catalog, shard.path, shard.rows)
            for shard in self.shards
            if shard.path.name not in without
        )

    @property
    def num_records(self) -> int:
        """The number of records in all shards."""
        return sum(len(shard.rows) for shard in self.shards)

    def rows(self, *, without: Collection[str]) -> Rows:
        """Returns the rows of all shards except those with the file names in `without`, in order."""
        chosen = [shard.rows for shard in self.shards if shard.path.name not in without]
        return np.concatenate(chosen) if chosen else np.empty(0, np.uint32)

    def first_rows(self) -> dict[str, int]:
        """Returns the first row of each shard in the index, by file name."""
        ends = itertools.accumulate((len(shard.rows) for shard in self.shards), initial=0)
        return {shard.path.name: first for shard, first in zip(self.shards, ends, strict=False)}

    def filenames(self, split: str) -> list[str]:
        """Returns the names of the shards of `split`, in order."""
        return [shard.path.name for shard in self.shards if shard.split == split]


def plan_by_hash(catalog: Catalog, folder: Path, *, name: str, seed: int, shard_bytes: int) -> ShardPlan:
    """Returns a plan with shards of about `shard_bytes`, each with the records of a range of hashes, see `cut`.

    Shards are larger if there would be more than _MAX_SHARDS.
    """
    num_bytes = int(_final_lengths(catalog, catalog.splits != NO_SPLIT).sum(dtype=np.int64))
    # The two halves of a range that was cut exceed max_bytes together, so there are at most about twice as many.
    max_bytes = max(3 * shard_bytes // 2, 2 * num_bytes // _MAX_SHARDS)
    splits: dict[str, list[Rows]] = {}
    for split in SPLIT_NAMES:
        rows, hashes = shuffled_rows(catalog, split, seed=seed)
        starts = cut(hashes, _final_lengths(catalog, rows), max_bytes=max_bytes)
        splits[split] = [rows[start:end] for start, end in itertools.pairwise(starts)]
    return ShardPlan(catalog, folder, name=name, splits=splits)


def plan_as_written(catalog: Catalog, folder: Path, info: DatasetInfo) -> ShardPlan:
    """Returns a plan with the same number of records per shard as in `info`, whatever rule produced those."""
    splits: dict[str, list[Rows]] = {}
    for name, split in info.splits.items():
        rows, _ = shuffled_rows(catalog, name, seed=info.split_rule.seed)
        ends = np.cumsum([shard.num_examples for shard in split.shards])
        splits[name] = np.split(rows, ends[:-1])
    return ShardPlan(catalog, folder, name=info.name, splits=splits)


def cut(hashes: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint32], *, max_bytes: int) -> list[int]:
    """Returns the start of each shard and, last, the number of records.

    The range of hashes is halved recursively until each half has at most `max_bytes`. So a shard is a range of hashes
    that depends only on the records in it and in its sibling. Added or removed records change only their own shard, and
    a shard that grows too large is split in two; all other shards stay the same. No shard is empty.

    Args:
        hashes: Hashes of the records, uint64 [records], ascending.
        lengths: The bytes of each record, uint32 [records].
        max_bytes: Maximum size; only a shard of a single record is larger. Most shards have more than half of it.
    """
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    starts: list[int] = []
    ranges = (
        [(0, len(hashes), _HASH_BITS)] if len(hashes) else []
    )  # Records that agree in all but the lowest bits.
    while ranges:
        start, end, bits = ranges.pop()
        if ends[end] - ends[start] <= max_bytes or end - start == 1 or not bits:
            starts.append(start)
            continue
        upper_half = ((int(hashes[start]) >> bits) << bits) | (1 << (bits - 1))
        middle = start + int(np.searchsorted(hashes[start:end], np.uint64(upper_half)))
        ranges += [half for half in ((middle, end, bits - 1), (start, middle, bits - 1)) if half[0] < half[1]]
    return [*starts, len(hashes)]


def _final_lengths(catalog: Catalog, rows: Rows | npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Returns the bytes that each record of `rows` will have in its shard: it may still have another label."""
    return relabelled_lengths(catalog.lengths[rows], catalog.record_labels[rows], catalog.labels[rows])


def make_spec(catalog: Catalog, path: Path, rows: Rows) -> ShardSpec:
    """Returns the spec of a shard at `path` with the records of `rows`, in this order."""
    return ShardSpec(path, record_places(catalog, rows), catalog.digests[rows], catalog.labels[rows])


def record_places(catalog: Catalog, rows: Rows) -> RecordPlaces:
    """Returns the current locations of the records of `rows`, with only the sources that they use."""
    sources, numbers = np.unique(catalog.source_numbers[rows], return_inverse=True)
    return RecordPlaces(
        sources=[catalog.sources[source] for source in sources],
        source_numbers=numbers.astype(np.uint32),
        offsets=catalog.offsets[rows],
        lengths=catalog.lengths[rows],
    )
