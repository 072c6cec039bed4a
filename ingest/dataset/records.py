"""Reads and writes tf.train.Example and TFRecord without TensorFlow, which takes seconds to import.

An Example is a protobuf map of named features:

    Example { features = 1: Features { feature = 1: map<string, Feature> } }
    Feature { bytes_list = 1: BytesList { value = 1 } | int64_list = 3: Int64List { value = 1 } }

A serialized map is the concatenation of its entries, so an Example can be assembled from entries that were encoded at
different times: the map step encodes the features of an image, and the reduce step adds the label. A TFRecord file is a
sequence of records:

    uint64 length | uint32 masked CRC-32C of the length | bytes | uint32 masked CRC-32C of the bytes

Source: github.com/tensorflow/tensorflow, tensorflow/core/example/*.proto, tsl/lib/io/record_writer.h.
"""

import functools
import io
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

Feature = bytes | int

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_LABEL_KEY = b"\x0a\x05label\x12"  # Inside its entry, after a tag and a length.
HEADER_BYTES = _HEADER.size
CHECKSUM_BYTES = _FOOTER.size
FRAMING_BYTES = HEADER_BYTES + CHECKSUM_BYTES
_MAX_VARINT_BYTES = 10


class RecordError(Exception):
    """A record is corrupt. The message has its place in the file and the reason."""


class Record(NamedTuple):
    """A record, its byte offset in the file, and its checksum as stored there."""

    offset: int
    payload: bytes
    checksum: bytes


def encode_entries(features: Mapping[str, Feature]) -> bytes:
    """Returns the map entries of `features` sorted by name.

    Protobuf does not define the order. Its deterministic serializers sort, but the pure Python one puts "image" before
    "image/width" and the faster upb puts it after; this is the order of the former.
    """
    parts: list[bytes] = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, int):
            parts.append(_number_entry(name, value))
        else:
            parts += _entry(name, value)
    return b"".join(parts)


def encode_example(entries: bytes) -> bytes:
    """Returns the serialized Example with `entries`."""
    return _field(1, entries)


def with_label(payload: bytes, label: int) -> bytes:
    """Returns `payload`, an Example whose last entry is its label, with `label`; the same object if unchanged."""
    entry = _number_entry("label", label)
    if payload.endswith(entry):
        return payload
    _, start = read_varint(payload, 1)
    return encode_example(payload[start : payload.rindex(_LABEL_KEY) - 2] + entry)


def relabelled_lengths(
    lengths: npt.NDArray[np.uint32], before: npt.NDArray[np.uint32], after: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint32]:
    """Returns the lengths that framed records get with other labels, uint32 [records].

    Args:
        lengths: The length of each record including framing.
        before: The label in each record.
        after: The label to write.
    """
    # An Example is a tag, the size of its entries as a varint, and the entries. Solves for that size: near a size where
    # the varint grows, the inner step may subtract a byte too many; the outer one is exact.
    outer = lengths.astype(np.int64) - FRAMING_BYTES - 1
    num_bytes = outer - _varint_sizes(outer - _varint_sizes(outer))
    num_bytes += _varint_sizes(after) - _varint_sizes(before)
    return (FRAMING_BYTES + 1 + _varint_sizes(num_bytes) + num_bytes).astype(np.uint32)


def decode_example(payload: bytes) -> dict[str, Feature]:
    """Returns the features of a serialized Example with one value per feature.

    Raises:
        RecordError: The payload is not such an Example.
    """
    try:
        (features,) = (value for number, value in _fields(payload) if number == 1)
        return dict(_decode_entry(entry) for number, entry in _fields(_bytes(features)) if number == 1)
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"not an Example with one value for each feature ({error})") from None


