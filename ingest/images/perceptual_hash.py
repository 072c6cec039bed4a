"""Perceptual hash (pHash) for near-duplicates: similar images have hashes with a small Hamming distance.

The 8x8 lowest coefficients of the cosine transform of the gray image, each compared with their median.
Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", without its 32x32 thumbnail:
the transform uses a reduced gray image, each of whose pixels is a cell of the source; cells at the right and lower edge
may be partial.
"""

import functools

import numpy as np
import numpy.typing as npt

from shardstream.ingest.images.jpeg import GrayImage, RgbImage

_NUM_FREQUENCIES = 8
_WAVE_HEIGHT = 1024
# Coefficients below this amplitude, in gray levels, count as 0. Rounding alone causes 0.04 in a flat image and would
# set random bits, the same ones in all flat images of a size. The photo with the least detail of 740 has a median of
# 0.3.
_MIN_LEVELS = 0.05
_LARGE_ENOUGH = 64  # Pixels of the shorter side.


def hash_gray(gray: GrayImage, cell: int, height: int, width: int) -> int:
    """Returns the 64-bit hash of an image.

    Args:
        gray: The reduced image, uint8 [ceil(height / cell), ceil(width / cell)].
        cell: Its reduction factor per side.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
    """
    down, across = _cosines(gray.shape[0], cell, height), _cosines(gray.shape[1], cell, width)
    low = (down @ gray.astype(np.float64) @ across.T).ravel()
    low[np.abs(low) < _MIN_LEVELS * _WAVE_HEIGHT**2 * (height / cell) * (width / cell)] = 0
    middle = np.partition(low, (31, 32))[31:33].sum() / 2
    return int.from_bytes(np.packbits(low > middle).tobytes(), "big")


def hash_rgb(rgb: RgbImage) -> int:
    """Returns the 64-bit hash of `rgb`, uint8 [height, width, 3]."""
    import cv2

    height, width = rgb.shape[:2]
    gray, cell = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1
    while min(gray.shape) >= 2 * _LARGE_ENOUGH:
        rows, columns = gray.shape
        if rows % 2 or columns % 2:
            gray = cv2.copyMakeBorder(gray, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)
        # Exactly halved: ten times as fast as other factors.
        halves = (gray.shape[1] // 2, gray.shape[0] // 2)
        gray, cell = cv2.resize(gray, halves, interpolation=cv2.INTER_AREA), 2 * cell
    return hash_gray(np.asarray(gray, np.uint8), cell, height, width)


@functools.lru_cache(maxsize=1024)
def _cosines(num_pixels: int, cell: int, length: int) -> npt.NDArray[np.float64]:
    """Returns the cosines of the lowest frequencies over `length`, [frequency, pixel], times the cell fraction.

    Rounded to integers, so that sums of products are exact in float64 and independent of the order of summation.
    """
    edges = np.minimum(np.arange(num_pixels + 1) * cell, length)
    centers = (edges[1:] + edges[:-1]) / 2
    waves = np.cos(np.pi * np.arange(_NUM_FREQUENCIES)[:, None] * centers / length)
    return np.rint(_WAVE_HEIGHT * waves * np.diff(edges) / cell)
