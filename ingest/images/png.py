"""Recognizes PNG files that every decoder decodes alike, so that their bytes can be stored unchanged."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

START = b"\x89PNG\r\n\x1a\n"

_END, _PROFILE = b"IEND", b"iCCP"
_MAX_PROFILE_BYTES = 4 << 20
_BYTES_AT_A_TIME = 1 << 20  # Chunk size of decompression: there may be hundreds of millions of pixels.
# Bit depth, color type (gray or RGB), compression, filter, interlacing.
_PLAIN = ([8, 0, 0, 0, 0], [8, 2, 0, 0, 0])
# Decoders differ in transparency and animation.
_NEEDED, _TELLING = {b"IDAT", _END}, {b"IDAT", _END, b"tRNS", b"acTL"}
_MAY_TURN = {b"eXIf", b"iTXt", b"zTXt", b"tEXt"}
_TEXTS_THAT_MAY_TURN = (b"XML:com.adobe.xmp\0", b"Raw profile type ")


class Chunk(NamedTuple):
    """A chunk: its content is from `start` to before `end`, followed by its checksum."""

    name: bytes
    start: int
    end: int


class Header(NamedTuple):
    """The properties of a PNG from its chunks, without decoding pixels.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        is_plain: Whether it is 8-bit gray or RGB, not interlaced, opaque, not animated, and has all its chunks.
        is_tidy: Whether there are no EXIF or XMP data, which may have an orientation.
        profile: The ICC profile of its colors; empty if there is none.
    """

    height: int
    width: int
    is_plain: bool
    is_tidy: bool
    profile: bytes = b""


def read_header(data: bytes) -> Header | None:
    """Returns the header, or None if the file does not start with a valid IHDR chunk."""
    names, is_tidy, profile = set(), True, b""
    for chunk in _chunks(data):
        names |= {chunk.name} & _TELLING  # Not all: a hostile file may have millions.
        is_tidy = is_tidy and not _may_turn(data, chunk)
        if chunk.name == _PROFILE and not profile:
            profile = _unpack_profile(data[chunk.start : chunk.end])
    first = next(_chunks(data), None)
    if first is None or (first.name, first.end - first.start) != (b"IHDR", 13) or not _is_right(data, first):
        return None
    width, height, *layout = struct.unpack_from(">IIBBBBB", data, first.start)
    is_plain = layout in _PLAIN and height > 0 and width > 0 and names == _NEEDED
    return Header(height, width, is_plain, is_tidy, profile)


def is_whole(data: bytes) -> bool:
    """Whether a plain PNG is intact: all checksums match, and it has exactly the pixels that the header says.

    Pillow ignores surplus pixels, and checksums of chunks that it does not need.
    """
    width, height, _, color = struct.unpack_from(">IIBB", data, next(_chunks(data)).start)
    num_bytes = height * (1 + width * (3 if color == 2 else 1))
    pixels = (memoryview(data)[start:end] for name, start, end in _chunks(data) if name == b"IDAT")
    return all(_is_right(data, chunk) for chunk in _chunks(data)) and _holds(pixels, num_bytes)


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Yields the chunks up to the end, or up to the first incomplete one."""
    position = len(START)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        chunk = Chunk(data[position + 4 : position + 8], position + 8, end)
        yield chunk
        if chunk.name == _END:
            return
        position = end + 4


def _is_right(data: bytes, chunk: Chunk) -> bool:
    checked = memoryview(data)[chunk.start - 4 : chunk.end]
    return zlib.crc32(checked) == int.from_bytes(data[chunk.end : chunk.end + 4], "big")


def _unpack_profile(content: bytes) -> bytes:
    """Returns the profile of a chunk with a name, a zero, the method, and compressed bytes; empty if it is corrupt."""
    _, _, packed = content.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""


def _may_turn(data: bytes, chunk: Chunk) -> bool:
    if chunk.name not in _MAY_TURN:
        return False
    return chunk.name == b"eXIf" or data.startswith(_TEXTS_THAT_MAY_TURN, chunk.start)


def _holds(parts: Iterator[memoryview], num_bytes: int) -> bool:
    """Whether the compressed `parts` end after exactly `num_bytes`; does not decompress more than that."""
    stream = zlib.decompressobj()
    found = 0
    try:
        for part in parts:
            packed: bytes | memoryview = part
            while packed:
                found += len(stream.decompress(packed, _BYTES_AT_A_TIME))
                if found > num_bytes:
                    return False
                packed = stream.unconsumed_tail
        found += len(stream.flush())
    except zlib.error:
        return False
    return stream.eof and found == num_bytes
