"""File type detection: image suffixes, and signatures of unsupported formats, for the reason of a rejection."""

import struct
from collections.abc import Iterator

# The usual suffixes of each image format.
SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".dib", ".bmp"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "AVIF": {".avif", ".avifs"},
    "HEIF": {".heic", ".heif", ".hif", ".heics", ".heifs"},
    "JPEG2000": {".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"},
    "ICO": {".ico"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}
# Brands of ISO media files (ISO/IEC 14496-12), at byte 8 behind "ftyp".
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_VIDEO_BRANDS = (
    b"mp4",
    b"iso",
    b"M4V",
    b"qt  ",
    b"avc1",
    b"3gp",
    b"3g2",
    b"MSNV",
    b"dash",
    b"f4v",
    b"XAVC",
    b"mmp4",
)
_CONVERT = "; convert it to JPEG"
_RAW = "no decoder: a camera's raw file; convert it to JPEG"
# Offset, first bytes there, and the reason.
_MARKS = (
    (4, b"ftypcrx ", _RAW),
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIRO", _RAW),
    (0, b"IIRS", _RAW),
    (0, b"MMOR", _RAW),
    (0, b"IIU\0", _RAW),
    (0, b"II\x1a\0\0\0HEAPCCDR", _RAW),
    (0, b"FOVb", _RAW),
    (0, b"\0MRM", _RAW),
    (4, b"JXL ", f"no decoder: JPEG XL{_CONVERT}"),
    (0, b"\xff\x0a", f"no decoder: JPEG XL's bare stream{_CONVERT}"),
    (0, b"II\xbc\x01", f"no decoder: JPEG XR{_CONVERT}"),
    (0, b"qoif", f"no decoder: QOI{_CONVERT}"),
    (0, b"8BPS", f"no decoder: Photoshop's own format{_CONVERT}"),
    (0, b"gimp xcf", f"no decoder: GIMP's own format{_CONVERT}"),
    (0, b"\x76\x2f\x31\x01", f"no decoder: OpenEXR{_CONVERT}"),
    (0, b"#?RADIANCE", f"no decoder: Radiance HDR{_CONVERT}"),
    (0, b"SIMPLE  =", f"no decoder: FITS{_CONVERT}"),
    (0, b"%PDF", f"no decoder: PDF{_CONVERT}"),
    (0, b"%!PS", f"no decoder: PostScript{_CONVERT}"),
    (128, b"DICM", "no decoder: DICOM; export it as PNG with the window that people look at it with"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer in place of the file: run `git lfs pull` where it was cloned",
    ),
    (
        0,
        b"/annex/objects/",
        "a git-annex pointer in place of the file: run `git annex get` where it was cloned",
    ),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM): export its frames as images"),
    (8, b"AVI ", "a video (AVI): export its frames as images"),
    (8, b"WAVE", "not an image: a sound file"),
    (0, b"\0\0\x01\xba", "a video (MPEG): export its frames as images"),
    (4, b"moov", "a video (QuickTime): export its frames as images"),
    (4, b"mdat", "a video (QuickTime): export its frames as images"),
    (0, b"PK\x03\x04", "an archive (ZIP, or an office document): unpack it"),
    (0, b"Rar!", "an archive (RAR): unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z): unpack it"),
    (0, b"\x1f\x8b", "an archive (gzip): unpack it"),
    (257, b"ustar", "an archive (tar): unpack it"),
    (0, b"\x93NUMPY", "not an image: a NumPy array"),
    (0, b"\x89HDF", "not an image: HDF5"),
    (0, b"PAR1", "not an image: Parquet"),
)
_TEXTS = (
    (
        (b"<!doctype html", b"<html", b"<head"),
        "not an image: a web page (HTML), such as an error in place of a download",
    ),
    ((b"<svg",), "no decoder: SVG, a drawing without pixels; export it as PNG"),
    ((b"{", b"["), "not an image: text (JSON)"),
)
_TEXT_BYTES = 1024

# TIFF tags and values. Source: TIFF 6.0; TIFF/EP; DNG 1.6; libtiff's tiff.h.
_SUBFILE, _WIDTH, _LENGTH, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 259, 262
_SUB_IFDS, _DNG_VERSION = 330, 50706
_SENSOR_PHOTOMETRICS = {32803, 34892}
_SENSOR_COMPRESSIONS = {262, 32767, 32769, 32770, 34713, 65000, 65535}
_RAW_SUFFIXES = (
    ".3fr .arw .cr2 .dcr .dng .erf .iiq .k25 .kdc .mef .mos .nef .nrw .pef .raw .rwl .sr2 .srf .srw"
)
_MAX_ENTRIES, _MAX_SUB_IFDS = 4096, 16


