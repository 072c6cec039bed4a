"""Some features of a serialized Example, found without copying or decoding the others.

`ingest.records.decode_example` gives all of an Example of ours, in five times the time; this one also reads those of
other programs, where a feature may have any number of values.
"""

from collections.abc import Container

from shardstream.ingest.dataset.records import RecordError, read_varint

Feature = memoryview | int

_KEY, _VALUE = 0x0A, 0x12  # The tags of a map entry: field 1 and 2, with a length.
_BYTES_LIST, _INT64_LIST = 0x0A, 0x1A
_VARINT = 0x08


def find_features(payload: bytes | memoryview, names: Container[bytes]) -> dict[bytes, Feature]:
    """Returns those features of an Example that have one of the `names` and exactly one value: bytes or a number.

    The bytes are a view of `payload`.

    Raises:
        RecordError: It is no Example.
    """
    found: dict[bytes, Feature] = {}
    try:
        # Example { Features features = 1 }, Features { map<string, Feature> feature = 1 }.
        position, end = _enter(payload, 0, _KEY)
        while position < end:
            entry, position = _enter(payload, position, _KEY)
            key, value = _enter(payload, entry, _KEY)
            name = bytes(payload[key:value])
            if name in names:
                feature = _single(payload, *_enter(payload, value, _VALUE))
                if feature is not None:
                    found[name] = feature
    except (IndexError, ValueError):
        raise RecordError("is no tf.train.Example") from None
    return found


def _enter(message: bytes | memoryview, position: int, tag: int) -> tuple[int, int]:
    """Returns where the content of the field at `position` begins and ends, if it has that tag."""
    if message[position] != tag:
        raise ValueError
    length = message[position + 1]
    position += 2
    if length >= 0x80:
        length, position = read_varint(message, position - 1)
    if position + length > len(message):
        raise ValueError
    return position, position + length


def _single(message: bytes | memoryview, position: int, end: int) -> Feature | None:
    """Returns the value of a Feature that has one."""
    if position == end:
        return None
    kind = message[position]
    start, stop = _enter(message, position, kind)
    if start == stop:
        return None
    if kind == _BYTES_LIST:
        first, last = _enter(message, start, 0x0A)
        return memoryview(message)[first:last] if last == stop else None
    if kind != _INT64_LIST:
        return None
    if message[start] != _VARINT:  # Packed, as everybody writes it.
        start, _ = _enter(message, start, 0x0A)
    else:
        start += 1
    number, after = read_varint(message, start)
    return number - (number >> 63 << 64) if after == stop else None