def frame(payload: bytes) -> bytes:
    """Returns `payload` with TFRecord framing."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _FOOTER.pack(_masked_crc(length)), payload, _FOOTER.pack(_masked_crc(payload))))


def read_records(file: BinaryIO) -> Iterator[Record]:
    """Yields the records of a TFRecord file from its current position.

    Raises:
        RecordError: A record is truncated or has a checksum mismatch.
    """
    number = 0
    offset = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(offset)
    while header := file.read(_HEADER.size):
        num_left = end - offset - len(header)
        payload, checksum = _read_payload(file, header, num_left, f"record {number} at byte {offset}")
        yield Record(offset, payload, checksum)
        number += 1
        offset += FRAMING_BYTES + len(payload)


def framed_length(header: bytes) -> int:
    """Returns the size of a record including framing, from its `header` of HEADER_BYTES.

    Raises:
        RecordError: The header is truncated or has a checksum mismatch.
    """
    return FRAMING_BYTES + _checked_length(header, "a record")


def unframe(framed: bytes) -> bytes:
    """Returns the payload of one framed record.

    Raises:
        RecordError: The record is corrupt.
    """
    where = "the record"
    if len(framed) < FRAMING_BYTES:
        raise RecordError(f"{where} is cut short")
    length = _checked_length(framed[: _HEADER.size], where)
    payload = framed[_HEADER.size : -_FOOTER.size]
    if length != len(payload):
        raise RecordError(f"{where} has {len(payload)} bytes, its header says {length}")
    _check_payload(payload, framed[-_FOOTER.size :], where)
    return payload


def check_origin(payload: bytes, sha256: bytes) -> None:
    """Raises RecordError unless `payload` was made from the file with that SHA-256, in hexadecimal."""
    # Searched from the end: all other features follow the image, and take a few hundred bytes plus the path.
    if payload.rfind(sha256) < 0:
        raise RecordError("another record than expected")


def _read_payload(file: BinaryIO, header: bytes, num_left: int, where: str) -> tuple[bytes, bytes]:
    length = _checked_length(header, where)
    if length + _FOOTER.size > num_left:  # Checked before memory is allocated.
        raise RecordError(f"{where} is cut short: {num_left} of {length + _FOOTER.size} bytes")
    rest = file.read(length + _FOOTER.size)
    if len(rest) < length + _FOOTER.size:
        raise RecordError(f"{where} is cut short: {len(rest)} of {length + _FOOTER.size} bytes")
    payload, checksum = rest[:length], rest[length:]
    _check_payload(payload, checksum, where)
    return payload, checksum


def _checked_length(header: bytes, where: str) -> int:
    if len(header) < _HEADER.size:
        raise RecordError(f"{where} is cut short in its header")
    length, crc = _HEADER.unpack(header)
    if crc != _masked_crc(header[:8]):
        raise RecordError(f"{where} has a wrong checksum of its length")
    return length


def _check_payload(payload: bytes, footer: bytes, where: str) -> None:
    if _FOOTER.unpack(footer)[0] != _masked_crc(payload):
        raise RecordError(f"{where} has a wrong checksum of its content")


def _masked_crc(data: bytes) -> int:
    # Masked as the format requires: a CRC of data that contains CRCs has unwanted patterns.
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _entry(name: str, value: bytes, *, kind: int = 1) -> list[bytes]:
    """Returns the parts of a map entry, to join once: an image is not copied for each enclosing message.

    Args:
        name: Name of the feature.
        value: Its bytes; for a number the packed list with it.
        kind: The field number of the list in Feature: 1 for bytes, 3 for numbers.
    """
    parts = [value]
    length = len(value)
    for tag in (1, kind, 2):  # value, bytes_list or int64_list, Feature
        parts.insert(0, _header(tag, length))
        length += len(parts[0])
    key = _key(name)
    return [_header(1, length + len(key)), key, *parts]


@functools.lru_cache(maxsize=4096)  # Few distinct sizes and labels, many records.
def _number_entry(name: str, value: int) -> bytes:
    return b"".join(_entry(name, _varint(value), kind=3))


@functools.cache
def _key(name: str) -> bytes:
    return _field(1, name.encode())


def _decode_entry(entry: int | bytes) -> tuple[str, Feature]:
    parts = dict(_fields(_bytes(entry)))
    ((kind, values),) = _fields(_bytes(parts[2]))
    ((_, value),) = _fields(_bytes(values))
    if kind == 3 and isinstance(value, bytes):
        value = read_varint(value, 0)[0]
    return _bytes(parts[1]).decode(), value


def _field(number: int, content: bytes) -> bytes:
    return _header(number, len(content)) + content


def _header(number: int, length: int) -> bytes:
    return bytes((number << 3 | 2, length)) if length < 0x80 else bytes((number << 3 | 2,)) + _varint(length)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(message):
        key, position = read_varint(message, position)
        value, position = read_varint(message, position)
        if key & 7 == 2:
            position, start = position + value, position
            if position > len(message):
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[start:position]
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise ValueError(f"wire type {key & 7}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_sizes(values: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Returns how many bytes each number takes as a varint."""
    bounds = [1 << bits for bits in range(7, 63, 7)]
    return np.searchsorted(bounds, values, side="right") + 1


def read_varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """Returns the varint at `position`, and the position after it.

    Raises:
        ValueError: It has more bytes than a 64-bit number.
    """
    value = shift = 0
    while shift < 7 * _MAX_VARINT_BYTES:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 10 bytes")


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message was expected")
    return value
