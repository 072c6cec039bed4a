"""Decodes all formats except JPEG with Pillow, which is strict about most of them."""

import contextlib
import functools
import io
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from shardstream.ingest.images import png
from shardstream.ingest.images.color import shrinking, to_rgb, turn
from shardstream.ingest.images.file_marks import SUFFIXES, describe_unreadable, is_camera_raw, is_heif
from shardstream.ingest.images.icc import name_of_profile
from shardstream.ingest.images.image_errors import (
    ImageError,
    check_memory,
    check_pixels,
    too_many_pixels,
)
from shardstream.ingest.images.jpeg import START as JPEG_START
from shardstream.ingest.images.jpeg import GrayImage, RgbImage

# Pillow reads more formats (EPS, FLI, ...), but those are never used for photos and would increase the attack surface.
_PILLOW_FORMATS = [name for name in SUFFIXES if name not in {"MPO", "HEIF"}]  # Pillow calls some JPEGs MPO.
# Signatures, to name the format of an unreadable file.
_MARKS = {
    "JPEG": JPEG_START,
    "PNG": png.START[:4],
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF, or one of an unknown kind": b"II*\0",
    "big-endian TIFF, or one of an unknown kind": b"MM\0*",
    "WebP": b"RIFF",
}
_HALVED_COLORS = {"JPEG", "MPO", "WEBP", "AVIF", "HEIF"}
_LOSSLESS_WEBP, _WEBP_HEADER_BYTES = b"VP8L", 4096
_MIN_DEEP_LEVEL, _PNG_DEPTH_AT = 16, 24
_RGB_MODES = {"RGB", "RGBA", "RGBX", "P", "PA"}
_GREY_SIZE = 64  # Minimum pixels of the shorter side of the gray image that a check returns.
# Measured memory of Pillow's loading, in bytes per pixel; for all other formats the size of the image itself.
_LOADING_BYTES = {"WEBP": 18, "AVIF": 18, "HEIF": 18, "JPEG2000": 26, "ICO": 16}
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # Otherwise 4, including "RGB".
# Tags of a TIFF.
_BITS, _COMPRESSION, _ROWS_PER_STRIP, _PLANES, _TILE_WIDTH, _TILE_HEIGHT = 258, 259, 278, 284, 322, 323

_Seen = TypeVar("_Seen")


class Decoded(NamedTuple):
    """A decoded, upright image.

    Attributes:
        rgb: Pixels, uint8 [height, width, 3]; may be smaller than the source if `min_size` allowed it.
        height: Height of the upright source in pixels.
        width: Width of the upright source in pixels.
        repairs: Descriptions of the repairs that were necessary.
        has_halved_colors: Whether its format usually stores colors at half the resolution (4:2:0). Storing a drawing
            from another format in that way may turn it into noise, 60 levels off.
        profile: The ICC profile to convert the colors from; empty for sRGB.
    """

    rgb: RgbImage
    height: int
    width: int
    repairs: tuple[str, ...]
    has_halved_colors: bool
    profile: bytes = b""


def decode(data: bytes, suffix: str, *, min_size: int, max_pixels: int) -> Decoded:
    """Returns the decoded image; the arguments are those of `decode.decode`.

    Raises:
        ImageError: The file is not an image, corrupt, or too large.
    """
    if is_camera_raw(data, suffix):
        raise ImageError("no decoder: a camera's raw file; convert it to JPEG")
    return _with_pillow(data, max_pixels, lambda image: _see(image, data, suffix, min_size))


def check_png(data: bytes, max_pixels: int) -> tuple[GrayImage, int] | None:
    """Decodes a PNG with a plain header to its end, and returns a small gray image of it.

    Returns:
        uint8 [ceil(height / n), ceil(width / n)], and n; None if it is corrupt or not as plain as its header says.

    Raises:
        ImageError: As for `decode`.
    """
    if not png.is_whole(data):
        return None
    return _with_pillow(data, max_pixels, lambda image: _shrink_upright(image, len(data)))


def misnamed(source_format: str, suffix: str) -> tuple[str, ...]:
    """Returns a description of the suffix mismatch of a file of this format, if there is one."""
    if suffix.lower() in SUFFIXES[source_format]:
        return ()
    return (f"{source_format} named {suffix or 'without a suffix'}",)


