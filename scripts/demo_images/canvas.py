"""What the demo pictures are painted with: a canvas, colors, materials and light."""

import math
from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Rng = np.random.Generator
Pixels = NDArray[np.uint8]
Color = tuple[float, float, float]  # Red, green, blue, 0-255.
Point = tuple[float, float]

LEAF: Color = (96, 140, 70)
EDIBLE: Sequence[Color] = (
    (206, 84, 56),
    (226, 160, 72),
    (240, 212, 130),
    (150, 84, 48),
    (118, 160, 74),
    (242, 234, 214),
)
PALE: Sequence[Color] = ((236, 228, 212), (222, 216, 222), (205, 196, 176), (200, 212, 214), (226, 206, 170))
SKIES: Sequence[Color] = ((150, 182, 206), (120, 160, 204), (196, 200, 204), (226, 190, 160), (74, 80, 104))
DARK: Color = (52, 46, 44)
LAMP: Color = (255, 226, 150)

_SUBPIXEL_BITS = 4

# One palette for plates, walls and roofs, and now and then for skies and food: a mean color must not give a
# category away (it does so for one picture in two; thumbnails of 8x8 for three in four, the small network 0.95).
_PALETTE: Sequence[Color] = (
    (236, 228, 212), (205, 186, 158), (168, 128, 92), (120, 84, 58), (196, 92, 64), (216, 150, 84),
    (226, 196, 120), (150, 158, 104), (92, 120, 84), (120, 158, 160), (150, 182, 206), (96, 122, 158),
    (188, 160, 170), (142, 140, 138), (74, 76, 84), (222, 216, 222),
)  # fmt: skip


class Canvas:
    """A picture to paint on: the height is 1, the width is `width`, y runs downwards.

    `pixels` is the RGB picture, uint8 [height, width, 3].
    """

    def __init__(self, height: int, width: int, color: Color) -> None:
        self.pixels: Pixels = np.full((height, width, 3), np.clip(color, 0, 255), np.uint8)
        self.width = width / height

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        """Fills the polygon with the corners `points`."""
        corners = np.array([[self._fixed(x), self._fixed(y)] for x, y in points], np.int32)
        cv2.fillPoly(self.pixels, [corners], color, cv2.LINE_AA, _SUBPIXEL_BITS)

    def rectangle(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fills an upright rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def ellipse(
        self, center: Point, radius: float, color: Color, *, flat: float = 1, turn: float = 0
    ) -> None:
        """Paints an ellipse whose second radius is `flat` times the first, turned by `turn` degrees."""
        axes = (self._fixed(radius), self._fixed(radius * flat))
        middle = (self._fixed(center[0]), self._fixed(center[1]))
        cv2.ellipse(self.pixels, middle, axes, turn, 0, 360, color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)

    def line(self, points: Sequence[Point], color: Color, thickness: float) -> None:
        """Draws a line through `points`."""
        corners = np.array([[self._fixed(x), self._fixed(y)] for x, y in points], np.int32)
        pixels = max(1, round(thickness * len(self.pixels)))
        cv2.polylines(self.pixels, [corners], False, color, pixels, cv2.LINE_AA, _SUBPIXEL_BITS)

    def cover(self, points: Sequence[Point], material: Pixels) -> None:
        """Paints the quadrilateral `points` (clockwise from the upper left) with `material` in perspective."""
        height, width = material.shape[:2]
        source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        target = np.array(points, np.float32) * len(self.pixels)
        matrix = cv2.getPerspectiveTransform(source, target)
        size = (self.pixels.shape[1], self.pixels.shape[0])
        warped = cv2.warpPerspective(
            material, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
        )
        inside = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.round(target).astype(np.int32)], (255,))
        cv2.copyTo(warped, inside, self.pixels)

    def shadow(self, center: Point, radius: float, *, flat: float = 1, strength: float = 0.4) -> None:
        """Darkens a soft spot."""
        mask = np.zeros(self.pixels.shape[:2], np.uint8)
        size = len(self.pixels)
        middle = (round(center[0] * size), round(center[1] * size))
        cv2.ellipse(mask, middle, (round(radius * size), round(radius * flat * size)), 0, 0, 360, 255, -1)
        soft = cv2.GaussianBlur(mask, (0, 0), max(1.0, 0.12 * radius * size)).astype(np.float32) / 255
        self.pixels[:] = (self.pixels * (1 - strength * soft[..., None])).astype(np.uint8)

    def _fixed(self, length: float) -> int:
        return round(length * len(self.pixels) * 2**_SUBPIXEL_BITS)


def between(rng: Rng, low: int, high: int) -> int:
    """Returns a whole number from `low` to `high`, both possible."""
    return int(rng.integers(low, high + 1))


def choose(rng: Rng, options: Sequence[T]) -> T:
    """Returns one of `options`."""
    return options[int(rng.integers(len(options)))]


