"""From the bytes of a source file to a verdict and the image to store."""

from typing import Literal, NamedTuple

import numpy as np

from shardstream.ingest.images import jpeg
from shardstream.ingest.images.decode import Source, check_whole, decode, read_source
from shardstream.ingest.images.icc import to_srgb
from shardstream.ingest.images.image_errors import ImageError
from shardstream.ingest.images.jpeg import RgbImage
from shardstream.ingest.images.perceptual_hash import hash_gray, hash_rgb
from shardstream.ingest.images.settings import Check, ImageSettings, Resize


class ProcessedImage(NamedTuple):
    """The verdict on one file and, unless it is rejected, the image to store.

    Attributes:
        verdict: The verdict, one of VERDICTS.
        reason: How it was repaired or why it was rejected; empty if ok.
        stored: The bytes for the record.
        size: Height and width of the stored image, in pixels.
        source_size: Height and width of the upright source, in pixels.
        perceptual_hash: 64-bit hash, with a small Hamming distance for similar images; None if it was not decoded.
    """

    verdict: Literal["ok", "repaired", "rejected"]
    reason: str
    stored: bytes = b""
    size: tuple[int, int] = (0, 0)
    source_size: tuple[int, int] = (0, 0)
    perceptual_hash: int | None = None


def process_image(
    data: bytes, suffix: str, *, image: ImageSettings, max_pixels: int, check: Check = "full"
) -> ProcessedImage:
    """Returns the verdict on the content of one file.

    Args:
        data: The content of the file.
        suffix: Suffix of its name, such as ".JPG": an image with another format's suffix counts as repaired.
        image: How images are stored.
        max_pixels: Images with more pixels according to their header are rejected before they are decoded.
        check: "full" decodes every image to its end; "header" trusts the header of images that can be stored unchanged,
            and decodes only the others.
    """
    try:
        source = read_source(data, suffix, max_pixels)
        return _keep(source, image, check) or _make(source, image)
    except ImageError as error:
        return ProcessedImage("rejected", str(error))
    except MemoryError:
        return ProcessedImage("rejected", "too large: takes more memory than there is")
    except Exception as error:  # An unexpected error rejects one file instead of ending a job of millions.
        return ProcessedImage("rejected", f"unforeseen {type(error).__name__}: {error}")


def _keep(source: Source, image: ImageSettings, how: Check) -> ProcessedImage | None:
    """Returns the verdict on a source that can be stored unchanged: re-encoding would cost quality and time."""
    size = source.clean_size
    if size is None or image.encoding == "raw" or size != (image.size or size[0], image.size or size[1]):
        return None
    perceptual_hash = None
    if how == "full" or not source.is_tidy:
        if (seen := check_whole(source)) is None:
            return None
        perceptual_hash = hash_gray(*seen, *size)
    verdict = "repaired" if source.repairs else "ok"
    return ProcessedImage(verdict, ", ".join(source.repairs), source.data, size, size, perceptual_hash)


def _make(source: Source, image: ImageSettings) -> ProcessedImage:
    """Returns the verdict on a source that has to be decoded, with the re-encoded image."""
    # Twice the final size: averaging at least four pixels hides artifacts of the decoder's scaling.
    decoded = decode(source, min_size=2 * (image.size or 0))
    rgb = decoded.rgb if image.size is None else resize(decoded.rgb, image.size, image.resize)
    if decoded.profile:  # After resizing: a tenth of the work, without a visible difference.
        rgb = to_srgb(rgb, decoded.profile)
    # A stretched image shows the complete source, and hashing it is cheaper.
    perceptual_hash = hash_rgb(rgb if image.resize == "stretch" else decoded.rgb)
    return ProcessedImage(
        "repaired" if decoded.repairs else "ok",
        ", ".join(decoded.repairs),
        _encode(rgb, image, halve_colors=decoded.has_halved_colors),
        (rgb.shape[0], rgb.shape[1]),
        (decoded.height, decoded.width),
        perceptual_hash,
    )


def resize(rgb: RgbImage, size: int, rule: Resize) -> RgbImage:
    """Returns `rgb` resized to [size, size, 3].

    Args:
        rgb: The image, uint8 [height, width, 3].
        size: Height and width in pixels.
        rule: "stretch" ignores the aspect ratio, "crop" takes the center square, "pad" adds black bars.
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


def _scale(rgb: RgbImage, height: int, width: int) -> RgbImage:
    import cv2

    # Area interpolation neither blurs nor aliases when downscaling, but makes blocks when upscaling. Two passes: if one
    # side shrinks and the other grows, OpenCV does not use area interpolation at all.
    rows, columns = min(rgb.shape[0], height), min(rgb.shape[1], width)
    scaled = rgb
    if (rows, columns) != rgb.shape[:2]:
        scaled = cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA)
    if (rows, columns) != (height, width):
        scaled = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    return scaled.astype(np.uint8, copy=False)


def _encode(rgb: RgbImage, image: ImageSettings, *, halve_colors: bool) -> bytes:
    if image.encoding == "jpeg":
        if max(rgb.shape) > jpeg.MAX_SIDE:
            raise ImageError(f"too large: a JPEG has at most {jpeg.MAX_SIDE:,} pixels a side")
        return jpeg.encode(rgb, image.quality, halve_colors=halve_colors)
    if image.encoding == "raw":
        return rgb.tobytes()
    import cv2

    cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=rgb)  # In place: a copy of 100 million pixels would be 0.3 GB.
    return cv2.imencode(".png", rgb)[1].tobytes()
