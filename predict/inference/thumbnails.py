"""Images for the page: the record's own bytes, or the model input compressed to the size that the page allows."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from shardstream.predict.inference.prediction import Record

# Budget of all images of a page. Base64 adds a third: with the rest, 200 images stay below 5 MB.
PICTURE_BYTES = 3_000_000

# Nobody looks closer on a page, and larger ones slow down the browser. The smaller sides are for noise-like images,
# which no quality setting makes small enough.
_SIDES = (384, 224, 112)

THUMBNAIL_SIDE = 144

# WebP at these qualities looks like JPEG at about 90 and 65, with two thirds of the bytes.
_QUALITIES = (86, 76, 64, 50, 36)


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image.

    Attributes:
        media_type: "image/jpeg", "image/png" or "image/webp".
        content: The encoded bytes.
        is_record: Whether they are the record's own bytes; otherwise they were encoded from the model input.
    """

    media_type: str
    content: bytes
    is_record: bool

    @property
    def data_uri(self) -> str:
        """The image as a data URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode('ascii')}"

    def pixels(self) -> np.ndarray:
        """Returns uint8 [height, width, 3] RGB; EXIF orientation is ignored, as in the model input."""
        with Image.open(io.BytesIO(self.content)) as image:
            return np.asarray(image.convert("RGB"))


def make_picture(record: Record, pixels: np.ndarray, *, max_bytes: int) -> Picture:
    """Returns the record's own bytes if a browser can show them and they have at most `max_bytes`.

    Otherwise the model input encoded in at most `max_bytes`, or as few as possible.

    Args:
        record: The record.
        pixels: uint8 [image_size, image_size, 3], the model input.
        max_bytes: Maximum size.
    """
    return picture_of(record.encoded, record.media_type, pixels, max_bytes=max_bytes)


def picture_of(encoded: bytes, media_type: str | None, pixels: np.ndarray, *, max_bytes: int) -> Picture:
    """Returns the same for an image that is not a record; `media_type` is None if browsers cannot show it."""
    if media_type is not None and len(encoded) <= max_bytes:
        return Picture(media_type, encoded, is_record=True)
    content = b""
    for side in _SIDES:
        image = _within(pixels, side)
        for quality in _QUALITIES:
            content = _encode(image, quality)
            if len(content) <= max_bytes:
                return Picture("image/webp", content, is_record=False)
    return Picture("image/webp", content, is_record=False)


def make_thumbnail(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> Picture:
    """Returns a thumbnail of the model input, uint8 [height, width, 3]: about 3 kB at the default side."""
    return Picture("image/webp", _encode(_within(pixels, side), 60), is_record=False)


def _within(pixels: np.ndarray, side: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return image


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
