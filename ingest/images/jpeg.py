"""Strict JPEG decoding: truncated or corrupt data is an error instead of gray pixels.

libjpeg continues after most errors with a warning, so OpenCV, Pillow and TensorFlow return images with gray or shifted
halves. libjpeg-turbo's own interface (simplejpeg) can stop at the first warning. Some warnings are harmless: junk
between header segments, a missing end marker, padding before it. Those are repaired by removing the junk, and the
result must pass the same strict decode.
"""

import os
import re
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from shardstream.ingest.images.exif import UPRIGHT, read_orientation

GrayImage = npt.NDArray[np.uint8]
RgbImage = npt.NDArray[np.uint8]

START = b"\xff\xd8"
MAX_SIDE = 65_500  # Pixels; libjpeg's own limit.

_END = b"\xff\xd9"
_SCAN, _APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_SCAN_MARK = b"\xff\xda"
_MAX_SCANS = 100
_MAX_EXIF_SEGMENTS = 64
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _MAX_PROFILE_PARTS = b"ICC_PROFILE\0", 255
# The start-of-frame markers by required decoder features. Source: ITU-T T.81, table B.1; T.87 for JPEG-LS.
_EVERYDAY = {0xC0, 0xC1, 0xC2}  # Baseline, extended, progressive; Huffman coding.
_PROGRESSIVE = {0xC2, 0xCA}
_LOSSLESS = 0xC3
_SELDOM = {_LOSSLESS: "lossless coding", 0xC9: "arithmetic coding", 0xCA: "arithmetic coding"}
_JPEG_LS = 0xF7
# All except the markers of Huffman tables and arithmetic tables, and a reserved one.
_FRAMES = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}
_UNKNOWN_SAMPLING = "Could not determine subsampling"
_UNKNOWN_TRANSFORM = "Unknown Adobe color transform"
_UNKNOWN_JFIF = "unknown JFIF revision"

_STDERR = threading.Lock()
_ROWS_TO_SEE = 32  # Minimum side of the gray image that `check` returns.


class JpegError(Exception):
    """The data are not an intact JPEG image."""


class UnusualJpegError(JpegError):
    """The decoder does not support this kind of JPEG; its data may be intact."""


class Header(NamedTuple):
    """The header of a JPEG before its first scan.

    Attributes:
        height: Height as stored, in pixels.
        width: Width as stored, in pixels.
        num_components: 1 for gray, 3 for color, 4 for CMYK or YCCK.
        kind: The second byte of the start-of-frame marker.
        depth: Bits per component.
        orientation: EXIF orientation, 1 to 8.
        buffer_bytes: Bytes that libjpeg buffers while it decodes.
        is_tidy: Whether there are only segments before the first scan, and an end marker after it.
        profile: The ICC profile of its colors; empty if there is none.
    """

    height: int
    width: int
    num_components: int
    kind: int
    depth: int
    orientation: int
    buffer_bytes: int
    is_tidy: bool
    profile: bytes = b""

    @property
    def is_everyday(self) -> bool:
        """Whether every decoder decodes these colors and this coding alike."""
        return self.kind in _EVERYDAY and self.depth == 8 and self.num_components in {1, 3}

    @property
    def oddity(self) -> str:
        """Description of the coding if many decoders do not support it; otherwise empty."""
        return _SELDOM.get(self.kind, "")

    @property
    def missing_decoder(self) -> str:
        """Description of the unsupported feature; empty if the image can be decoded."""
        if self.kind == _JPEG_LS:
            return "JPEG-LS"
        if self.depth != 8:
            return f"a JPEG of {self.depth} bits"
        return "" if self.kind in _EVERYDAY or self.oddity else f"a JPEG of process {self.kind - 0xC0}"


