"""How well an epoch's order mixes the examples, with each kind of cache and beside a true permutation.

    python -m scripts.bench.shuffle_quality --counts 3000 100000 1000000

The mean displacement is how far an example is from its place in the files, as a share of the split: 1/3 for a true
permutation. The correlation of neighbours is that of the places of an example and the next one: 0 for a true
permutation, 1 for files in order. Nothing is read; the splits are reckoned from the size of a record.
"""

import argparse
import math

import numpy as np

from shardstream.ingest.dataset.metadata import RECORDS_PER_BLOCK, ShardInfo, SplitInfo
from shardstream.train.data.order import (
    Blocks,
    blocks_per_window,
    epoch_permutation,
    plan_epoch,
    stream_order,
)

_SHARD_BYTES = 128 * 2**20
_SEED = 123


def displacement(order: np.ndarray) -> float:
    """Returns the mean distance of an example from its place in the files, as a share of the split."""
    return float(np.abs(order - np.arange(len(order))).mean() / len(order))


def neighbour_correlation(order: np.ndarray) -> float:
    """Returns the correlation of the places of an example and the next one."""
    return float(np.corrcoef(order[:-1], order[1:])[0, 1])


def make_split(num_examples: int, record_bytes: int) -> SplitInfo:
    """Returns a split of shards of the usual size."""
    size = _SHARD_BYTES // record_bytes
    sizes = [min(size, num_examples - first) for first in range(0, num_examples, size)]
    shards = tuple(
        ShardInfo(
            filename="",
            num_examples=size,
            num_bytes=size * record_bytes,
            sha256="",
            block_offsets=tuple(range(0, size * record_bytes, RECORDS_PER_BLOCK * record_bytes)),
            block_checksums=(0,) * math.ceil(size / RECORDS_PER_BLOCK),  # Nothing is read.
        )
        for size in sizes
    )
    return SplitInfo(name="train", shards=shards, class_counts=(num_examples,))


def orders(split: SplitInfo, *, seed: int, epoch: int) -> dict[str, np.ndarray]:
    """Returns an epoch's order by the name of what gives it."""
    plan = plan_epoch(Blocks.of(split), blocks_per_window=blocks_per_window(split), seed=seed, epoch=epoch)
    return {
        "none; the first epoch of all": stream_order(plan),
        "memory, disk, device; later epochs": epoch_permutation(split.num_examples, seed=seed, epoch=epoch),
        "(a true permutation)": np.random.default_rng([seed, epoch, 1]).permutation(split.num_examples),
    }


def main() -> None:
    """Prints a table of means over five epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[3000, 100_000, 1_000_000])
    parser.add_argument("--record-bytes", type=int, default=41_000)
    options = parser.parse_args()
    print("| pictures | order | displacement | correlation of neighbours |\n|---|---|---|---|")
    for count in options.counts:
        split = make_split(count, options.record_bytes)
        epochs = [orders(split, seed=_SEED, epoch=epoch) for epoch in range(1, 6)]
        for name in epochs[0]:
            moved = np.mean([displacement(epoch[name]) for epoch in epochs])
            alike = np.mean([neighbour_correlation(epoch[name]) for epoch in epochs])
            print(f"| {count:,} | {name} | {moved:.3f} | {alike:+.3f} |")


if __name__ == "__main__":
    main()
