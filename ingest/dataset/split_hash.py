"""Assigns images to splits: a pure function of the seed and the image's key.

Each key is hashed to a number between 0 and 2^64, and a split is a range of numbers. So adding, removing, renaming or
reordering other files never moves an image. Identical images have the same key. A growing held-out range takes images
only from the training range:

    0        test                  train                 validation     2^64
    |--------->                                          <-------------|

`stratify` gives up independence for exact fractions: it sets the thresholds per class, so that adding or removing an
image can move others of its class.
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
    """Returns a pseudorandom number in [0, 2^64) that depends only on the arguments."""
    return int.from_bytes(hashlib.sha256(_prefix(seed, purpose) + key).digest()[:8], "big")


def hash_all_to_uint64(seed: int, purpose: str, keys: bytes) -> npt.NDArray[np.uint64]:
    """Returns the result of `draw` for each of many keys, uint64 [keys], three times faster.

    Args:
        seed: As for `draw`.
        purpose: As for `draw`.
        keys: Concatenated keys of 32 bytes each, such as SHA-256 digests.
    """
    begun = hashlib.sha256(_prefix(seed, purpose))  # Copying a hash object is cheaper than creating one.
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
    """Returns the split of each number, an index into SPLIT_NAMES.

    Args:
        numbers: Numbers from `draw` for the purpose "split", uint64 [keys].
        fractions: The fractions of "validation" and "test", valid according to `check_fractions`.
    """
    splits = np.full(len(numbers), _TRAIN, np.uint8)
    for split, distances in ((TEST, numbers), (VALIDATION, ~numbers)):  # Validation is counted from the top.
        fraction = fractions.get(split, 0)
        held_out = distances < np.uint64(_threshold(fraction)) if fraction < 1 else slice(None)
        splits[held_out] = SPLIT_NAMES.index(split)
    return splits


def assign_split(key: bytes, fractions: Mapping[str, float], *, seed: int) -> str:
    """Returns the split of the image or group of images with `key`.

    Args:
        key: Key of any length, such as the SHA-256 of the image's file.
        fractions: The fractions of "validation" and "test", valid according to `check_fractions`.
        seed: Seed of the assignment.
    """
    number = draw(seed, "split", key)
    return SPLIT_NAMES[splits_of(np.array([number], np.uint64), fractions)[0]]


def stratify(
    numbers: npt.NDArray[np.uint64], labels: npt.NDArray[np.uint32], fractions: Mapping[str, float]
) -> npt.NDArray[np.uint8]:
    """Returns the split of each image, an index into SPLIT_NAMES, with the same fractions in each class.

    In each class the images with the smallest numbers are the test split and those with the largest the validation
    split. Their counts are the fractions of the class's count, rounded half up. At least one image per class is left
    for training: if rounding would leave none, the test split gets one less, then the validation split. So the only
    image of a class is in train, and of two images one is held out for a fraction of at least a quarter.

    Args:
        numbers: Numbers from `draw` for the purpose "split", uint64 [images]. Images of one class with the same number
            stay together, in the training split if the held-out split has not enough room for all.
        labels: The class of each image, uint32 [images].
        fractions: The fractions of "validation" and "test", valid according to `check_fractions`.
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
    """Raises a ConfigError unless each fraction is in [0, 1] and some images are left for training, or one is 1.

    A dataset with only a held-out split is useful to test models that were trained on other data.
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
    """Returns `fraction` of `count`, rounded half up."""
    return math.floor(_exact(fraction) * count + Fraction(1, 2))


@functools.cache
def _threshold(fraction: float) -> int:
    return int(_exact(fraction) * _RANGE)


def _exact(fraction: float) -> Fraction:
    return Fraction(str(fraction))  # Exact decimal value: 0.2, not the nearest binary number.
