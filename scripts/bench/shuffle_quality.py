"""Measures how well the order of an epoch is shuffled, compared with a true permutation.

    python -m scripts.bench.shuffle_quality --counts 3000 100000 1000000

The mean displacement is the distance of an example from its place in the files, as a fraction of the split: 1/3 for a
true permutation. The correlation of batches is that of the mean places of a batch and of the next one: 0 for a true
permutation, 1 for file order. The order within a batch is not significant: each part of the split supplies a slice of
it. Nothing is read, as the order depends only on the sizes of the files.
"""

import argparse

import numpy as np

from shardstream.train.data.sampling import EpochSampler

_SEED = 123
_BATCH_SIZE = 32


def displacement(order: np.ndarray) -> float:
    """Returns the mean distance of an example from its place in the files, as a fraction of the split."""
    return float(np.abs(order - np.arange(len(order))).mean() / len(order))


def batch_correlation(order: np.ndarray) -> float:
    """Returns the correlation of the mean places of a batch and the next one."""
    means = order[: len(order) // _BATCH_SIZE * _BATCH_SIZE].reshape(-1, _BATCH_SIZE).mean(axis=1)
    return float(np.corrcoef(means[:-1], means[1:])[0, 1])


def make_sampler(num_examples: int, record_bytes: int) -> EpochSampler:
    """Returns the sampler of a split with records of equal size."""
    num_bytes = num_examples * record_bytes
    return EpochSampler.make(num_examples, num_bytes=num_bytes, batch_size=_BATCH_SIZE, seed=_SEED)


def epoch_order(sampler: EpochSampler, epoch: int) -> np.ndarray:
    """Returns the position of each example of an epoch, without the remainder that fills no batch."""
    first, steps = epoch * sampler.steps_per_epoch, sampler.steps_per_epoch
    parts = []
    for window in sampler.windows(start_step=first):
        if window.first_step >= first + steps:
            return np.concatenate(parts)
        parts.append(window.positions.reshape(-1))
    raise AssertionError


def main() -> None:
    """Prints a table of means over five epochs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[3000, 100_000, 1_000_000])
    parser.add_argument("--record-bytes", type=int, default=41_000)
    options = parser.parse_args()
    print("| images | order | displacement | correlation of batches |\n|---|---|---|---|")
    for count in options.counts:
        sampler = make_sampler(count, options.record_bytes)
        num_given = sampler.steps_per_epoch * _BATCH_SIZE
        orders = {
            "each epoch": [epoch_order(sampler, epoch) for epoch in range(5)],
            "(a true permutation)": [
                np.random.default_rng([_SEED, epoch, 1]).permutation(num_given) for epoch in range(5)
            ],
        }
        for name, epochs in orders.items():
            moved = np.mean([displacement(order) for order in epochs])
            alike = np.mean([batch_correlation(order) for order in epochs])
            print(f"| {count:,} | {name} | {moved:.3f} | {alike:+.3f} |")


if __name__ == "__main__":
    main()
