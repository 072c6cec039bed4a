"""Which split a picture belongs to: a pure function of the seed and the picture's key, and of nothing else.

Each key is drawn a number between 0 and 2^64 by hashing, and a split is a range of numbers. So other files can
come and go, be renamed and be listed in any order: none of it moves a picture. Identical pictures have the same
key. A held-out range that grows takes from the training range only:

    0        test                  train                 validation     2^64
    |--------->                                          <-------------|
"""

import functools
import hashlib
from collections.abc import Mapping
from fractions import Fraction

from ingest.errors import ConfigError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_NAMES = (TRAIN, VALIDATION, TEST)
_RANGE = 1 << 64


def draw(seed: int, purpose: str, key: bytes) -> int:
    """Returns a number in [0, 2^64) that looks random and depends only on the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}/".encode() + key).digest()[:8], "big")


def assign_split(key: bytes, fractions: Mapping[str, float], *, seed: int) -> str:
    """Returns the split of the picture or the group of pictures that has `key`.

    Args:
        key: Such as the SHA-256 of the picture's file; 32 bytes or more or less.
        fractions: The shares of "validation" and "test", as `check_fractions` allows them.
        seed: Another one gives another assignment.
    """
    number = draw(seed, "split", key)
    if number < _threshold(fractions.get(TEST, 0)):
        return TEST
    if number >= _RANGE - _threshold(fractions.get(VALIDATION, 0)):
        return VALIDATION
    return TRAIN


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises a ConfigError unless each fraction is in [0, 1) and something is left to train on."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"--{name} has to be at least 0 and less than 1, got {fraction:g}")
    if sum(map(_exact, fractions.values())) >= 1:
        given = " and ".join(f"--{name} {fraction:g}" for name, fraction in fractions.items())
        raise ConfigError(f"{given} leave nothing to train on: they have to sum to less than 1")


@functools.cache
def _threshold(fraction: float) -> int:
    return int(_exact(fraction) * _RANGE)


def _exact(fraction: float) -> Fraction:
    return Fraction(str(fraction))  # 0.2 as it is written, not the binary number nearest to it.
