"""What a person sees in a source file: upright, RGB of 8 bits, no transparency, the first frame.

What the file is, its content decides, never its name.
"""

from typing import NamedTuple

from shardstream.ingest.images import icc, jpeg, png
from shardstream.ingest.images import pillow_decode as formats
from shardstream.ingest.images.color import turn
from shardstream.ingest.images.image_errors import ImageError, check_memory, check_pixels
from shardstream.ingest.images.jpeg import GrayImage, JpegError, RgbImage, UnusualJpegError
from shardstream.ingest.images.pillow_decode import Decoded, misnamed


class Source(NamedTuple):
    """A file of which the header was read and nothing else.

    Attributes:
        data: The content of the file.
        suffix: Of its name, such as ".JPG".
        max_pixels: An image that says it has more is refused before it is decoded.
        header: Of a JPEG or PNG; None for all other formats, and where it cannot be read.
    """

    data: bytes
    suffix: str
    max_pixels: int
    header: jpeg.Header | png.Header | None

    @property
    def clean_size(self) -> tuple[int, int] | None:
        """Height and width where the file's own bytes, if they are tidy or whole, show the same in every decoder."""
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
        """Whether the header leaves nothing that may have to be repaired."""
        return self.header is not None and self.header.is_tidy

    @property
    def repairs(self) -> tuple[str, ...]:
        """What is wrong with the file though not with the image, in words."""
        return misnamed("JPEG" if isinstance(self.header, jpeg.Header) else "PNG", self.suffix)


def read_source(data: bytes, suffix: str, max_pixels: int) -> Source:
    """Returns the file with its header.

    Raises:
        ImageError: It is empty, or says that it is too large.
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
    """Looks whether a clean source is whole, as strictly as decoding it.

    Returns:
        A small gray image, uint8 [rows, columns], and how many pixels of the source each of its pixels stands for
        in either direction; None where the source is not whole, and `decode` knows whether it can be repaired.

    Raises:
        ImageError: It takes too much memory, or cannot be decoded.
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
    """Returns the image as a person sees it.

    Args:
        source: Of any format.
        min_size: Where positive, both sides may be reduced to not less than this many pixels, if that is cheap.

    Raises:
        ImageError: It is not an image, not whole, or too large.
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
    """Returns the image, and how its file was repaired, in words: the decoder stops at one thing after the other."""
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
    """Raises ImageError for a JPEG that is left to Pillow, where it has what Pillow would not mind or not fit in."""
    if not header.is_tidy:
        raise ImageError("corrupt JPEG: junk between its segments, or no end")
    check_memory(len(source.data) + header.buffer_bytes + 4 * header.height * header.width)
    if warning := jpeg.first_warning(source.data, header):
        raise ImageError(f"corrupt JPEG: {warning}")
