"""From the bytes of a source file to a verdict and the picture to store."""

from typing import Literal, NamedTuple

import numpy as np

from ingest import jpeg
from ingest.decode import Decoded, RejectedError, decode
from ingest.jpeg import RgbImage
from ingest.metadata import ImageSettings, Resize


class Judged(NamedTuple):
    """The verdict on one file and, unless it is rejected, the picture to store.

    Attributes:
        verdict: What became of it.
        reason: How it was repaired or why it was rejected; empty if ok.
        stored: The bytes for the record.
        size: Height and width of the stored picture, in pixels.
        source_size: Height and width of the upright source, in pixels.
        perceptual_hash: 64 bits, of which few differ between pictures that look alike.
    """

    verdict: Literal["ok", "repaired", "rejected"]
    reason: str
    stored: bytes = b""
    size: tuple[int, int] = (0, 0)
    source_size: tuple[int, int] = (0, 0)
    perceptual_hash: int = 0


def judge(data: bytes, suffix: str, *, image: ImageSettings, max_pixels: int) -> Judged:
    """Returns the verdict on the content of one file.

    Args:
        data: The whole file.
        suffix: Of its name, such as ".JPG": a picture under another format's name counts as repaired.
        image: How pictures are stored.
        max_pixels: A picture that says it has more is refused before it is decoded.
    """
    try:
        # Twice the final size: averaging four pixels or more hides how the decoder made them.
        decoded = decode(data, suffix, min_size=2 * (image.size or 0), max_pixels=max_pixels)
        stored, size = _store(data, decoded, image)
    except RejectedError as error:
        return Judged("rejected", str(error))
    return Judged(
        "repaired" if decoded.repairs else "ok",
        ", ".join(decoded.repairs),
        stored,
        size,
        (decoded.height, decoded.width),
        perceptual_hash(decoded.rgb),
    )


def resize(rgb: RgbImage, size: int, rule: Resize) -> RgbImage:
    """Returns `rgb` as [size, size, 3].

    Args:
        rgb: uint8 [height, width, 3].
        size: In pixels.
        rule: "stretch" ignores the shape, "crop" takes the middle square, "pad" adds black bands.
    """
    height, width = rgb.shape[:2]
    if rule == "stretch":
        return _scale(rgb, size, size)
    if rule == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return _scale(rgb[top : top + side, left : left + side], size, size)
    scale = size / max(height, width)
    inner = _scale(rgb, max(1, round(height * scale)), max(1, round(width * scale)))
    padded = np.zeros((size, size, 3), np.uint8)
    top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
    padded[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return padded


def perceptual_hash(rgb: RgbImage) -> int:
    """Returns 64 bits of the picture's low frequencies: few differ between pictures that look alike.

    The 8x8 lowest coefficients of the cosine transform of a 32x32 grey thumbnail, each against their median.
    Source: Zauner 2010, "Implementation and benchmarking of perceptual image hash functions".
    """
    import cv2

    # By way of 128x128: 0.1 ms for a photo of 500x375 where one step takes 0.7. Of 140 photos, each against itself at
    # 55 % of the size and quality 70, at most 6 bits differed; against the next photo, at least 20.
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_LINEAR)
    grey = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def _scale(rgb: RgbImage, height: int, width: int) -> RgbImage:
    import cv2

    # The mean over an area neither blurs nor aliases when shrinking; for enlarging it would make blocks.
    shrinks = rgb.shape[0] > height or rgb.shape[1] > width
    scaled = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return scaled.astype(np.uint8, copy=False)


def _store(data: bytes, decoded: Decoded, image: ImageSettings) -> tuple[bytes, tuple[int, int]]:
    """Returns the bytes for the record, and the height and width of the picture in them."""
    # Bytes that are right as they are stay: encoding a JPEG again would cost quality and time.
    fits = image.size is None or (decoded.height, decoded.width) == (image.size, image.size)
    if fits and decoded.clean_format and image.encoding != "raw":
        return data, (decoded.height, decoded.width)
    rgb = decoded.rgb if image.size is None else resize(decoded.rgb, image.size, image.resize)
    return _encode(rgb, image), (rgb.shape[0], rgb.shape[1])


def _encode(rgb: RgbImage, image: ImageSettings) -> bytes:
    if image.encoding == "jpeg":
        if max(rgb.shape) > jpeg.MAX_SIDE:
            raise RejectedError(f"too large: a JPEG has at most {jpeg.MAX_SIDE:,} pixels a side")
        return jpeg.encode(rgb, image.quality)
    if image.encoding == "raw":
        return rgb.tobytes()
    import cv2

    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
