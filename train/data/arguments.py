"""Checks of arguments of public functions."""

import operator
from typing import Any

from shardstream.ingest.common.errors import ConfigError


def whole_number(name: str, value: Any, *, least: int = 0, most: int | None = None) -> int:
    """Returns an argument that must be an integer: a float, as a division returns it, is probably a mistake.

    Raises:
        ConfigError: It is not an integer, or out of range.
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
