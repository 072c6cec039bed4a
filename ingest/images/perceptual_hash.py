"""A number that tells which images look alike: the signs of an image's lowest frequencies.

The 8x8 lowest coefficients of the cosine transform of the gray image, each against their median.
Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", without his thumbnail of
32x32: the transform is taken of the smallest faithful gray image that there is, each of whose pixels stands for a
cell of the source, the cells at the right and lower edge for what is left of one.
"""

import functools

import numpy as np
import numpy.typing as npt

from shardstream.ingest.images.jpeg import GrayImage, RgbImage

_NUM_FREQUENCIES = 8
_WAVE_HEIGHT = 1024
# A wave that moves the image by less, in gray levels, counts as none. Rounding alone makes 0.04 of a flat image and
# would set bits by accident, the same ones in all flat images of a size. The photo with the least detail of 740 has a
# median of 0.3.
_LEAST_LEVELS = 0.05
_LARGE_ENOUGH = 64  # Pixels on the shorter side.


def hash_gray(gray: GrayImage, cell: int, height: int, width: int) -> int:
    """Returns 64 bits, of which few differ between images that look alike.

    Args:
        gray: uint8 [ceil(height / cell), ceil(width / cell)].
        cell: How many pixels of the image, across and down, one pixel of `gray` stands for.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
    """
    down, across = _cosines(gray.shape[0], cell, height), _cosines(gray.shape[1], cell, width)
    low = (down @ gray.astype(np.float64) @ across.T).ravel()
    low[np.abs(low) < _LEAST_LEVELS * _WAVE_HEIGHT**2 * (height / cell) * (width / cell)] = 0
    middle = np.partition(low, (31, 32))[31:33].sum() / 2
    return int.from_bytes(np.packbits(low > middle).tobytes(), "big")


def hash_rgb(rgb: RgbImage) -> int:
    """Returns the same of `rgb`, uint8 [height, width, 3]."""
    import cv2

    height, width = rgb.shape[:2]
    gray, cell = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1
    while min(gray.shape) >= 2 * _LARGE_ENOUGH:
        rows, columns = gray.shape
        if rows % 2 or columns % 2:
            gray = cv2.copyMakeBorder(gray, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)
        # Pairs of pixels exactly: ten times as fast as any other way to make an image smaller.
        halves = (gray.shape[1] // 2, gray.shape[0] // 2)
        gray, cell = cv2.resize(gray, halves, interpolation=cv2.INTER_AREA), 2 * cell
    return hash_gray(np.asarray(gray, np.uint8), cell, height, width)


@functools.lru_cache(maxsize=1024)
def _cosines(num_pixels: int, cell: int, length: int) -> npt.NDArray[np.float64]:
    """Returns the waves of the lowest frequencies over `length`, [frequency, pixel], times the pixel's share of a cell.

    In whole numbers, so that sums of products are exact in float64 and the same in whatever order a machine adds.
    """
    edges = np.minimum(np.arange(num_pixels + 1) * cell, length)
    centers = (edges[1:] + edges[:-1]) / 2
    waves = np.cos(np.pi * np.arange(_NUM_FREQUENCIES)[:, None] * centers / length)
    return np.rint(_WAVE_HEIGHT * waves * np.diff(edges) / cell)
