"""JPEG without mercy: a picture whose data are not whole is refused, not painted grey.

libjpeg goes on after most errors and only counts a warning, and so OpenCV, Pillow and TensorFlow show pictures
with grey or shifted halves. libjpeg-turbo's own interface (simplejpeg) can stop at the first warning.
Some warnings are harmless: junk between the segments of the header, a missing end mark, padding before it.
Those are mended by leaving the junk out, and the result has to pass the same strict decode.
"""

import re

import numpy as np
import numpy.typing as npt
import simplejpeg

RgbImage = npt.NDArray[np.uint8]

MAX_SIDE = 65_500  # Pixels; libjpeg's own limit.

_START, _END = b"\xff\xd8", b"\xff\xd9"
_PROGRESSIVE = b"\xff\xc2"
_SCAN, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_UNKNOWN_SAMPLING = "Could not determine subsampling"


class JpegError(Exception):
    """The data are not a whole JPEG picture."""


class UnusualJpegError(JpegError):
    """The decoder does not know this kind of JPEG, which says nothing about its data."""


def read_size(data: bytes) -> tuple[int, int, bool]:
    """Returns height, width and whether the colours are CMYK, from the header alone.

    Raises:
        JpegError: There is no such header.
    """
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise _as_jpeg_error(error) from None
    return int(height), int(width), colorspace in {"CMYK", "YCCK"}


def decode(data: bytes, *, min_size: int = 0) -> RgbImage:
    """Returns the picture as RGB, uint8 [height, width, 3].

    Args:
        data: A JPEG with one or three components.
        min_size: Where positive, a picture that is at least twice as large is made smaller while it is decoded,
            which is cheaper and smooth; both sides keep at least so many pixels.

    Raises:
        JpegError: libjpeg had an error or a warning.
    """
    return _decode(data, "RGB", min_size)


def check_cmyk(data: bytes) -> None:
    """Decodes a CMYK or YCCK JPEG to see whether it is whole.

    Raises:
        JpegError: libjpeg had an error or a warning.
    """
    _decode(data, "CMYK", 0)


def encode(image: RgbImage, quality: int) -> bytes:
    """Returns `image`, uint8 [height, width, 3], as a JPEG with halved colour resolution (4:2:0)."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420", False)


def mend(data: bytes, error: JpegError) -> bytes:
    """Returns `data` without what is not needed to decode it, and with an end mark.

    Args:
        data: A JPEG that `decode` refused.
        error: Why it did.
    """
    header, scans = _split_header(data)
    end = scans.rfind(_END)
    if end < 0 and _PROGRESSIVE in header:
        return data  # Nothing would tell whether the last scans, the fine detail, are missing.
    scans = scans[:end] if end >= 0 else scans
    padding = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(error))
    if padding and len(set(scans[-int(padding[1]) :])) == 1:
        scans = scans[: -int(padding[1])]
    return _START + header + scans + _END


def _decode(data: bytes, colorspace: str, min_size: int) -> RgbImage:
    try:
        height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
        if min(height, width) < 2 * min_size:
            min_size = 0  # Shrinking by 7/8 costs more than it saves, and blurs.
        return simplejpeg.decode_jpeg(
            data,
            colorspace,
            fastdct=False,
            fastupsample=False,
            min_height=min_size,
            min_width=min_size,
            strict=True,
        )
    except ValueError as error:
        raise _as_jpeg_error(error) from None


def _as_jpeg_error(error: ValueError) -> JpegError:
    message = str(error).strip()
    return UnusualJpegError(message) if _UNKNOWN_SAMPLING in message else JpegError(message)


def _split_header(data: bytes) -> tuple[bytes, bytes]:
    """Returns the segments before the first scan that a decoder needs, and all from the first scan on."""
    kept = bytearray()
    position = len(_START)
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == _SCAN:
            return bytes(kept), data[position:]
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD9:  # Junk, or marks that carry no segment.
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if _is_needed(marker):
            kept += data[position:end]
        position = end
    return bytes(kept), b""


def _is_needed(marker: int) -> bool:
    # Of the application segments only JFIF's and Adobe's tell how the colours are meant.
    return marker in {_APP0, _APP14} or not (_APP1 <= marker <= _APP15 or marker == _COMMENT)
