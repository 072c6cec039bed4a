"""The records of a split: which file each is in, where it starts there, and its checksum.

The index is a NumPy array with a row per record in split order, memory-mapped: a reader touches its own rows only.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo, ShardInfo
from shardstream.ingest.dataset.records import FRAMING_BYTES


class ReadPlan(NamedTuple):
    """Requests that together read some records, each record once.

    Attributes:
        shards: int64 [num_reads]: number of the file in the split.
        offsets: int64 [num_reads]: byte offset of the first record.
        counts: int64 [num_reads]: number of consecutive records.
        num_bytes: int64 [num_reads]: their bytes, framing included.
        order: int64 [num_positions]: the place of each position among the records that are read.
    """

    shards: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    num_bytes: np.ndarray
    order: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitIndex:
    """The files of a split and the index of their records.

    Attributes:
        name: The split's name.
        data_dir: The dataset folder.
        shards: In split order.
        records: `ingest.dataset.index.INDEX_DTYPE` [num_examples], a row per record in split order.
        first_positions: int64 [num_shards + 1]: position of the first record of each file and, last, their number.
        repair_hint: What to do about corruption, in words.
    """

    name: str
    data_dir: Path
    shards: tuple[ShardInfo, ...]
    records: np.ndarray
    first_positions: np.ndarray
    repair_hint: str

    @classmethod
    def make(cls, info: DatasetInfo, split_name: str, records: np.ndarray) -> "SplitIndex":
        """Returns the split called `split_name` of `info`, whose index is `records`.

        Raises:
            DatasetError: There is no such split, or the index is of another one.
        """
        split = info.split(split_name)
        if len(records) != split.num_examples:
            raise DatasetError(
                f"{info.data_dir}: the index of split {split_name!r} has {len(records):,} records, the metadata "
                f"say {split.num_examples:,}; {info.remedy}"
            )
        sizes = [shard.num_examples for shard in split.shards]
        return cls(
            name=split_name,
            data_dir=info.data_dir,
            shards=split.shards,
            records=records,
            first_positions=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
            repair_hint=info.remedy,
        )

    @property
    def num_examples(self) -> int:
        """Number of records."""
        return len(self.records)

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(shard.num_bytes for shard in self.shards)

    @property
    def shard_sizes(self) -> tuple[int, ...]:
        """Number of records of each file."""
        return tuple(shard.num_examples for shard in self.shards)

    def path(self, shard: int) -> Path:
        """Returns the path of a file by its number."""
        return self.data_dir / self.shards[shard].filename

    def shards_of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the number of the file, int64, that holds each of these positions."""
        return np.searchsorted(self.first_positions, positions, side="right") - 1

    def ends_of(self, positions: np.ndarray) -> np.ndarray:
        """Returns the byte offset, int64, at which each of these records ends."""
        shards = self.shards_of(positions)
        is_last = positions + 1 == self.first_positions[shards + 1]
        following = self.records["offset"][np.minimum(positions + 1, self.num_examples - 1)]
        return np.where(is_last, self._file_sizes[shards], following)

    def offsets_error(self, shard: int) -> str | None:
        """Returns what is wrong with the offsets of a file, before anything is read or allocated by them."""
        first, end = self.first_positions[shard : shard + 2].tolist()
        offsets = np.append(self.records["offset"][first:end], self.shards[shard].num_bytes)
        if offsets[0] == 0 and np.diff(offsets).min() >= FRAMING_BYTES:
            return None
        return f"{self.path(shard)}: the index says that its records start elsewhere than they can; {self.repair_hint}"

    @property
    def _file_sizes(self) -> np.ndarray:
        return _file_sizes(self.shards)

    def plan_reads(self, positions: np.ndarray, max_bytes: int) -> ReadPlan:
        """Returns how to read the records at `positions`, int64 and in any order.

        Neighbours are read with one request of at most about `max_bytes`.
        """
        needed, order = np.unique(positions, return_inverse=True)
        starts, ends = self.records["offset"][needed], self.ends_of(needed)
        shards = self.shards_of(needed)
        is_first = np.ones(len(needed), bool)
        # By chunks of the file, not by what was read before: simple to compute for all at once.
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


@functools.lru_cache(maxsize=8)
def _file_sizes(shards: tuple[ShardInfo, ...]) -> np.ndarray:
    return np.asarray([shard.num_bytes for shard in shards], np.int64)
