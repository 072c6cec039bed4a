"""The record index of a split: the file, byte offset and checksum of each record.

The index is a NumPy array with a row per record in split order, memory-mapped: a reader loads only the rows it uses.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import ShardInfo
from shardstream.ingest.dataset.records import FRAMING_BYTES


class RecordLocation(NamedTuple):
    """Location of a record: the number of its file, its number in the file, start and end offset, and checksum."""

    shard: int
    number: int
    start: int
    end: int
    checksum: int


class ReadPlan(NamedTuple):
    """Read requests that together cover some records, each record once.

    Attributes:
        shards: int64 [num_reads]: number of the file in the split.
        offsets: int64 [num_reads]: byte offset of the first record.
        counts: int64 [num_reads]: number of consecutive records.
        num_bytes: int64 [num_reads]: size in bytes, framing included.
        order: int64 [num_positions]: the index of each position among the records that are read.
    """

    shards: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    num_bytes: np.ndarray
    order: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitIndex:
    """The files of a split and the index of their records.

    An example has a position in its split. This is the row of its record in the files, unless the split is a subset of
    its files: then `selected` maps positions to rows.

    Attributes:
        name: The split's name.
        data_dir: The dataset folder.
        shards: The complete files, in split order.
        records: `ingest.dataset.index.INDEX_DTYPE` [records of all files], and further fields.
        selected: int64 [num_examples], ascending: the rows that belong to the split; None for all.
        repair_hint: How to repair corruption.
        first_rows: int64 [num_shards + 1]: the row of the first record of each file and, last, the number of rows.
    """

    name: str
    data_dir: Path
    shards: tuple[ShardInfo, ...]
    records: np.ndarray
    selected: np.ndarray | None = None
    repair_hint: str
    first_rows: np.ndarray = dataclasses.field(init=False)
    _file_sizes: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Computed once: with tens of thousands of files this takes milliseconds, and every window needs it.
        first_rows = np.cumsum([0, *(shard.num_examples for shard in self.shards)], dtype=np.int64)
        object.__setattr__(self, "first_rows", first_rows)
        file_sizes = np.asarray([shard.num_bytes for shard in self.shards], np.int64)
        object.__setattr__(self, "_file_sizes", file_sizes)
        num_records = int(first_rows[-1])
        if len(self.records) != num_records:
            raise DatasetError(
                f"{self.data_dir}: the index of split {self.name!r} has {len(self.records):,} records, the metadata "
                f"say {num_records:,}; {self.repair_hint}"
            )

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return len(self.records) if self.selected is None else len(self.selected)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return int(self._file_sizes.sum())

    @property
    def first_positions(self) -> np.ndarray:
        """int64 [num_shards + 1]: the position of the first example of each file and, last, their number."""
        return self.first_rows if self.selected is None else np.searchsorted(self.selected, self.first_rows)

    def path(self, shard: int) -> Path:
        """Returns the path of a file by its number."""
        return self.data_dir / self.shards[shard].filename

    def rows_of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the row of each of these examples, int64."""
        return positions if self.selected is None else self.selected[positions]

    def shards_of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the file number of each of these examples, int64."""
        return np.searchsorted(self.first_rows, self.rows_of(positions), side="right") - 1

    def locate(self, position: int) -> RecordLocation:
        """Returns the location of an example's record."""
        positions = np.asarray([position])
        row, shard = int(self.rows_of(positions)[0]), int(self.shards_of(positions)[0])
        return RecordLocation(
            shard=shard,
            number=row - int(self.first_rows[shard]),
            start=int(self.records["offset"][row]),
            end=int(self._ends_of(np.asarray([row]))[0]),
            checksum=int(self.records["checksum"][row]),
        )

    def offsets_error(self, shard: int) -> str | None:
        """Returns what is wrong with the offsets of a file, before they are used to read or allocate anything."""
        first, end = self.first_rows[shard : shard + 2].tolist()
        offsets = np.append(self.records["offset"][first:end], self.shards[shard].num_bytes)
        if offsets[0] == 0 and np.diff(offsets).min() >= FRAMING_BYTES:
            return None
        return f"{self.path(shard)}: the index says that its records start elsewhere than they can; {self.repair_hint}"

    def plan_reads(self, positions: np.ndarray, max_bytes: int) -> ReadPlan:
        """Returns how to read the records of the examples at `positions`, int64, in any order.

        Neighboring records share a request, of at most about `max_bytes`.
        """
        needed, order = np.unique(self.rows_of(positions), return_inverse=True)
        starts, ends = self.records["offset"][needed], self._ends_of(needed)
        shards = np.searchsorted(self.first_rows, needed, side="right") - 1
        is_first = np.ones(len(needed), bool)
        # Split at fixed chunks of the file, not after what was read before: this vectorizes.
        same_chunk = starts[1:] // max_bytes == starts[:-1] // max_bytes
        is_first[1:] = (np.diff(needed) != 1) | (np.diff(shards) != 0) | ~same_chunk
        firsts = np.flatnonzero(is_first)
        lasts = np.append(firsts[1:], len(needed)) - 1
        return ReadPlan(
            shards=shards[firsts],
            offsets=starts[firsts],
            counts=lasts - firsts + 1,
            num_bytes=ends[lasts] - starts[firsts],
            order=order.astype(np.int64),
        )

    def _ends_of(self, rows: np.ndarray) -> np.ndarray:
        """Returns the end offset of each of these records, int64."""
        shards = np.searchsorted(self.first_rows, rows, side="right") - 1
        is_last = rows + 1 == self.first_rows[shards + 1]
        following = self.records["offset"][np.minimum(rows + 1, len(self.records) - 1)]
        return np.where(is_last, self._file_sizes[shards], following)
