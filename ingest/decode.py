"""What a person sees in a source file: upright, RGB of 8 bits, no transparency, the first frame.

What the file is, its content decides, never its name.
"""

import io
import warnings
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ingest import jpeg, png
from ingest.jpeg import JpegError, RgbImage, UnusualJpegError

# The suffixes that each format goes by. Pillow reads more formats (EPS, FLI, ...), but those are never right for
# a photo and would only widen what a hostile file can reach.
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".dib", ".bmp"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "AVIF": {".avif", ".avifs"},
    "JPEG2000": {".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"},
    "ICO": {".ico"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}
_PILLOW_FORMATS = [name for name in _SUFFIXES if name != "MPO"]  # MPO is what Pillow calls some JPEGs.
_JPEG_START = b"\xff\xd8"
# What a file starts with, to say of one that cannot be read what it was meant to be.
_MARKS = {
    "JPEG": _JPEG_START,
    "PNG": png.START[:4],
    "GIF": b"GIF8",
    "BMP": b"BM",
    "TIFF": b"II*\0",
    "big-endian TIFF": b"MM\0*",
    "WebP": b"RIFF",
}
_NO_DECODER = {
    "HEIC": (4, b"ftyphei"),
    "HEIF": (4, b"ftypmif1"),
    "a HEIF sequence": (4, b"ftypmsf1"),
    "a camera's raw file": (4, b"ftypcrx "),
    "JPEG XL": (4, b"JXL "),
    "JPEG XL's bare stream": (0, b"\xff\x0a"),
}
_WHITE = (255, 255, 255)


class RejectedError(Exception):
    """The file holds no picture that can be used. Says why."""


class Decoded(NamedTuple):
    """A picture as a person sees it.

    Attributes:
        rgb: uint8 [height, width, 3]; may be smaller than the source where a small one was asked for.
        height: Of the upright source, in pixels.
        width: Of the upright source, in pixels.
        repairs: What had to be done to see it, in words.
        clean_format: "JPEG" or "PNG" where the source's own bytes show the same in every decoder, else None.
    """

    rgb: RgbImage
    height: int
    width: int
    repairs: tuple[str, ...]
    clean_format: str | None


def decode(data: bytes, suffix: str, *, min_size: int, max_pixels: int) -> Decoded:
    """Returns the picture in `data` as a person sees it.

    Args:
        data: The whole file.
        suffix: Of its name, such as ".JPG".
        min_size: Where positive, both sides may be reduced to not less than this many pixels, if that is cheap.
        max_pixels: A picture that says it has more is refused before it is decoded.

    Raises:
        RejectedError: It is not a picture, not whole, or too large.
    """
    if not data:
        raise RejectedError("empty file")
    if data.startswith(_JPEG_START):
        return _decode_jpeg(data, suffix, min_size, max_pixels)
    return _decode_with_pillow(data, suffix, max_pixels)


def _decode_jpeg(data: bytes, suffix: str, min_size: int, max_pixels: int) -> Decoded:
    repairs = _misnamed("JPEG", suffix)
    clean_format = "JPEG"  # A wrong name alone leaves the bytes as good as any.
    try:
        picture = _decode_whole_jpeg(data, min_size, max_pixels)
    except UnusualJpegError:
        return _decode_with_pillow(data, suffix, max_pixels)
    except JpegError as error:
        try:
            picture = _decode_whole_jpeg(jpeg.mend(data, error), min_size, max_pixels)
        except JpegError:
            raise RejectedError(f"damaged JPEG: {error}") from None
        clean_format = None
        repairs += ("left out junk between the segments",)
    rgb, height, width, is_cmyk = picture
    if is_cmyk:
        clean_format = None
        repairs += ("CMYK to RGB",)
    orientation = _jpeg_orientation(data)
    if orientation != 1:
        rgb = _turn(rgb, orientation)
        clean_format = None
        repairs += (f"turned upright (EXIF orientation {orientation})",)
    if orientation >= 5:
        height, width = width, height
    return Decoded(rgb, height, width, repairs, clean_format)


def _decode_whole_jpeg(data: bytes, min_size: int, max_pixels: int) -> tuple[RgbImage, int, int, bool]:
    """Returns the pixels, the height and width that the header says, and whether the colours were CMYK."""
    height, width, is_cmyk = jpeg.read_size(data)
    _check_pixels(height, width, max_pixels)
    if not is_cmyk:
        return jpeg.decode(data, min_size=min_size), height, width, False
    jpeg.check_cmyk(data)
    # Pillow knows that Adobe's CMYK is stored inverted.
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB")), height, width, True


