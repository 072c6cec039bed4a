"""Rooms in one-point perspective."""

import numpy as np

from scripts.demo_images.canvas import (
    DARK,
    LAMP,
    LEAF,
    PALE,
    SKIES,
    Canvas,
    Point,
    Rng,
    any_color,
    between,
    choose,
    plain,
    planks,
    tiles,
    tint,
    weave,
)


def paint_interior(rng: Rng, canvas: Canvas) -> None:
    """A room in one-point perspective: floor, walls, ceiling, a window, furniture."""
    width = canvas.width
    wall = any_color(rng, PALE)
    paper, floor = choose(rng, (plain, planks)), choose(rng, (planks, tiles, weave))
    left, right = width * rng.uniform(0, 0.3), width * rng.uniform(0.7, 1)
    top, bottom = rng.uniform(0, 0.22), rng.uniform(0.58, 0.78)
    back = [(left, top), (right, top), (right, bottom), (left, bottom)]
    canvas.cover([(-0.4, -0.3), (left, top), (left, bottom), (-0.4, 1.4)], paper(rng, tint(wall, 0.82)))
    far = width + 0.4
    canvas.cover([(right, top), (far, -0.3), (far, 1.4), (right, bottom)], paper(rng, tint(wall, 0.9)))
    canvas.polygon([(-0.4, -0.3), (far, -0.3), (right, top), (left, top)], tint(wall, 1.25))
    canvas.cover([(left, bottom), (right, bottom), (far, 1.4), (-0.4, 1.4)], floor(rng, any_color(rng)))
    canvas.cover(back, paper(rng, wall))
    canvas.line([back[3], back[2]], tint(wall, 0.7), 0.012)
    if rng.random() < 0.75:
        _view(rng, canvas, (left + right) / 2 + rng.normal(0, 0.12), top + (bottom - top) * 0.4)
    else:
        _picture_frame(rng, canvas, (left + right) / 2, top + (bottom - top) * 0.35)
    for x in rng.permutation([0.25, 0.7])[: between(rng, 1, 2)]:
        paint = choose(rng, (_sofa, _bed, _table, _shelf))
        paint(rng, canvas, (width * x, bottom + rng.uniform(0.08, 0.2)))
    if rng.random() < 0.5:
        _hanging_lamp(rng, canvas)


def _view(rng: Rng, canvas: Canvas, x: float, y: float) -> None:
    """A window, and what stands outside."""
    half, high = rng.uniform(0.1, 0.22), rng.uniform(0.1, 0.18)
    frame = tint(any_color(rng), 1.1)
    canvas.rectangle(x - half - 0.02, y - high - 0.02, x + half + 0.02, y + high + 0.02, frame)
    canvas.rectangle(x - half, y - high, x + half, y + high, tint(any_color(rng, SKIES), 1.2))
    canvas.ellipse((x + half * 0.3, y + high * 0.45), high * 0.5, LEAF)
    canvas.line([(x, y - high), (x, y + high)], frame, 0.015)
    canvas.line([(x - half, y), (x + half, y)], frame, 0.015)
    if rng.random() < 0.6:
        curtain = any_color(rng)
        for edge in (x - half - 0.03, x + half - 0.03):
            canvas.rectangle(edge, y - high - 0.04, edge + 0.06, y + high + 0.08, curtain)
            canvas.line([(edge + 0.02, y - high), (edge + 0.02, y + high)], tint(curtain, 0.8), 0.008)


def _picture_frame(rng: Rng, canvas: Canvas, x: float, y: float) -> None:
    half, high = rng.uniform(0.07, 0.14), rng.uniform(0.06, 0.12)
    canvas.rectangle(x - half - 0.015, y - high - 0.015, x + half + 0.015, y + high + 0.015, DARK)
    canvas.rectangle(x - half, y - high, x + half, y + high, any_color(rng))
    canvas.ellipse((x, y + high * 0.2), high * 0.5, any_color(rng))


def _sofa(rng: Rng, canvas: Canvas, foot: Point) -> None:
    x, y = foot
    half, color = rng.uniform(0.2, 0.34), any_color(rng)
    canvas.shadow((x, y + 0.03), half * 1.15, flat=0.18)
    canvas.rectangle(x - half, y - 0.3, x + half, y, tint(color, 0.85))
    canvas.rectangle(x - half, y - 0.13, x + half, y, color)
    for side in (x - half, x + half):
        canvas.rectangle(side - 0.04, y - 0.19, side + 0.04, y + 0.02, tint(color, 0.95))
    for cushion in np.linspace(x - half * 0.6, x + half * 0.6, between(rng, 2, 3)):
        canvas.ellipse((cushion, y - 0.18), 0.07, any_color(rng), flat=0.8)


def _bed(rng: Rng, canvas: Canvas, foot: Point) -> None:
    x, y = foot
    half, cover = rng.uniform(0.18, 0.28), any_color(rng)
    canvas.rectangle(x - half, y - 0.34, x + half, y - 0.05, any_color(rng))
    near = [
        (x - half, y - 0.12),
        (x + half, y - 0.12),
        (x + half * 1.35, y + 0.16),
        (x - half * 1.35, y + 0.16),
    ]
    canvas.cover(near, weave(rng, cover))
    for side in (-0.5, 0.5):
        canvas.ellipse((x + half * side, y - 0.12), half * 0.4, (240, 238, 234), flat=0.5)


def _table(rng: Rng, canvas: Canvas, foot: Point) -> None:
    """A table seen from the side, sometimes laid: a room with a plate in it."""
    x, y = foot
    half, color = rng.uniform(0.15, 0.3), any_color(rng)
    for leg in (x - half * 0.9, x + half * 0.9):
        canvas.line([(leg, y - 0.18), (leg, y + 0.08)], tint(color, 0.65), 0.022)
    top = [(x - half * 0.8, y - 0.24), (x + half * 0.8, y - 0.24), (x + half, y - 0.16), (x - half, y - 0.16)]
    canvas.polygon(top, color)
    for place in (x - half * 0.4, x + half * 0.4)[: between(rng, 0, 2)]:
        canvas.ellipse((place, y - 0.2), 0.06, tint(any_color(rng), 1.1), flat=0.35)


def _shelf(rng: Rng, canvas: Canvas, foot: Point) -> None:
    x, y = foot
    half, high, color = rng.uniform(0.08, 0.16), rng.uniform(0.35, 0.55), any_color(rng)
    canvas.rectangle(x - half, y - high, x + half, y, tint(color, 0.6))
    for level in np.linspace(y - high, y, 5):
        books = np.arange(x - half + 0.01, x + half * rng.uniform(0.2, 0.9), 0.022)
        for book in books if level < y else ():
            canvas.line([(book, level + high * 0.07), (book, level + high * 0.22)], any_color(rng), 0.016)
        canvas.line([(x - half, level), (x + half, level)], color, 0.014)


def _hanging_lamp(rng: Rng, canvas: Canvas) -> None:
    x, y = canvas.width * rng.uniform(0.2, 0.8), rng.uniform(0.12, 0.25)
    canvas.line([(x, 0), (x, y)], DARK, 0.006)
    shade = [(x - 0.025, y), (x + 0.025, y), (x + 0.08, y + 0.08), (x - 0.08, y + 0.08)]
    canvas.polygon(shade, any_color(rng))
    canvas.ellipse((x, y + 0.085), 0.06, LAMP, flat=0.25)
