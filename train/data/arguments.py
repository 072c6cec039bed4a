"""Arguments of functions that users call."""

import operator
from typing import Any

from shardstream.ingest.common.errors import ConfigError


def whole_number(name: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """Returns an argument that has to be a whole number: a fraction, as a division gives it, would mean something else.

    Raises:
        ConfigError: It is none, or too small or large.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ConfigError(f"{name} must {'be positive' if least else 'not be negative'}, got {number}")
    if most is not None and number > most:
        raise ConfigError(f"{name} must be at most {most}, got {number}")
    return number