def _jpeg_orientation(data: bytes) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 where there is none or a wrong one."""
    head = data[: 1 << 18]
    if b"Exif\0" not in head and b"Orientation" not in head:
        return 1  # Spares nearly all pictures without EXIF the 0.1 ms that Pillow takes to parse the header.
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=["JPEG"]) as image,
        ):
            return _orientation(image)
    except Exception:  # Broken EXIF in a whole picture; Pillow lets many kinds of errors through.
        return 1


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # As above.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turn(rgb: RgbImage, orientation: int) -> RgbImage:
    """Returns `rgb` upright. Source: EXIF 2.32, tag 0x0112 (where row 0 and column 0 belong)."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        rgb = rgb[::-1]
    if orientation in {2, 3, 6, 7}:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _decode_with_pillow(data: bytes, suffix: str, max_pixels: int) -> Decoded:
    # Pillow's own guard stays for pictures inside of pictures (ICO, TIFF) that are larger than their container.
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings(action="ignore"):  # Corrupt EXIF, odd tags: the pixels decide.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS) as image:
                _check_pixels(image.height, image.width, max_pixels)
                return _see(data, image, suffix)
    except RejectedError:
        raise
    except UnidentifiedImageError:
        _reject_unknown(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RejectedError(_too_large(max_pixels)) from None
    except MemoryError:
        raise RejectedError("too large: takes more memory than there is") from None
    except Exception as error:  # Pillow's readers raise nearly everything on broken files.
        raise RejectedError(f"damaged: {_one_line(error)}") from None
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _see(data: bytes, image: Image.Image, suffix: str) -> Decoded:
    source_format = str(image.format)
    repairs = [*_misnamed(source_format, suffix)]
    misnamed = len(repairs)
    if _is_animated(image):
        repairs.append("first frame of several")
    if source_format != "TIFF":  # Loading a TIFF turns it and forgets the tag.
        image.load()  # Before EXIF: a PNG loads to find it, and an error of that would seem to be one of EXIF.
    orientation = _orientation(image)
    image.load()
    if orientation != 1:
        image = ImageOps.exif_transpose(image)
        repairs.append(f"turned upright (EXIF orientation {orientation})")
    rgb = _to_rgb(image, repairs)
    clean = source_format == "PNG" and len(repairs) == misnamed and png.is_plain(data)
    if source_format not in {"PNG", "JPEG", "MPO"}:
        repairs.append(f"from {source_format}")
    return Decoded(rgb, rgb.shape[0], rgb.shape[1], tuple(repairs), "PNG" if clean else None)


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except Exception:  # Broken later frames do not matter: the first one is what counts.
        return True


def _to_rgb(image: Image.Image, repairs: list[str]) -> RgbImage:
    """Returns the pixels as uint8 [height, width, 3], and adds to `repairs` what was not plain about them."""
    if image.mode.startswith("I") or image.mode == "F":
        repairs.append("16 bits to 8" if image.mode != "F" else "floating point to 8 bits")
        deep = np.asarray(image)
        grey = np.where(deep == image.info.get("transparency"), 255, _to_eight_bits(deep)).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(grey[:, :, None], (*grey.shape, 3)))
    if image.has_transparency_data:
        repairs.append("transparency over white")
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, _WHITE)
        white.paste(image, mask=image)  # In place: at 100 million pixels each copy more is 0.4 GB.
        return np.asarray(white)
    if image.mode == "P":
        repairs.append("palette to RGB")
    elif image.mode not in {"RGB", "L", "1"}:
        repairs.append(f"{image.mode} to RGB")
    return np.asarray(image.convert("RGB"))


def _to_eight_bits(grey: np.ndarray) -> np.ndarray:
    """Returns grey values of more bits as uint8; Pillow's own conversion cuts them off at 255."""
    if grey.dtype.kind == "f":
        low, high = float(np.nanmin(grey)), float(np.nanmax(grey))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise RejectedError("floating-point pixels that are not finite")
        # Nothing says what white is: 1 and 255 are the two customs.
        return np.clip(grey * (255.0 if high <= 1.0 else 1.0), 0, 255).astype(np.uint8)
    if grey.dtype.itemsize > 2 and (grey.min() < 0 or grey.max() > 0xFFFF):
        raise RejectedError("32-bit pixels outside 0 to 65535")
    return (grey >> 8).astype(np.uint8)


def _misnamed(source_format: str, suffix: str) -> tuple[str, ...]:
    if suffix.lower() in _SUFFIXES[source_format]:
        return ()
    return (f"{source_format} named {suffix or 'without a suffix'}",)


def _check_pixels(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise RejectedError(_too_large(max_pixels))


def _too_large(max_pixels: int) -> str:
    return f"too large: more than {max_pixels:,} pixels (--max-pixels)"


def _reject_unknown(data: bytes) -> NoReturn:
    for name, (offset, mark) in _NO_DECODER.items():
        if data.startswith(mark, offset):
            raise RejectedError(f"no decoder: {name}; convert it to JPEG")
    for name, mark in _MARKS.items():
        if data.startswith(mark):
            raise RejectedError(f"damaged {name}: not even its header can be read")
    raise RejectedError(f"not a picture: it starts with {data[:8]!r}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
