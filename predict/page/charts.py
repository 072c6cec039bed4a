"""Coordinates of the page's charts, which the templates draw as SVG."""

import dataclasses
from collections.abc import Sequence

from shardstream.predict.metrics.calibration import Bin, Coverage

# The drawing area of each chart, in units of its view box, surrounded by room for the axes.
WIDTH, HEIGHT = 320, 220


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A mark with the ends of its interval, and its label."""

    x: float
    y: float
    low: float
    high: float
    weight: float
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of correct and incorrect predictions."""

    x: float
    width: float
    right: float
    wrong: float
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A tick label of an axis."""

    at: float
    text: str


def reliability_points(bins: Sequence[Bin]) -> list[Point]:
    """Returns a point for each non-empty bin: accuracy over confidence."""
    most = max((one.num_right + one.num_wrong for one in bins), default=1)
    return [
        Point(
            x=WIDTH * one.confidence,
            y=HEIGHT * (1 - one.accuracy.value),
            low=HEIGHT * (1 - one.accuracy.low),
            high=HEIGHT * (1 - one.accuracy.high),
            weight=3 + 4 * ((one.num_right + one.num_wrong) / most) ** 0.5,
            title=f"{one.confidence:.3f} → {one.accuracy.value:.3f} ({one.num_right + one.num_wrong:,})",
        )
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]


def histogram_columns(bins: Sequence[Bin]) -> list[Column]:
    """Returns a column for each bin, with its number of images as height."""
    most = max(1, *(one.num_right + one.num_wrong for one in bins))
    return [
        Column(
            x=WIDTH * one.low + 1,
            width=WIDTH * (one.high - one.low) - 2,
            right=HEIGHT * one.num_right / most,
            wrong=HEIGHT * one.num_wrong / most,
            title=f"{one.low:.2f}-{one.high:.2f}: {one.num_right:,} + {one.num_wrong:,}",
        )
        for one in bins
    ]


def histogram_ticks(bins: Sequence[Bin]) -> list[Tick]:
    """Returns the ticks at the maximum and half of it."""
    most = max(1, *(one.num_right + one.num_wrong for one in bins))
    return [Tick(at=HEIGHT, text="0"), Tick(at=0, text=f"{most:,}")]


def lowest_shown(coverage: Sequence[Coverage]) -> float:
    """Returns the start of the accuracy axis: a tenth below the lowest, so that differences are visible."""
    return max(0.0, int(10 * min(one.accuracy.low for one in coverage)) / 10)


def coverage_points(coverage: Sequence[Coverage]) -> list[Point]:
    """Returns a point for each coverage: accuracy over the answered fraction."""
    base = lowest_shown(coverage)

    def height(share: float) -> float:
        return HEIGHT * (1 - share) / (1 - base)

    return [
        Point(
            x=WIDTH * one.share,
            y=height(one.accuracy.value),
            low=height(one.accuracy.low),
            high=height(one.accuracy.high),
            weight=2.5,
            title=f"{one.share:.2f} → {one.accuracy.value:.3f} (≥ {one.threshold:.3f})",
        )
        for one in coverage
    ]


def coverage_ticks(coverage: Sequence[Coverage]) -> list[Tick]:
    """Returns the ticks of the accuracy axis."""
    base = lowest_shown(coverage)
    shares = (base, (1 + base) / 2, 1.0)
    return [Tick(at=HEIGHT * (1 - share) / (1 - base), text=f"{share:.0%}") for share in shares]


def unit_ticks() -> list[Tick]:
    """Returns the ticks 0, a half and 1."""
    return [Tick(at=HEIGHT * (1 - share), text=f"{share:g}") for share in (0.0, 0.5, 1.0)]


def curve(points: Sequence[Point]) -> str:
    """Returns the SVG path through the points."""
    return _path([(point.x, point.y) for point in points])


def band(points: Sequence[Point]) -> str:
    """Returns the SVG path around the intervals of the points."""
    upper = [(point.x, point.high) for point in points]
    return _path([*upper, *((point.x, point.low) for point in reversed(points))]) + "Z"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
