"""Converts Pillow images of all modes to 8-bit RGB, with little memory."""

from collections.abc import Callable

import numpy as np
from PIL import Image, TiffImagePlugin

from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.jpeg import RgbImage

_WHITE = (255, 255, 255)
# Pillow's RGB takes 4 bytes per pixel: each full copy of 100 million pixels would be 0.4 GB.
_PIXELS_PER_STRIP = 1 << 20
_LARGE_PIXELS = 1 << 24
_DEPTHS = (8, 10, 12, 14, 16)
_MAX_OVERSHOOT = 0.05  # Overshoot of resampling at edges.
_ALPHA_MODES = {"RGBA", "LA"}
_PHOTOMETRIC = 262  # A tag of a TIFF; 0 says that 0 is white.


def to_rgb(image: Image.Image, *, min_size: int, repairs: list[str]) -> RgbImage:
    """Returns the pixels as uint8 [rows, columns, 3], and adds the conversions that were necessary to `repairs`.

    Args:
        image: The loaded image.
        min_size: Passed to `shrinking`, which returns the reduction factor of the result.
        repairs: Descriptions of repairs.

    Raises:
        ImageError: The value range of the pixels is unknown.
    """
    width, height = image.size
    factor = shrinking(height, width, min_size)
    see = _seer(image, repairs)
    rgb = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    rows = max(1, _PIXELS_PER_STRIP // (width * factor))
    for top in range(0, len(rgb), rows):
        strip = see(image.crop((0, top * factor, width, min(height, (top + rows) * factor))))
        rgb[top : top + rows] = np.asarray(strip.reduce(factor) if factor > 1 else strip)
    return rgb


def shrinking(height: int, width: int, min_size: int) -> int:
    """Returns the integer reduction factor per side that keeps at least `min_size` pixels.

    Greater than 1 only for large images, and less than the largest possible factor: cells at the edge are usually
    incomplete, which shifts the content of the others slightly.
    """
    if not min_size or height * width <= _LARGE_PIXELS:
        return 1
    return max(1, min(height, width) // (2 * min_size))


def turn(rgb: RgbImage, orientation: int) -> RgbImage:
    """Returns `rgb` upright. Source: EXIF 2.32, tag 0x0112 (where row 0 and column 0 belong)."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        rgb = rgb[::-1]
    if orientation in {2, 3, 6, 7}:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _seer(image: Image.Image, repairs: list[str]) -> Callable[[Image.Image], Image.Image]:
    """Returns the function that converts a strip of `image` to RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        repairs.append("16 bits to 8" if image.mode != "F" else "floating point to 8 bits")
        transparent = image.info.get("transparency")
        if image.mode == "F":
            scale = _scale_of_floats(image)
            return lambda strip: _gray_to_rgb(np.clip(np.nan_to_num(np.asarray(strip)) * scale, 0, 255))
        depth = _depth_in_use(image)
        if depth < 16:
            width = 32 if image.mode == "I" else 16
            repairs[-1] = f"{width} bits to 8" if depth == 8 else f"{depth} bits in {width} to 8"
        white = (1 << depth) - 1 if _is_negative(image) else 0
        return lambda strip: _gray_to_rgb(_to_eight_bits(np.asarray(strip), depth, white, transparent))
    if image.mode == "P" and image.palette is None:
        raise ImageError("corrupt: no palette")
    if image.has_transparency_data and _is_opaque(image):
        return lambda strip: strip.convert(
            "RGB"
        )  # The alpha channel has no visible effect, so this is not a repair.
    if image.has_transparency_data:
        if _is_invisible(image):
            raise ImageError("transparent everywhere, nothing of it can be seen; remove its alpha channel")
        repairs.append("transparency over white")
        return _over_white
    if image.mode == "P":
        repairs.append("palette to RGB")
    elif image.mode not in {"RGB", "L", "1"}:
        repairs.append(f"{image.mode} to RGB")
    return lambda strip: strip.convert("RGB")


def _over_white(strip: Image.Image) -> Image.Image:
    strip = strip.convert("RGBA")
    white = Image.new("RGB", strip.size, _WHITE)
    white.paste(strip, mask=strip)
    return white


def _gray_to_rgb(gray: np.ndarray) -> Image.Image:
    return Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def _to_eight_bits(deep: np.ndarray, depth: int, white: int, transparent: object) -> np.ndarray:
    """Scales integers of `depth` bits to 0 to 255; Pillow's own conversion clips them at 255.

    Args:
        deep: The integers.
        depth: The number of bits in use, at least 8.
        white: The value that 0 becomes if the image is inverted; 0 if it is not.
        transparent: The value that becomes white.
    """
    return np.where(deep == transparent, 255, np.bitwise_xor(deep, white) >> (depth - 8))


def _is_opaque(image: Image.Image) -> bool:
    """Whether the alpha channel is fully opaque."""
    return image.mode in _ALPHA_MODES and image.getchannel("A").getextrema()[0] == 255


def _is_invisible(image: Image.Image) -> bool:
    """Whether the alpha channel, or that of the palette, is fully transparent."""
    if image.mode in _ALPHA_MODES:
        return image.getchannel("A").getextrema()[1] == 0
    transparent = image.info.get("transparency")
    if image.mode != "P" or transparent is None:
        return False
    used = np.flatnonzero(image.histogram()).tolist()
    if isinstance(transparent, bytes):
        return all(transparent[color : color + 1] == b"\0" for color in used)
    return used == [transparent]


def _depth_in_use(image: Image.Image) -> int:
    """Returns the bit depth in use: the smallest usual depth that holds the maximum of `image`.

    12-bit detectors store their values unscaled in 16 bits: scaled from the full range they would be almost black.
    """
    low, high = np.asarray(image.getextrema(), np.int64)
    if low < 0 or high > 0xFFFF:
        raise ImageError(
            f"integer pixels from {low} to {high}: nothing says what is white; rescale them to 16 bits"
        )
    return next(depth for depth in _DEPTHS if high < 1 << depth)


def _is_negative(image: Image.Image) -> bool:
    # Pillow handles WhiteIsZero for 8 bits, but ignores it for 16.
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _scale_of_floats(image: Image.Image) -> float:
    """Returns the factor to the range 0 to 255: floating point has no defined white, 1 and 255 are both common."""
    low, high = np.asarray(image.getextrema(), np.float64)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("floating-point pixels that are not finite")
    for white in (1.0, 255.0):
        if -_MAX_OVERSHOOT * white <= low and high <= (1 + _MAX_OVERSHOOT) * white:
            return 255.0 / white
    raise ImageError(
        f"floating-point pixels from {low:.6g} to {high:.6g}: nothing says what is white; rescale them to 0 to 1"
    )
