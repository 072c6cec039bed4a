"""Which split an image belongs to: a pure function of the seed and the image's key, and of nothing else.

Each key is drawn a number between 0 and 2^64 by hashing, and a split is a range of numbers. So other files can
come and go, be renamed and be listed in any order: none of it moves an image. Identical images have the same
key. A held-out range that grows takes from the training range only:

    0        test                  train                 validation     2^64
    |--------->                                          <-------------|

`stratify` gives up the first half of that for exact shares: it puts the ends of the ranges where they cut off as many
images of each class as are wanted, and so another image of the class can move them.
"""

import functools
import hashlib
import math
import struct
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.errors import ConfigError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_NAMES = (TRAIN, VALIDATION, TEST)
_TRAIN, _VALIDATION, _TEST = range(len(SPLIT_NAMES))
_RANGE = 1 << 64
_KEY_BYTES = 32
_KEYS_AT_ONCE = 1 << 14


def draw(seed: int, purpose: str, key: bytes) -> int:
    """Returns a number in [0, 2^64) that looks random and depends only on the arguments."""
    return int.from_bytes(hashlib.sha256(_prefix(seed, purpose) + key).digest()[:8], "big")


def hash_all_to_uint64(seed: int, purpose: str, keys: bytes) -> npt.NDArray[np.uint64]:
    """Returns the number that `draw` gives for each of many keys, uint64 [keys], in 0.27 us a key instead of 0.8.

    Args:
        seed: As for `draw`.
        purpose: As for `draw`.
        keys: Such as SHA-256s, 32 bytes each, one after the other.
    """
    begun = hashlib.sha256(_prefix(seed, purpose))  # Copying a hash costs less than making one.
    numbers = np.empty(len(keys) // _KEY_BYTES, np.uint64)
    for start in range(0, len(numbers), _KEYS_AT_ONCE):
        digests = bytearray()
        block = keys[start * _KEY_BYTES : (start + _KEYS_AT_ONCE) * _KEY_BYTES]
        for (key,) in struct.iter_unpack(f"{_KEY_BYTES}s", block):
            hasher = begun.copy()
            hasher.update(key)
            digests += hasher.digest()
        numbers[start : start + _KEYS_AT_ONCE] = np.frombuffer(digests, ">u8").reshape(-1, 4)[:, 0]
    return numbers


def splits_of(numbers: npt.NDArray[np.uint64], fractions: Mapping[str, float]) -> npt.NDArray[np.uint8]:
    """Returns the split of each number that `draw` gave for the purpose "split", an index into SPLIT_NAMES.

    Args:
        numbers: uint64 [keys].
        fractions: The shares of "validation" and "test", as `check_fractions` allows them.
    """
    splits = np.full(len(numbers), _TRAIN, np.uint8)
    for split, distances in ((TEST, numbers), (VALIDATION, ~numbers)):  # Validation is counted from the top.
        fraction = fractions.get(split, 0)
        held_out = distances < np.uint64(_threshold(fraction)) if fraction < 1 else slice(None)
        splits[held_out] = SPLIT_NAMES.index(split)
    return splits


def assign_split(key: bytes, fractions: Mapping[str, float], *, seed: int) -> str:
    """Returns the split of the image or the group of images that has `key`.

    Args:
        key: Such as the SHA-256 of the image's file; 32 bytes or more or less.
        fractions: The shares of "validation" and "test", as `check_fractions` allows them.
        seed: Another one gives another assignment.
    """
    number = draw(seed, "split", key)
    return SPLIT_NAMES[splits_of(np.array([number], np.uint64), fractions)[0]]


def stratify(
    numbers: npt.NDArray[np.uint64], labels: npt.NDArray[np.uint32], fractions: Mapping[str, float]
) -> npt.NDArray[np.uint8]:
    """Returns the split of each image, an index into SPLIT_NAMES, with the same shares of each class.

    Of each class the images with the smallest numbers are the test split and those with the largest the validation
    split, as many as the share of the class's count, rounded half up. One of each class is always left to train on:
    where rounding would leave none, the test split gets one less, and then the validation split. So the only image of
    a class is trained on, and of two images one is held out for a share of a quarter or more.

    Args:
        numbers: What `draw` gave for the purpose "split", uint64 [images]. Images of one class with the same number
            stay together, in the training split where a held-out one has not enough room for all.
        labels: The class of each image, uint32 [images].
        fractions: The shares of "validation" and "test", as `check_fractions` allows them.
    """
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ordered = numbers[np.lexsort((numbers, labels))]
    bottoms, tops = np.zeros_like(counts, np.uint64), np.zeros_like(counts, np.uint64)
    for label in np.flatnonzero(counts).tolist():
        count, start = int(counts[label]), int(starts[label])
        num_validation = min(_share(fractions.get(VALIDATION, 0), count), count - 1)
        num_test = min(_share(fractions.get(TEST, 0), count), count - 1 - num_validation)
        bottoms[label] = ordered[start + num_test]
        tops[label] = ordered[start + count - 1 - num_validation]
    splits = np.full(len(numbers), _TRAIN, np.uint8)
    splits[numbers < bottoms[labels]] = _TEST
    splits[numbers > tops[labels]] = _VALIDATION
    return splits


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises a ConfigError unless each fraction is in [0, 1] and something is left to train on, or one of them is all.

    A dataset of one held-out split is there to test models of others with.
    """
    for name, fraction in fractions.items():
        if not 0 <= fraction <= 1:
            raise ConfigError(f"--{name} has to be from 0 to 1, got {fraction:g}")
    if sum(map(_exact, fractions.values())) >= 1 and set(fractions.values()) - {0.0} != {1.0}:
        given = " and ".join(f"--{name} {fraction:g}" for name, fraction in fractions.items())
        raise ConfigError(f"{given} leave nothing to train on: they have to sum to less than 1")


def _prefix(seed: int, purpose: str) -> bytes:
    return f"{seed}/{purpose}/".encode()


def _share(fraction: float, count: int) -> int:
    """Returns that share of `count`, rounded half up."""
    return math.floor(_exact(fraction) * count + Fraction(1, 2))


@functools.cache
def _threshold(fraction: float) -> int:
    return int(_exact(fraction) * _RANGE)


def _exact(fraction: float) -> Fraction:
    return Fraction(str(fraction))  # 0.2 as it is written, not the binary number nearest to it.
