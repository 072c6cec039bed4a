"""Decodes a source file as a viewer shows it: upright, 8-bit RGB, no transparency, the first frame.

The format is detected from the content, never from the file name.
"""

from typing import NamedTuple

from shardstream.ingest.images import icc, jpeg, png
from shardstream.ingest.images import pillow_decode as formats
from shardstream.ingest.images.color import turn
from shardstream.ingest.images.image_errors import ImageError, check_memory, check_pixels
from shardstream.ingest.images.jpeg import GrayImage, JpegError, RgbImage, UnusualJpegError
from shardstream.ingest.images.pillow_decode import Decoded, misnamed


class Source(NamedTuple):
    """A file of which only the header was read.

    Attributes:
        data: The content of the file.
        suffix: Suffix of its name, such as ".JPG".
        max_pixels: Images with more pixels according to their header are rejected before they are decoded.
        header: Header of a JPEG or PNG; None for all other formats, and if it cannot be read.
    """

    data: bytes
    suffix: str
    max_pixels: int
    header: jpeg.Header | png.Header | None

    @property
    def clean_size(self) -> tuple[int, int] | None:
        """Height and width if every decoder decodes the file's own bytes alike, provided they are intact."""
        if self.header is not None and icc.name_of_profile(self.header.profile):
            return None
        match self.header:
            case jpeg.Header(is_everyday=True, orientation=1, height=height, width=width):
                return height, width
            case png.Header(is_plain=True, height=height, width=width):
                return height, width
        return None

    @property
    def is_tidy(self) -> bool:
        """Whether the header shows nothing that may need a repair."""
        return self.header is not None and self.header.is_tidy

    @property
    def repairs(self) -> tuple[str, ...]:
        """Descriptions of problems of the file that do not affect the image."""
        return misnamed("JPEG" if isinstance(self.header, jpeg.Header) else "PNG", self.suffix)


def read_source(data: bytes, suffix: str, max_pixels: int) -> Source:
    """Returns the file with its header.

    Raises:
        ImageError: The file is empty, or the image is too large according to its header.
    """
    if not data:
        raise ImageError("empty file")
    header = None
    if data.startswith(jpeg.START):
        try:
            header = jpeg.read_header(data)
        except JpegError as error:
            raise ImageError(f"corrupt JPEG: {error}") from None
    elif data.startswith(png.START):
        header = png.read_header(data)
    if header is not None:
        check_pixels(header.height, header.width, max_pixels)
    return Source(data, suffix, max_pixels, header)


def check_whole(source: Source) -> tuple[GrayImage, int] | None:
    """Checks that a clean source is intact, as strictly as a full decode.

    Returns:
        A small gray image, uint8 [rows, columns], and its reduction factor per side; None if the source is corrupt,
        and `decode` has to find out whether it can be repaired.

    Raises:
        ImageError: The image takes too much memory, or cannot be decoded.
    """
    header = source.header
    if isinstance(header, jpeg.Header):
        check_memory(header.buffer_bytes + len(source.data))
        try:
            return jpeg.check(source.data, header)
        except JpegError:
            return None
    return formats.check_png(source.data, source.max_pixels)


def decode(source: Source, *, min_size: int = 0) -> Decoded:
    """Returns the decoded image.

    Args:
        source: A source of any format.
        min_size: If positive, both sides may be reduced to at least this many pixels, if that is cheap.

    Raises:
        ImageError: The file is not an image, corrupt, or too large.
    """
    if isinstance(source.header, jpeg.Header):
        try:
            return _decode_jpeg(source, source.header, min_size)
        except UnusualJpegError:
            _check_unusual(source, source.header)
    return formats.decode(source.data, source.suffix, min_size=min_size, max_pixels=source.max_pixels)


def _decode_jpeg(source: Source, header: jpeg.Header, min_size: int) -> Decoded:
    if header.missing_decoder:
        raise ImageError(f"no decoder: {header.missing_decoder}; convert it to JPEG of 8 bits")
    rgb, repairs = _decode_mended(source.data, header, min_size)
    repairs = (*source.repairs, *repairs)
    if header.oddity:
        repairs += (f"{header.oddity} to everyday JPEG",)
    if header.num_components == 4:
        repairs += ("CMYK to RGB",)
    height, width = header.height, header.width
    if header.orientation != 1:
        rgb = turn(rgb, header.orientation)
        repairs += (f"turned upright (EXIF orientation {header.orientation})",)
    if header.orientation >= 5:
        height, width = width, height
    profile = header.profile if header.num_components == 3 else b""
    if name := icc.name_of_profile(profile):
        repairs += (f"colors of {name} to sRGB",)
    return Decoded(rgb, height, width, repairs, has_halved_colors=True, profile=profile if name else b"")


def _decode_mended(data: bytes, header: jpeg.Header, min_size: int) -> tuple[RgbImage, tuple[str, ...]]:
    """Returns the image and descriptions of its repairs, made one at a time: each decode stops at the first error."""
    reason, repairs = "", ()
    while True:
        try:
            return _decode_whole_jpeg(data, header, min_size), repairs
        except UnusualJpegError:
            raise
        except JpegError as error:
            reason = reason or str(error)
            data, how = jpeg.repair(data, error)
            if how in repairs:
                raise ImageError(f"corrupt JPEG: {reason}") from None
            repairs += (how,)


def _decode_whole_jpeg(data: bytes, header: jpeg.Header, min_size: int) -> RgbImage:
    check_memory(len(data) + jpeg.decoding_bytes(header, min_size=min_size))
    return jpeg.decode(data, header, min_size=min_size)


def _check_unusual(source: Source, header: jpeg.Header) -> None:
    """Raises ImageError for a JPEG to be decoded by Pillow if it has errors that Pillow ignores, or is too large."""
    if not header.is_tidy:
        raise ImageError("corrupt JPEG: junk between its segments, or no end")
    check_memory(len(source.data) + header.buffer_bytes + 4 * header.height * header.width)
    if warning := jpeg.first_warning(source.data, header):
        raise ImageError(f"corrupt JPEG: {warning}")
