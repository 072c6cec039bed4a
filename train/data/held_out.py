"""Holds out records of a train split for validation, where the dataset has no validation split."""

from collections.abc import Iterable

import numpy as np


def hold_out(shard_lengths: Iterable[int], fraction: float, seed: int) -> np.ndarray:
    """Returns which records are held out, bool [num_records].

    The decision for a record is a hash of its shard number, its position in the shard and the seed: it depends on no
    other record, and adding a shard moves no record of the others.

    Args:
        shard_lengths: The number of records of each shard, in the order of their numbers.
        fraction: Approximate fraction to hold out, between 0 and 1.
        seed: 0 or more; another seed holds out other records.
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
