"""Houses under a sky, between trees."""

import numpy as np

from scripts.demo_images.canvas import (
    LAMP,
    LEAF,
    SKIES,
    Canvas,
    Point,
    Rng,
    any_color,
    between,
    choose,
    clouds,
    plain,
    planks,
    scatter,
    tiles,
    tint,
)


def paint_exterior(rng: Rng, canvas: Canvas) -> None:
    """A house, or part of its front, under a sky, between trees."""
    horizon = rng.uniform(0.62, 0.82)
    _sky(rng, canvas)
    ground = choose(rng, (plain, plain, tiles))(rng, any_color(rng, [LEAF]))
    width = canvas.width
    canvas.cover([(0, horizon), (width, horizon), (width * 1.5, 1.3), (-width * 0.5, 1.3)], ground)
    for _ in range(between(rng, 0, 2)):
        _tree(rng, canvas, (rng.uniform(0, width), horizon))
    half = rng.uniform(0.26, 0.62)
    base = (width * rng.uniform(0.4, 0.6), horizon + rng.uniform(0, 0.08))
    _house(rng, canvas, base, half, rng.uniform(0.28, 0.75))
    if rng.random() < 0.5:
        _tree(rng, canvas, (width * choose(rng, (0.08, 0.92)), horizon + 0.1))
    if rng.random() < 0.3:
        _fence(rng, canvas, horizon + 0.12)


def _sky(rng: Rng, canvas: Canvas) -> None:
    height, width = canvas.pixels.shape[:2]
    zenith, low = np.array(any_color(rng, SKIES)), np.array(tint(any_color(rng, SKIES), 1.15))
    depth = np.linspace(0, 1, height)[:, None, None]
    sky = zenith * (1 - depth) + low * depth + 14 * clouds(rng, height, width)[..., None]
    canvas.pixels[:] = np.clip(sky, 0, 255).astype(np.uint8)


def _house(rng: Rng, canvas: Canvas, base: Point, half: float, high: float) -> None:
    """A front with rows of windows and a door; the roof is a gable, flat or out of the picture."""
    x, y = base
    wall, roof, top = any_color(rng), any_color(rng), y - high
    canvas.shadow((x, y + 0.02), half * 1.1, flat=0.12)
    canvas.cover(
        [(x - half, top), (x + half, top), (x + half, y), (x - half, y)],
        choose(rng, (planks, tiles, plain))(rng, wall),
    )
    kind = rng.integers(3)
    if kind == 0:
        peak = top - half * rng.uniform(0.3, 0.7)
        canvas.polygon([(x - half * 1.12, top), (x + half * 1.12, top), (x, peak)], roof)
        canvas.polygon([(x, peak), (x + half * 1.12, top), (x + half * 0.9, top)], tint(roof, 0.8))
    elif kind == 1:
        eaves = top - rng.uniform(0.08, 0.2)
        slope = [
            (x - half * 1.1, top),
            (x - half * 0.8, eaves),
            (x + half * 0.8, eaves),
            (x + half * 1.1, top),
        ]
        canvas.polygon(slope, roof)
    else:
        canvas.rectangle(x - half * 1.03, top - 0.03, x + half * 1.03, top, roof)
    _windows(rng, canvas, base, half, high)
    door = x + half * rng.uniform(-0.6, 0.6)
    canvas.rectangle(door - 0.05, y - 0.19, door + 0.05, y, any_color(rng))
    canvas.ellipse((door + 0.03, y - 0.09), 0.008, LAMP)


def _windows(rng: Rng, canvas: Canvas, base: Point, half: float, high: float) -> None:
    x, y = base
    rows, columns = max(1, round(high / rng.uniform(0.2, 0.3))), max(2, round(half / rng.uniform(0.11, 0.18)))
    frame, glass = tint(any_color(rng), 1.15), tint(any_color(rng), 0.7)
    wide, tall = half / columns * rng.uniform(0.4, 0.6), high / rows * rng.uniform(0.25, 0.36)
    for row in range(rows):
        for column in range(columns):
            middle = x - half + half * (2 * column + 1) / columns
            center = y - high + high * (row + 0.45) / rows
            canvas.rectangle(middle - wide, center - tall, middle + wide, center + tall, frame)
            pane = LAMP if rng.random() < 0.15 else tint(glass, rng.uniform(0.8, 1.2))
            canvas.rectangle(
                middle - wide * 0.8, center - tall * 0.85, middle + wide * 0.8, center + tall * 0.85, pane
            )
            canvas.line([(middle, center - tall), (middle, center + tall)], frame, 0.007)


def _tree(rng: Rng, canvas: Canvas, foot: Point) -> None:
    x, y = foot
    high, leaf = (
        rng.uniform(0.25, 0.6),
        tint(any_color(rng, [LEAF]), rng.uniform(0.6, 1.1)),
    )
    canvas.line([(x, y), (x, y - high * 0.6)], (92, 70, 54), 0.03)
    if rng.random() < 0.3:  # A fir.
        for level in (0.25, 0.5, 0.75):
            tip, edge = y - high * (level + 0.45), y - high * level
            canvas.polygon(
                [(x, tip), (x + high * 0.3, edge), (x - high * 0.3, edge)], tint(leaf, 0.6 + level / 2)
            )
        return
    for spot in scatter(rng, (x, y - high * 0.75), high * 0.3, 22):
        canvas.ellipse(spot, high * rng.uniform(0.06, 0.14), tint(leaf, rng.uniform(0.75, 1.25)))


def _fence(rng: Rng, canvas: Canvas, y: float) -> None:
    color = any_color(rng)
    for x in np.arange(0, canvas.width, 0.07):
        canvas.line([(x, y - 0.1), (x, y + 0.06)], color, 0.02)
    canvas.line([(0, y - 0.05), (canvas.width, y - 0.05)], color, 0.016)
