"""Which part of a split each of several workers reads."""

import dataclasses

import numpy as np

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK, ShardInfo, SplitInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """The part of every split that worker number `worker` of `num_workers` reads.

    The same in all epochs, so that it can be cached: consecutive blocks of the split. Ingest has mixed the
    pictures, so that each part is like any other. Parts differ by less than two blocks.
    """

    worker: int = 0
    num_workers: int = 1

    def of(self, split: SplitInfo) -> SplitInfo:
        """Returns the part as a split of its own; its shards are parts of files, and their hashes those of the whole.

        Raises:
            ConfigError: The split has fewer blocks of pictures than there are workers.
        """
        if self.num_workers == 1:
            return split
        bounds = self.block_bounds(split)
        shards, first = [], 0
        for shard in split.shards:
            start, end = (bound - first for bound in bounds)
            first += len(shard.block_offsets)
            if start < len(shard.block_offsets) and end > 0:
                shards.append(_cut(shard, max(0, start), min(end, len(shard.block_offsets))))
        return dataclasses.replace(split, shards=tuple(shards))

    def block_bounds(self, split: SplitInfo) -> tuple[int, int]:
        """Returns the number of the first block of the part, and of the first one behind it."""
        start, end = _bounds(split, self.num_workers)[self.worker : self.worker + 2]
        return int(start), int(end)


WHOLE = Share()


def steps_per_epoch(split: SplitInfo, batch_size: int, num_workers: int = 1) -> int:
    """Returns the number of whole batches of all workers in `split`: every worker has its part of each."""
    return int(_sizes(split, num_workers).min()) // (batch_size // num_workers)


def eval_steps(split: SplitInfo, batch_size: int, num_workers: int = 1) -> int:
    """Returns how many batches of all workers hold every example of `split`."""
    return -(-int(_sizes(split, num_workers).max()) // (batch_size // num_workers))


def _sizes(split: SplitInfo, num_workers: int) -> np.ndarray:
    if num_workers == 1:
        return np.asarray([split.num_examples])
    return np.diff(_first_examples(split)[_bounds(split, num_workers)])


def _bounds(split: SplitInfo, num_workers: int) -> np.ndarray:
    """Returns the number of the first block of each worker and, last, that of all blocks."""
    firsts = _first_examples(split)
    even = np.arange(1, num_workers) * split.num_examples / num_workers
    bounds = np.concatenate([[0], np.searchsorted(firsts, even), [len(firsts) - 1]])
    if (np.diff(bounds) < 1).any():
        raise ConfigError(
            f"split {split.name!r} has {split.num_examples} pictures, too few for {num_workers} workers: each "
            f"reads whole blocks of {RECORDS_PER_BLOCK}"
        )
    return bounds


def _first_examples(split: SplitInfo) -> np.ndarray:
    """Returns the number of the first example of each block and, last, that of all examples."""
    counts = [
        min(RECORDS_PER_BLOCK, shard.num_examples - RECORDS_PER_BLOCK * block)
        for shard in split.shards
        for block in range(len(shard.block_offsets))
    ]
    return np.cumsum([0, *counts])


def _cut(shard: ShardInfo, start: int, end: int) -> ShardInfo:
    if (start, end) == (0, len(shard.block_offsets)):
        return shard
    num_examples = min(end * RECORDS_PER_BLOCK, shard.num_examples) - start * RECORDS_PER_BLOCK
    return dataclasses.replace(
        shard,
        num_examples=num_examples,
        num_bytes=shard.num_bytes * num_examples // shard.num_examples,
        block_offsets=shard.block_offsets[start:end],
        block_checksums=shard.block_checksums[start:end],
    )