def read_header(data: bytes) -> Header:
    """Returns the header of a JPEG; junk between the segments is skipped.

    Raises:
        JpegError: There is no valid header.
    """
    exif: list[bytes] = []
    profile: list[bytes] = []
    xmp = b""
    kind = frame = frame_end = scan = 0
    is_tidy, position = True, len(START)
    for mark, start, end in _segments(data):
        is_tidy = is_tidy and start == position
        position = end
        if mark == _APP1:
            if data.startswith(_EXIF, start + 4):
                exif.append(data[start + 10 : end] if len(exif) < _MAX_EXIF_SEGMENTS else b"")
            elif data.startswith(_XMP, start + 4):
                xmp = data[start:end]
        elif mark == _APP2 and data.startswith(_ICC, start + 4) and len(profile) < _MAX_PROFILE_PARTS:
            profile.append(
                data[start + 4 + len(_ICC) : end]
            )  # Number of the part, number of parts, the part.
        elif mark in _FRAMES:
            kind, frame, frame_end = mark, start, end
        elif mark == _SCAN:
            scan = start
    if not frame or frame_end - frame < 10 or not scan or scan + 5 > len(data):
        raise JpegError("not even its header can be read")
    depth, height, width, num_components = struct.unpack_from(">BHHB", data, frame + 4)
    if height == 0 or width == 0:
        raise JpegError("a side of 0 pixels")
    # Each scan costs a pass over the complete image, and may be as short as 32 bytes.
    end = data.find(_END, scan) if kind in _PROGRESSIVE else scan
    if (num_scans := data.count(_SCAN_MARK, scan, end if end >= 0 else len(data))) > _MAX_SCANS:
        raise JpegError(f"{num_scans:,} scans, an encoder writes about 10")
    is_all_in_first_scan = kind not in _PROGRESSIVE and data[scan + 4] == num_components
    shares = data[frame + 11 : frame_end : 3]
    return Header(
        height,
        width,
        num_components,
        kind,
        depth,
        orientation=read_orientation(b"".join(exif), xmp) if exif or xmp else UPRIGHT,
        buffer_bytes=0 if is_all_in_first_scan else 2 * _num_samples(shares, height * width),
        is_tidy=is_tidy and data.rfind(_END, position) > 0,
        profile=b"".join(part[2:] for part in sorted(profile, key=lambda part: part[:1])),
    )


