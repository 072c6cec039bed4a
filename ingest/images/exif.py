"""Reads the orientation, 1 to 8, from EXIF or XMP data.

Only this tag is needed, and Pillow takes 0.1 ms to parse the EXIF header, a seventh of the total cost of an image. Like
a browser, and unlike Pillow, this ignores all other tags, so that a corrupt one does no harm.
"""

import re
import struct

UPRIGHT = 1

_TAG = 0x0112
_BYTE_ORDERS = {
    b"II*\0": "<",
    b"II\0*": "<",
    b"MM\0*": ">",
    b"MM*\0": ">",
}  # Some writers also swap the bytes of the mark.
_INTEGERS = {
    3: "H",
    4: "I",
    8: "h",
    9: "i",
}  # SHORT is correct, but other types occur. By type number of TIFF 6.0.
_XMP = re.compile(rb"tiff:Orientation(?:=\"|>)([0-9])")


def read_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Returns the orientation, 1 to 8; 1 if it is missing or invalid.

    Args:
        exif: A TIFF header with its first directory, with or without a leading "Exif"; empty if there is none.
        xmp: XMP text, used if EXIF has no orientation; empty if there is none.
    """
    orientation = _in_tiff(exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0"))
    if orientation is None and (found := _XMP.search(xmp)):
        orientation = int(found[1])
    return orientation if orientation and 1 <= orientation <= 8 else UPRIGHT


def _in_tiff(tiff: bytes) -> int | None:
    """Returns the orientation in the first directory, or None. Source: TIFF 6.0, section 2."""
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    num_entries = int.from_bytes(tiff[start : start + 2], "little" if order == "<" else "big")
    entries = tiff[start + 2 : start + 2 + 12 * num_entries]
    for tag, kind, count, value in struct.iter_unpack(f"{order}HHI4s", entries[: len(entries) // 12 * 12]):
        if tag == _TAG and kind in _INTEGERS:
            return struct.unpack_from(order + _INTEGERS[kind], value)[0] if count == 1 else None
    return None