def _with_pillow(data: bytes, max_pixels: int, see: Callable[[Image.Image], _Seen]) -> _Seen:
    """Returns the result of `see` on the opened image; converts errors of the file to ImageError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Corrupt EXIF, odd tags: only the pixels matter.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open(data, _formats(data)) as image:
                check_pixels(image.height, image.width, max_pixels)
                return see(image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        _reject_unknown(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(too_many_pixels(max_pixels)) from None
    except Exception as error:  # Pillow's readers raise almost any exception on corrupt files.
        raise ImageError(f"corrupt: {_one_line(error)}") from None


def _open(data: bytes, formats: Sequence[str]) -> Image.Image:
    """Opens an image like `Image.open`, but without its process-wide pixel limit: we have our own.

    Pillow's limit still applies to images inside containers (ICO, TIFF) that are larger than the container says.
    Source: PIL/Image.py of Pillow 11 and 12.
    """
    Image.init()
    for name in formats:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            accepted = accept is None or accept(data[:16])
            # A string says why the format is recognized but unsupported.
            if accepted and not isinstance(accepted, str):
                return factory(io.BytesIO(data), "")
    raise UnidentifiedImageError


def _formats(data: bytes) -> list[str]:
    """Returns the formats that Pillow may try for `data`: those of photos, and HEIC if its plugin is installed."""
    return [*_PILLOW_FORMATS, "HEIF"] if is_heif(data) and _has_heif() else _PILLOW_FORMATS


@functools.cache
def _has_heif() -> bool:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports] - The extra "heif".
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _shrink_upright(image: Image.Image, num_bytes: int) -> tuple[GrayImage, int] | None:
    check_memory(num_bytes + _loading_bytes(image, num_bytes))
    image.load()
    if _orientation(image) != 1:
        return None
    factor = max(1, min(image.size) // _GREY_SIZE)
    return np.asarray(image.reduce(factor).convert("L")), factor


def _see(image: Image.Image, data: bytes, suffix: str, min_size: int) -> Decoded:
    source_format = str(image.format)
    repairs = [*misnamed(source_format, suffix)]
    num_pixels = image.height * image.width // shrinking(image.height, image.width, min_size) ** 2
    _check_planes(image)
    check_memory(len(data) + max(_loading_bytes(image, len(data)), _own_bytes(image) + 3 * num_pixels))
    if _is_animated(image):
        repairs.append("first frame of several")
    if source_format != "TIFF":  # Loading a TIFF rotates it and drops the tag.
        image.load()  # Before EXIF: a PNG is loaded to find it, and a load error would look like an EXIF error.
    orientation = _orientation(image)
    image.load()
    if orientation != 1:
        repairs.append(f"turned upright (EXIF orientation {orientation})")
    height, width = image.height, image.width
    profile = image.info.get("icc_profile") or b"" if image.mode in _RGB_MODES else b""
    rgb = to_rgb(image, min_size=min_size, repairs=repairs)
    # Not with a profile: linear colors have small values.
    is_dark = 0 < rgb.max(initial=0) < _MIN_DEEP_LEVEL and not name_of_profile(profile)
    if is_dark and _has_deep_colors(image, data):
        raise ImageError("colors of 16 bits that use less than a sixteenth of their range; rescale them")
    image.close()  # Frees its memory before a rotated copy is made.
    if source_format != "TIFF":
        rgb = turn(rgb, orientation)
        height, width = (width, height) if orientation >= 5 else (height, width)
    if source_format not in {"PNG", "JPEG", "MPO"}:
        repairs.append(f"from {source_format}")
    if name := name_of_profile(profile):
        repairs.append(f"colors of {name} to sRGB")
    has_halved_colors = source_format in _HALVED_COLORS and _LOSSLESS_WEBP not in data[:_WEBP_HEADER_BYTES]
    return Decoded(rgb, height, width, tuple(repairs), has_halved_colors, profile if name else b"")


def _has_deep_colors(image: Image.Image, data: bytes) -> bool:
    """Whether colors have 16 bits, which Pillow reduces to the upper 8."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(_BITS, (8,))) > 8
    return image.format == "PNG" and data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10"


def _check_planes(image: Image.Image) -> None:
    """Raises ImageError for an uncompressed TIFF with 16-bit color planes, which Pillow reads as 8-bit."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        if (tags.get(_PLANES), tags.get(_COMPRESSION)) == (2, 1) and max(tags.get(_BITS, (8,))) > 8:
            raise ImageError("no decoder: a TIFF of more than 8 bits in planes; convert it to JPEG")


def _own_bytes(image: Image.Image) -> int:
    # Plus 8 bytes per row: Pillow keeps a pointer to each.
    return image.height * (image.width * _MODE_BYTES.get(image.mode, 4) + 8)


def _loading_bytes(image: Image.Image, num_bytes: int) -> int:
    """Estimates the memory to load `image` from a file of `num_bytes`, in addition to the file."""
    num_pixels = image.height * image.width
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Decompresses one strip or tile at a time, but there may be only one. Rotating makes a copy.
        tags = image.tag_v2
        rows, columns = tags.get(_TILE_HEIGHT), tags.get(_TILE_WIDTH)
        part = rows * columns if rows and columns else tags.get(_ROWS_PER_STRIP, image.height) * image.width
        unpacked = min(part, num_pixels) if tags.get(_COMPRESSION, 1) != 1 else 0
        copies = 1 if _orientation(image) == 1 else 2
        return copies * _own_bytes(image) + unpacked * sum(tags.get(_BITS, (8,))) // 8
    if image.format in _LOADING_BYTES:
        return (
            num_bytes + num_pixels * _LOADING_BYTES[image.format]
        )  # These decoders keep a copy of the file.
    return _own_bytes(image)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Corrupt EXIF in an intact image; Pillow raises many kinds of errors.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Exception:  # Corrupt later frames do not matter: only the first is used.
        return True


def _reject_unknown(data: bytes) -> NoReturn:
    for name, mark in _MARKS.items():
        if data.startswith(mark):
            raise ImageError(f"corrupt {name}: not even its header can be read")
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        raise ImageError("corrupt AVIF: not even its header can be read")
    if is_heif(data) and _has_heif():
        raise ImageError("corrupt HEIC: not even its header can be read")
    raise ImageError(describe_unreadable(data))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