def any_color(rng: Rng, usual: Sequence[Color] = _PALETTE) -> Color:
    """Returns a color a little off the palette: mostly of the `usual` ones, of any now and then."""
    base = np.array(choose(rng, usual if rng.random() < 0.8 else _PALETTE))
    return _color(base * rng.uniform(0.8, 1.12) + rng.normal(0, 9, 3))


def tint(color: Color, factor: float) -> Color:
    """Returns `color` darker (factor below 1) or lighter."""
    return _color(np.array(color) * factor)


def clouds(rng: Rng, height: int, width: int) -> NDArray[np.float32]:
    """Returns smooth noise about 0 with a spread of about 1, float32 [height, width]."""
    noise = np.zeros((height, width), np.float32)
    for cells, weight in ((3, 0.7), (7, 0.5), (17, 0.35), (41, 0.25)):
        coarse = rng.normal(0, weight, (cells, cells)).astype(np.float32)
        noise += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return noise


def polar(center: Point, radius: float, angle: float) -> Point:
    """Returns the point at `angle` (radians) and `radius` from `center`."""
    return center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)


def scatter(rng: Rng, center: Point, radius: float, count: int) -> list[Point]:
    """Returns points spread evenly over a disc."""
    radii = radius * np.sqrt(rng.random(count))
    angles = rng.uniform(0, 2 * math.pi, count)
    return [polar(center, r, a) for r, a in zip(radii.tolist(), angles.tolist(), strict=True)]


def within(center: Point, radius: float, point: Point) -> Point:
    """Returns `point`, drawn back onto the disc where it lies outside."""
    x, y = point[0] - center[0], point[1] - center[1]
    shrink = min(1.0, radius / max(math.hypot(x, y), 1e-9))
    return center[0] + x * shrink, center[1] + y * shrink


def planks(rng: Rng, color: Color) -> Pixels:
    """Returns boards from top to bottom, each with a shade and a grain of its own, uint8 [256, 256, 3]."""
    count = between(rng, 4, 10)
    shades = rng.normal(1, 0.07, count).repeat(-(-256 // count))[:256]
    grain = cv2.resize(
        rng.normal(0, 0.05, (6, 256)).astype(np.float32), (256, 256), interpolation=cv2.INTER_LINEAR
    )
    return _shaded(color, shades + grain - 0.22 * (np.arange(256) % -(-256 // count) < 2))


def tiles(rng: Rng, color: Color) -> Pixels:
    """Returns tiles or bricks with joints, uint8 [256, 256, 3]."""
    high, wide, shift = between(rng, 14, 40), between(rng, 24, 64), choose(rng, (0.0, 0.5))
    rows = np.arange(256)[:, None]
    columns = np.arange(256)[None, :] + (rows // high % 2 * shift * wide).astype(int)
    joints = (rows % high < 2) | (columns % wide < 2)
    shades = rng.normal(1, 0.06, (20, 20))[rows // high % 20, columns // wide % 20]
    return _shaded(color, np.where(joints, choose(rng, (0.75, 1.2)), shades))


def weave(rng: Rng, color: Color) -> Pixels:
    """Returns a checked or striped cloth, uint8 [256, 256, 3]."""
    step = between(rng, 10, 36)
    stripes = 1 - 0.16 * (np.arange(256) // step % 2)
    other = stripes if rng.random() < 0.6 else np.ones(256)
    return _shaded(color, stripes[:, None] * other[None, :])


def plain(rng: Rng, color: Color) -> Pixels:
    """Returns matter with faint clouds in it, uint8 [256, 256, 3]."""
    return _shaded(color, 1 + 0.06 * clouds(rng, 256, 256))


def photograph(rng: Rng, canvas: Canvas) -> Pixels:
    """Returns the picture as a camera would take it: tilted, unevenly lit, off in white, soft and noisy."""
    height, width = canvas.pixels.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 2.5), 1.07)
    turned = cv2.warpAffine(
        canvas.pixels, tilt, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    softness = rng.uniform(0.3, 1.1)
    picture = cv2.GaussianBlur(turned, (0, 0), softness).astype(np.float32)
    picture *= rng.uniform(0.8, 1.1) * _light(rng, height, width)[..., None]
    picture *= rng.normal(1, 0.06, 3)  # White balance.
    picture += rng.normal(0, rng.uniform(1, 5), picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _light(rng: Rng, height: int, width: int) -> NDArray[np.float32]:
    """Returns a fall-off to one side and to the corners, about 1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    side = rng.uniform(0, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    return (1 + side - rng.uniform(0, 0.18) * (x**2 + y**2)).astype(np.float32)


def _shaded(color: Color, shades: NDArray[np.floating]) -> Pixels:
    shades = np.broadcast_to(shades, (256, 256))
    return np.clip(shades[..., None] * np.array(color), 0, 255).astype(np.uint8)


def _color(values: NDArray[np.floating]) -> Color:
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue
