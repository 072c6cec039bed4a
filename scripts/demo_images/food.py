"""Plates, bowls and lunch boxes from above."""

import math

import numpy as np

from scripts.demo_images.canvas import (
    EDIBLE,
    PALE,
    Canvas,
    Point,
    Rng,
    any_color,
    between,
    choose,
    plain,
    planks,
    polar,
    scatter,
    tiles,
    tint,
    weave,
    within,
)


def paint_food(rng: Rng, canvas: Canvas) -> None:
    """A table from above with one or two plates, a bowl or a lunch box, and something beside."""
    width = canvas.width
    table = choose(rng, (planks, tiles, weave, plain))
    canvas.cover([(0, 0), (width, 0), (width, 1), (0, 1)], table(rng, any_color(rng)))
    center = (width * rng.uniform(0.35, 0.65), rng.uniform(0.4, 0.6))
    radius = rng.uniform(0.26, 0.46)
    if rng.random() < 0.5:
        side = (width * choose(rng, (0.06, 0.94)), choose(rng, (0.1, 0.9)))
        _serve(rng, canvas, side, rng.uniform(0.14, 0.24))
    if rng.random() < 0.25:
        _lunch_box(rng, canvas, center, radius)
    else:
        _serve(rng, canvas, center, radius)
    if rng.random() < 0.6:
        _chopsticks(rng, canvas, (center[0] + radius * choose(rng, (-1.25, 1.25)), center[1]))


def _serve(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    plate = any_color(rng, PALE)
    canvas.shadow((center[0] + 0.02, center[1] + 0.03), radius * 1.05)
    canvas.ellipse(center, radius, plate)
    canvas.ellipse(center, radius * 0.96, tint(plate, 1.1))
    canvas.ellipse(center, radius * 0.74, tint(plate, 0.92))
    paint = choose(rng, (_soup, _noodles, _pizza, _salad, _rice))
    paint(rng, canvas, center, radius * 0.72)


def _soup(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    broth = any_color(rng, EDIBLE)
    canvas.ellipse(center, radius, broth)
    for spot in scatter(rng, center, radius * 0.8, between(rng, 5, 13)):
        canvas.ellipse(
            spot,
            radius * rng.uniform(0.04, 0.2),
            tint(any_color(rng, EDIBLE), 1.1),
            flat=rng.uniform(0.5, 1),
        )
    canvas.ellipse(
        (center[0] - radius * 0.3, center[1] - radius * 0.4), radius * 0.2, tint(broth, 1.25), flat=0.4
    )


def _noodles(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    color = any_color(rng, EDIBLE)
    for _ in range(between(rng, 25, 50)):
        turns = np.cumsum(rng.normal(0, 0.5, 10)) + rng.uniform(0, 2 * math.pi)
        start = scatter(rng, center, radius * 0.5, 1)[0]
        steps = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * radius * 0.13, 0) + start
        strand = [within(center, radius * 0.95, (x, y)) for x, y in steps.tolist()]
        canvas.line(strand, tint(color, rng.uniform(0.7, 1.2)), 0.014)
    for spot in scatter(rng, center, radius * 0.5, between(rng, 2, 5)):
        canvas.ellipse(spot, radius * 0.13, any_color(rng, EDIBLE))


def _pizza(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    crust, cheese, topping = any_color(rng, EDIBLE), any_color(rng, EDIBLE), any_color(rng, EDIBLE)
    canvas.ellipse(center, radius, crust)
    canvas.ellipse(center, radius * 0.86, cheese)
    for spot in scatter(rng, center, radius * 0.75, between(rng, 8, 17)):
        canvas.ellipse(spot, radius * 0.12, topping)
        canvas.ellipse(spot, radius * 0.09, tint(topping, 1.15))
    for angle in np.arange(0, math.pi, math.pi / 4) + rng.uniform(0, 1):
        ends = [polar(center, radius, angle), polar(center, -radius, angle)]
        canvas.line(ends, tint(cheese, 0.7), 0.007)


def _salad(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    leaf = any_color(rng, EDIBLE)
    for spot in scatter(rng, center, radius * 0.75, between(rng, 20, 45)):
        shade = tint(leaf, rng.uniform(0.6, 1.3))
        turn = rng.uniform(0, 180)
        canvas.ellipse(spot, radius * rng.uniform(0.15, 0.3), shade, flat=rng.uniform(0.3, 0.6), turn=turn)
    for spot in scatter(rng, center, radius * 0.6, between(rng, 3, 6)):
        canvas.ellipse(spot, radius * 0.12, any_color(rng, EDIBLE))


def _rice(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    grain = any_color(rng, EDIBLE)
    canvas.ellipse(center, radius * 0.8, tint(grain, 0.85))
    for spot in scatter(rng, center, radius * 0.75, 150):
        turn = rng.uniform(0, 180)
        canvas.ellipse(spot, radius * 0.06, tint(grain, rng.uniform(0.85, 1.2)), flat=0.45, turn=turn)
    if rng.random() < 0.6:  # A fried egg on top.
        canvas.ellipse(center, radius * 0.42, (246, 242, 232), flat=rng.uniform(0.8, 1))
        canvas.ellipse(center, radius * 0.17, (240, 178, 60))


def _lunch_box(rng: Rng, canvas: Canvas, center: Point, radius: float) -> None:
    """A box with compartments: as square as any window."""
    box = any_color(rng)
    left, top = center[0] - radius * 1.2, center[1] - radius * 0.85
    canvas.shadow((center[0] + 0.02, center[1] + 0.04), radius * 1.25, flat=0.8)
    canvas.rectangle(left, top, left + radius * 2.4, top + radius * 1.7, box)
    for column in range(3):
        for row in range(2):
            x, y = left + radius * (0.08 + 0.77 * column), top + radius * (0.08 + 0.79 * row)
            canvas.rectangle(x, y, x + radius * 0.7, y + radius * 0.74, tint(box, 0.75))
            paint = choose(rng, (_salad, _rice, _noodles))
            paint(rng, canvas, (x + radius * 0.35, y + radius * 0.37), radius * 0.36)


def _chopsticks(rng: Rng, canvas: Canvas, middle: Point) -> None:
    color, angle = any_color(rng), rng.normal(math.pi / 2, 0.3)
    for offset in (0, 0.035):
        place = (middle[0] + offset, middle[1])
        canvas.line([polar(place, -0.35, angle), polar(place, 0.35, angle)], color, 0.014)
