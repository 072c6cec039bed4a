"""Records out of shards, block by block, each of them checked: what is not as it was written never gets further.

Not TensorFlow's reader: that copies each record three times more, holds no place in the file to name in an error, and
its errors do not say which file they are about.
"""

import os
import struct
from pathlib import Path

import google_crc32c

from ingest.records import FRAMING_BYTES, HEADER_BYTES

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def read_block(path: Path, offset: int, length: int, count: int) -> list[bytes | str]:
    """Returns `count` records, each its payload, or in words what is wrong with it.

    Args:
        path: Of the shard.
        offset: Where the first of the records begins, in bytes.
        length: Of all of them together, in bytes.
        count: How many there are.
    """
    try:
        block = _read(path, offset, length)
    except OSError as error:
        return [f"cannot be read: {error.strerror}"] * count
    records: list[bytes | str] = []
    position = 0
    for _ in range(count):
        try:
            end = position + _framed_length(block, position)
        except ValueError as error:
            # Where the next one begins is not known: what is left of the block goes with it.
            return records + [str(error)] * (count - len(records))
        records.append(_payload(block, position, end) if end <= len(block) else "is cut short")
        position = end
    if position < length and isinstance(records[-1], bytes):
        records[-1] = "ends before the place where the next one was written: another file than it was"
    return records


def record_starts(path: Path, offset: int, length: int, count: int) -> list[int]:
    """Returns where in a block its records begin and, last, where the last one ends, as far as that can be known."""
    block = _read(path, offset, length)
    starts = [0]
    try:
        while len(starts) <= count:
            starts.append(starts[-1] + _framed_length(block, starts[-1]))
    except ValueError:
        pass  # From here on all are bad.
    return starts


def _read(path: Path, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        block = os.pread(descriptor, length, offset)
        while len(block) < length and (
            more := os.pread(descriptor, length - len(block), offset + len(block))
        ):
            block += more
        return block
    finally:
        os.close(descriptor)


def _framed_length(block: bytes, position: int) -> int:
    header = block[position : position + HEADER_BYTES]
    if len(header) < HEADER_BYTES:
        raise ValueError("is cut off")
    length, crc = _HEADER.unpack(header)
    if crc != _masked_crc(header[:8]):
        raise ValueError("has a wrong checksum of its length")
    return FRAMING_BYTES + length


def _payload(block: bytes, position: int, end: int) -> bytes | str:
    payload = block[position + HEADER_BYTES : end - _FOOTER.size]
    if _FOOTER.unpack_from(block, end - _FOOTER.size)[0] != _masked_crc(payload):
        return "has a wrong checksum of its content"
    return payload


def _masked_crc(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
