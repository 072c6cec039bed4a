"""Which PNG files every decoder shows alike, so that their bytes can stay as they are."""

import struct
import zlib

START = b"\x89PNG\r\n\x1a\n"


def is_plain(data: bytes) -> bool:
    """Whether the PNG is 8-bit grey or RGB, row by row, opaque and still, and right to the last checksum."""
    position = len(START)
    pixels = b""
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 8 + length
        if (
            end + 4 > len(data)
            or zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]
        ):
            return False
        # Transparency and animation are read differently here and there.
        if name in {b"tRNS", b"acTL"}:
            return False
        if name == b"IDAT":
            pixels += data[position + 8 : end]
        if name == b"IEND":
            return _fills_its_size(data, pixels)
        position = end + 4
    return False


def _fills_its_size(png: bytes, pixels: bytes) -> bool:
    """Whether the compressed `pixels` are as many as the header says; Pillow does not mind too many."""
    width, height, depth, colour, _, _, interlace = struct.unpack_from(">IIBBBBB", png, len(START) + 8)
    if depth != 8 or colour not in (0, 2) or interlace:
        return False
    stream = zlib.decompressobj()
    num_bytes = len(stream.decompress(pixels))
    return stream.eof and num_bytes == height * (1 + width * (3 if colour == 2 else 1))
