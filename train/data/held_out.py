"""Which records of a train split are held out for validation, where the dataset has no split for that."""

from collections.abc import Iterable

import numpy as np


def hold_out(shard_lengths: Iterable[int], fraction: float, seed: int) -> np.ndarray:
    """Returns which records are held out, bool [num_records].

    Each record by a hash of the number of its shard, its position there and the seed: no other record has a say, and a
    shard that is added moves none of the others.

    Args:
        shard_lengths: The number of records of each shard, in the order of their numbers.
        fraction: About how many are held out, above 0 and below 1.
        seed: From 0 on; another one holds out others.
    """
    threshold = np.uint64(int(fraction * 2.0**64))
    parts = [np.zeros(0, bool)]
    for number, length in enumerate(shard_lengths):
        salt = _hash(_hash(np.asarray([seed % 2**64], np.uint64)) ^ np.uint64(number))
        parts.append(_hash(salt ^ np.arange(length, dtype=np.uint64)) < threshold)
    return np.concatenate(parts)


def _hash(values: np.ndarray) -> np.ndarray:
    """Returns a hash of each uint64. Source: Steele et al., Fast Splittable Pseudorandom Number Generators, 2014."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
