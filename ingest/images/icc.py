"""Converts colors of ICC profiles to sRGB, such as Display P3 of iPhones or Adobe RGB of cameras.

Without the conversion, Display P3 looks pale and Adobe RGB dull. Profiles of gray and CMYK images are not used.
"""

import contextlib
import functools
import io

import numpy as np
from PIL import Image, ImageCms

from shardstream.ingest.images.jpeg import RgbImage

# Profiles that change colors by less, in levels of 255, count as sRGB: cameras embed many versions of it.
_MAX_LEVELS = 4
_GRID = 6
_PIXELS_PER_STRIP = 1 << 20
_MAX_PROFILE_BYTES = 4 << 20
_HEADER_BYTES = 128


def name_of_profile(profile: bytes) -> str:
    """Returns the name of an RGB profile that differs visibly from sRGB; empty for all others."""
    if len(profile) > _MAX_PROFILE_BYTES or len(profile) < _HEADER_BYTES or profile[16:20] != b"RGB ":
        return ""
    return _name(profile)


def to_srgb(rgb: RgbImage, profile: bytes) -> RgbImage:
    """Converts `rgb`, uint8 [height, width, 3], from `profile` to sRGB."""
    transform = _transform(profile)
    if transform is None:
        return rgb
    converted = np.empty_like(rgb)
    rows = max(1, _PIXELS_PER_STRIP // rgb.shape[1])
    for top in range(0, rgb.shape[0], rows):
        strip = Image.fromarray(np.ascontiguousarray(rgb[top : top + rows]))
        ImageCms.applyTransform(strip, transform, inPlace=True)
        converted[top : top + rows] = np.asarray(strip)
    return converted


@functools.lru_cache(maxsize=64)
def _name(profile: bytes) -> str:
    levels = np.linspace(0, 255, _GRID).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(_GRID, -1, 3)
    moved = np.abs(to_srgb(grid, profile).astype(int) - grid)
    if moved.max() <= _MAX_LEVELS:
        return ""
    with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return "".join(filter(str.isprintable, name)).strip()[:40] or "another profile"
    return "another profile"


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform from `profile` to sRGB; None if the profile is corrupt, and is treated as sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.buildTransform(
            source, target, "RGB", "RGB", renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
