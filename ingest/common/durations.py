"""Parses and formats durations."""

import dataclasses
import math
import re

from shardstream.ingest.common.errors import ConfigError

_SECS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_STEPS = "steps"
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[a-z]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An interval in seconds or in steps, whichever ends first."""

    secs: float = math.inf
    steps: float = math.inf

    def is_over(self, *, secs: float, steps: int) -> bool:
        """Returns whether the interval has ended after `secs` and `steps`."""
        return secs >= self.secs or steps >= self.steps


def parse_interval(option: str, text: str) -> Interval:
    """Parses an interval such as "30s", "10min", "2h" or "500steps".

    Raises:
        ConfigError: The interval is invalid or empty.
    """
    number, unit = _parse(text)
    if number > 0 and unit == _STEPS and number == int(number):
        return Interval(steps=number)
    if number > 0 and unit in _SECS:
        return Interval(secs=number * _SECS[unit])
    raise ConfigError(
        f"{option} must be a time or a number of steps such as 10min, 90s or 500steps, got {text!r}"
    )


def parse_secs(option: str, text: str) -> float:
    """Parses a duration such as "30s", "10min" or "2h"; returns seconds.

    Raises:
        ConfigError: The duration is invalid.
    """
    number, unit = _parse(text)
    if unit not in _SECS:
        raise ConfigError(f"{option} must be a time such as 30s or 2min, got {text!r}")
    return number * _SECS[unit]


def _parse(text: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(text.strip())
    number = float(match["number"]) if match else 0.0
    return (number, match["unit"]) if match and math.isfinite(number) else (0.0, "")


def duration(secs: float) -> str:
    """Returns "0.8 s", "42 s", "3 min 20 s" or "2 h 05 min"."""
    if secs < 9.95:
        return f"{secs:.1f} s"
    whole = round(secs)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
