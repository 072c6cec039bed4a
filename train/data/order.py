"""In which order the training examples come: a pure function of (seed, epoch), without state.

Blocks of records are permuted; consecutive blocks of the permuted list make a window, which is read at once
and shuffled inside. A run that starts at any position of an epoch starts at the window that holds it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK, ShardInfo, SplitInfo

# Encoded pictures that are shuffled together. Three windows are in memory at a time: one is read, one waits,
# one is used. 64 MiB are 1,600 pictures of 300x300, or 100 blocks from anywhere in the split.
WINDOW_BYTES = 64 * 2**20
# Small records need not be so many to be well mixed, and each of a window takes some 300 bytes beside its own.
_MOST_BLOCKS = 2048


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Runs of consecutive records; row i of each array [num_blocks] speaks of block i.

    Attributes:
        shards: int64, the number of the shard in the split.
        offsets: int64, the byte at which the block begins.
        counts: int64, the number of records, 1 to 16.
        firsts: int64, the position in the split of the first record.
        lengths: int64, the number of bytes.
        checksums: uint32, of the checksums of the records (`shardstream.ingest.dataset.records.block_checksum`).
    """

    shards: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    firsts: np.ndarray
    lengths: np.ndarray
    checksums: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: slice | np.ndarray) -> "Blocks":
        return Blocks(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @classmethod
    def concatenated(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """Returns the blocks of all parts, one behind the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def of_shard(cls, shard: ShardInfo) -> "Blocks":
        """Returns the blocks of one file, its own number and that of its first record being 0."""
        return cls.of(SplitInfo(name="", shards=(shard,), class_counts=()))

    @classmethod
    def of(cls, split: SplitInfo) -> "Blocks":
        """Returns the blocks of `split` in file order."""
        num_blocks = [len(shard.block_offsets) for shard in split.shards]
        offsets = [np.asarray(shard.block_offsets, np.int64) for shard in split.shards]
        lengths = [
            np.diff(starts, append=shard.num_bytes)
            for starts, shard in zip(offsets, split.shards, strict=True)
        ]
        counts = np.concatenate(
            [_block_counts(shard.num_examples, n) for shard, n in zip(split.shards, num_blocks, strict=True)]
        )
        shards = np.repeat(np.arange(len(num_blocks), dtype=np.int64), num_blocks)
        return cls(
            shards=shards,
            offsets=np.concatenate(offsets),
            counts=counts,
            firsts=np.cumsum(counts) - counts,
            lengths=np.concatenate(lengths),
            checksums=np.concatenate(
                [np.asarray(shard.block_checksums, np.uint32) for shard in split.shards]
            ),
        )


def _block_counts(num_examples: int, num_blocks: int) -> np.ndarray:
    counts = np.full(num_blocks, RECORDS_PER_BLOCK, np.int64)
    counts[-1] = num_examples - RECORDS_PER_BLOCK * (num_blocks - 1)
    return counts


class Window(NamedTuple):
    """Blocks that are read at once.

    Attributes:
        blocks: Of any shards.
        order: int64, which of their records are delivered, and in which order. A record's number counts through
            the blocks one behind the other.
    """

    blocks: Blocks
    order: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """Where in the split, in file order, the records are, int64."""
        ends = np.cumsum(self.blocks.counts)
        shifts = np.repeat(self.blocks.firsts - ends + self.blocks.counts, self.blocks.counts)
        return (shifts + np.arange(ends[-1]))[self.order]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EpochPlan:
    """What the stream reads for the rest of one epoch.

    Attributes:
        blocks: In the order in which they are read.
        window_starts: int64 [num_windows], the first row in `blocks` of each window.
        first_window: The number of the first of these windows in the whole epoch.
        skip: The number of examples of the first window that were used before.
        seed: Of the run.
        epoch: The number of the epoch.
    """

    blocks: Blocks
    window_starts: np.ndarray
    first_window: int
    skip: int
    seed: int
    epoch: int

    def windows(self) -> Iterator[Window]:
        """Yields what is read at once and delivered in an order of its own."""
        ends = [*self.window_starts[1:].tolist(), len(self.blocks)]
        for number, (start, end) in enumerate(zip(self.window_starts.tolist(), ends, strict=True)):
            blocks = self.blocks[start:end]
            # One behind the epoch's own generator: to NumPy [seed, epoch] and [seed, epoch, 0] are the same.
            generator = np.random.default_rng([self.seed, self.epoch, self.first_window + number + 1])
            order = generator.permutation(int(blocks.counts.sum()))
            yield Window(blocks, order[self.skip if number == 0 else 0 :])


def plan_epoch(blocks: Blocks, *, blocks_per_window: int, seed: int, epoch: int, start: int = 0) -> EpochPlan:
    """Returns the plan of epoch `epoch` from its example number `start` on."""
    blocks = blocks[np.random.default_rng([seed, epoch]).permutation(len(blocks))]
    starts = np.arange(0, len(blocks), blocks_per_window)
    first_examples = np.concatenate([[0], np.cumsum(blocks.counts)])[starts]
    first = int(np.searchsorted(first_examples, start, side="right")) - 1
    return EpochPlan(
        blocks=blocks[slice(int(starts[first]), None)],
        window_starts=starts[first:] - starts[first],
        first_window=first,
        skip=start - int(first_examples[first]),
        seed=seed,
        epoch=epoch,
    )


def stream_order(plan: EpochPlan) -> np.ndarray:
    """Returns the positions in the split, in file order, of the examples that the stream delivers, in its order.

    int64, 8 bytes for each example of the plan. The stream itself never has more of it than a window.
    """
    return np.concatenate([window.positions for window in plan.windows()])


def windows_of(blocks: Blocks, positions: np.ndarray, *, blocks_per_window: int) -> Iterator[Window]:
    """Yields the windows that deliver the records at `positions`, int64 and each at most once, in that order.

    Only blocks that hold one of them are read. A block that is not wanted at once is read again: in any order but
    that of the files, that is once for nearly each record.
    """
    rows = np.searchsorted(blocks.firsts, positions, side="right") - 1
    is_next = np.diff(rows, prepend=-1) != 0
    windows = (np.cumsum(is_next) - 1) // blocks_per_window
    starts = np.flatnonzero(np.diff(windows, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(rows)][: len(starts)], strict=True):
        part = slice(start, end)
        needed, where = np.unique(rows[part], return_inverse=True)
        firsts = np.cumsum(blocks.counts[needed]) - blocks.counts[needed]
        yield Window(blocks[needed], firsts[where] + positions[part] - blocks.firsts[rows[part]])


def blocks_per_window(split: SplitInfo, window_bytes: int = WINDOW_BYTES) -> int:
    """Returns how many blocks of `split` have about `window_bytes` together, 1 to 2,048 (32,768 records)."""
    num_blocks = sum(len(shard.block_offsets) for shard in split.shards)
    return min(_MOST_BLOCKS, max(1, round(window_bytes * num_blocks / split.num_bytes)))


def epoch_permutation(num_examples: int, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the order int64 [num_examples] of epoch `epoch` where every example can be reached by number."""
    return np.random.default_rng([seed, epoch]).permutation(num_examples)