def check(data: bytes, header: Header) -> tuple[GrayImage, int]:
    """Decodes a gray or color JPEG to its end, and returns a small gray image and its reduction factor.

    As strict as a full-size color decode, in 0.6 of its time: libjpeg's warnings come from entropy decoding, which is
    complete here too. The verdicts on 300,000 mutations of 637 JPEGs of all kinds were identical.

    Returns:
        uint8 [ceil(height / n), ceil(width / n)], and n, one of 8, 4, 2, 1: the largest that keeps 32 pixels per side.

    Raises:
        JpegError: libjpeg had an error or a warning.
    """
    shorter = min(header.height, header.width)
    cells = () if header.kind == _LOSSLESS else (8, 4, 2)
    cell = next((cell for cell in cells if shorter >= cell * _ROWS_TO_SEE), 1)
    return _decode(data, "GRAY", -(-header.height // cell), -(-header.width // cell))[:, :, 0], cell


def decode(data: bytes, header: Header, *, min_size: int = 0) -> RgbImage:
    """Returns the image as RGB, uint8 [height, width, 3].

    Args:
        data: A JPEG.
        header: The header of `data`.
        min_size: If positive, an image that is at least twice as large is reduced while it is decoded, which is cheaper
            and smooth; both sides keep at least this many pixels.

    Raises:
        JpegError: libjpeg had an error or a warning.
    """
    min_size = _worthwhile(min_size, header)
    if header.num_components == 4:
        return _cmyk_to_rgb(_decode(data, "CMYK", min_size, min_size))
    if header.num_components == 1:
        gray = _decode(data, "GRAY", min_size, min_size)
        return np.repeat(gray, 3, axis=2)
    return _decode(data, "RGB", min_size, min_size)


def decoding_bytes(header: Header, *, min_size: int = 0) -> int:
    """Returns the peak memory of `decode`, in bytes."""
    size = _worthwhile(min_size, header)
    eighths = -(-8 * size // min(header.height, header.width)) if size else 8
    num_pixels = header.height * header.width * eighths**2 // 64
    return max(
        header.buffer_bytes + header.num_components * num_pixels, (header.num_components + 3) * num_pixels
    )


def encode(image: RgbImage, quality: int, *, halve_colors: bool) -> bytes:
    """Returns `image`, uint8 [height, width, 3], as a JPEG, with half the resolution for its colors (4:2:0) or not."""
    sampling = "420" if halve_colors else "444"
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", sampling, False)


def repair(data: bytes, error: JpegError) -> tuple[bytes, str]:
    """Returns `data` without harmless junk and with an end marker, and a description of the repair.

    Args:
        data: A rejected JPEG.
        error: Why it was rejected.
    """
    if _UNKNOWN_TRANSFORM in str(error):
        # libjpeg then assumes the usual color transform, as do decoders that find no marker.
        return _without_adobe_transform(data), "unknown color transform read as the usual one"
    if _UNKNOWN_JFIF in str(error):
        return _with_jfif_version(data), "unknown version of JFIF read as 1.2"
    return _without_junk(data, error), "left out junk between the segments"


def _without_junk(data: bytes, error: JpegError) -> bytes:
    segments = list(_segments(data))
    header = b"".join(data[start:end] for mark, start, end in segments if _is_needed(mark))
    scans = data[segments[-1][1] :] if segments and segments[-1][0] == _SCAN else b""
    end = scans.rfind(_END)
    if end < 0 and any(mark in _PROGRESSIVE for mark, _, _ in segments):
        return data  # It would be unknown whether the last scans, with the fine detail, are missing.
    scans = scans[:end] if end >= 0 else scans
    padding = re.search(r"(\d+) extraneous bytes before marker 0xd9", str(error))
    if padding and len(set(scans[-int(padding[1]) :])) == 1:
        scans = scans[: -int(padding[1])]
    return START + header + scans + _END


def _without_adobe_transform(data: bytes) -> bytes:
    repaired = bytearray(data)
    num_components = read_header(data).num_components
    for mark, start, end in _segments(data):
        if mark == _APP14 and data.startswith(b"Adobe", start + 4) and end - start >= 16:
            repaired[start + 15] = 2 if num_components == 4 else 1  # YCCK or YCbCr.
    return bytes(repaired)


def _with_jfif_version(data: bytes) -> bytes:
    repaired = bytearray(data)
    for mark, start, end in _segments(data):
        if mark == _APP0 and data.startswith(b"JFIF\0", start + 4) and end - start >= 16:
            repaired[start + 9 : start + 11] = b"\1\2"
    return bytes(repaired)


def first_warning(data: bytes, header: Header) -> str:
    """Returns libjpeg's first warning about a JPEG of any sampling; empty if there is none.

    OpenCV decodes all samplings and continues after errors, but libjpeg writes its first warning to stderr.
    """
    import cv2

    # As in `check`: decoding to gray at 1/8 size, if possible, still reads all coded data.
    how = cv2.IMREAD_GRAYSCALE if header.kind == _LOSSLESS else cv2.IMREAD_REDUCED_GRAYSCALE_8
    # stderr belongs to the whole process: other threads that decode such a JPEG wait.
    with _STDERR, open(os.memfd_create("libjpeg"), "rb") as said:  # noqa: PTH123 - It has no path.
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        warning = said.readline().decode(errors="replace").strip()
    return warning or ("cannot be decoded" if picture is None else "")


def _worthwhile(min_size: int, header: Header) -> int:
    # Scaling by 7/8 costs more than it saves, and blurs. Lossless images must not be scaled: libjpeg-turbo 3.1 writes
    # the full image into the small buffer, which crashes the process.
    return 0 if min(header.height, header.width) < 2 * min_size or header.kind == _LOSSLESS else min_size


def _decode(data: bytes, colorspace: str, min_height: int, min_width: int) -> npt.NDArray[np.uint8]:
    try:
        return simplejpeg.decode_jpeg(
            data,
            colorspace,
            fastdct=False,
            fastupsample=False,
            min_height=min_height,
            min_width=min_width,
            strict=True,
        )
    except ValueError as error:
        message = str(error).strip()
        raise (UnusualJpegError if _UNKNOWN_SAMPLING in message else JpegError)(message) from None


def _cmyk_to_rgb(cmyk: npt.NDArray[np.uint8]) -> RgbImage:
    """Converts CMYK as Adobe stores it, inverted, to RGB; in strips, because Pillow copies its input."""
    height, width, _ = cmyk.shape
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, (1 << 20) // width)
    for top in range(0, height, rows):
        strip = cmyk[top : top + rows]
        image = Image.frombuffer("CMYK", (width, len(strip)), strip.tobytes(), "raw", "CMYK;I", 0, 1)
        rgb[top : top + rows] = np.asarray(image.convert("RGB"))
    return rgb


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the segments up to the header of the first scan; skips junk between them."""
    position = len(START)
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        mark = data[position + 1]
        if not 0xC0 <= mark <= 0xFE or 0xD0 <= mark <= 0xD9:  # Junk, or markers without a segment.
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield mark, position, end
        if mark == _SCAN:
            return
        position = end


def _is_needed(mark: int) -> bool:
    # Among application segments only JFIF's and Adobe's define the colors. The scan is not part of the header.
    return mark in {_APP0, _APP14} or not (_APP1 <= mark <= _APP15 or mark in {_COMMENT, _SCAN})


def _num_samples(shares: bytes, num_pixels: int) -> int:
    """Returns the total number of samples of all components, given their sampling factors."""
    factors = [divmod(share, 16) for share in shares]
    largest = max((across for across, _ in factors), default=1) * max(
        (down for _, down in factors), default=1
    )
    return num_pixels * sum(across * down for across, down in factors) // max(1, largest)