def describe_unreadable(data: bytes) -> str:
    """Returns why a file that no decoder supports was rejected."""
    if data[4:8] == b"ftyp":
        if data[8:12] in HEIF_BRANDS:
            return "no decoder: HEIC; pip install pillow-heif, or convert it to JPEG"
        if data.startswith(_VIDEO_BRANDS, 8):
            return "a video (MP4 or QuickTime): export its frames as images"
    for offset, mark, reason in _MARKS:
        if data.startswith(mark, offset):
            return reason
    if data[:1] in (b"\0", b"\xff") and not data.strip(data[:1]):
        return f"not an image: {len(data):,} bytes of {data[0]}, as an interrupted copy or a failing disk leaves them"
    text = _start_of_text(data)
    for marks, reason in _TEXTS:
        if text.startswith(marks):
            return reason
    if text.startswith((b"<?xml", b"<!--", b"<!doctype svg")):
        return _TEXTS[1][1] if b"<svg" in text else "not an image: text (XML)"
    # Its content is not quoted: a link may point to a private file.
    if text and all(32 <= byte < 127 or byte in b"\t\r\n" or byte >= 128 for byte in text[:_TEXT_BYTES]):
        return "not an image: text"
    return f"not an image: it starts with the bytes {data[:4].hex(' ')}"


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIC or another image in HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS


def is_camera_raw(data: bytes, suffix: str) -> bool:
    """Whether a TIFF is a camera raw file, whose first image is only a preview."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return False
    if (suffix and suffix.lower() in _RAW_SUFFIXES.split()) or data[8:10] == b"CR":
        return True
    first = _read_ifd(data, struct.unpack_from(f"{order}I", data, 4)[0], order)
    if _DNG_VERSION in first or _is_sensor(first):
        return True
    subs = [_read_ifd(data, offset, order) for offset in first.get(_SUB_IFDS, ())[:_MAX_SUB_IFDS]]
    if not subs:
        return False
    is_preview = bool(_value(first, _SUBFILE) & 1)
    return any(
        _is_sensor(sub) or (is_preview and not _value(sub, _SUBFILE) & 1) or _area(sub) > _area(first)
        for sub in subs
    )


def _start_of_text(data: bytes) -> bytes:
    start = data[: 2 * _TEXT_BYTES]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        start = start.decode("utf-16", "ignore").encode()
    return start.removeprefix(b"\xef\xbb\xbf").lstrip()[:_TEXT_BYTES].lower()


def _is_sensor(ifd: dict[int, tuple[int, ...]]) -> bool:
    return (
        _value(ifd, _PHOTOMETRIC) in _SENSOR_PHOTOMETRICS or _value(ifd, _COMPRESSION) in _SENSOR_COMPRESSIONS
    )


def _area(ifd: dict[int, tuple[int, ...]]) -> int:
    return _value(ifd, _WIDTH) * _value(ifd, _LENGTH)


def _value(ifd: dict[int, tuple[int, ...]], tag: int) -> int:
    return next(iter(ifd.get(tag, ())), 0)


def _read_ifd(data: bytes, offset: int, order: str) -> dict[int, tuple[int, ...]]:
    """Returns the integer values of a TIFF directory by tag, without those that lie outside the file."""
    if not 8 <= offset <= len(data) - 2:
        return {}
    (num_entries,) = struct.unpack_from(f"{order}H", data, offset)
    ifd: dict[int, tuple[int, ...]] = {}
    for tag, numbers in _entries(data, offset + 2, min(num_entries, _MAX_ENTRIES), order):
        ifd.setdefault(tag, numbers)
    return ifd


def _entries(data: bytes, start: int, num_entries: int, order: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    for position in range(start, min(start + 12 * num_entries, len(data) - 11), 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, position)
        letter, size = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4)}.get(kind, ("", 1))
        if not letter or not 1 <= count <= _MAX_SUB_IFDS:
            continue
        at = position + 8
        if count * size > 4:
            (at,) = struct.unpack_from(f"{order}I", data, at)
        if at + count * size <= len(data):
            yield tag, struct.unpack_from(f"{order}{count}{letter}", data, at)
