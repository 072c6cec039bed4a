"""Records out of shards, block by block, each of them checked: what is not as it was written never gets further.

A record has a checksum. That it is the right one, at its place, the checksum of its block says, which is kept with the
description of the dataset: a file of another place or dataset is whole, too.

Not TensorFlow's reader: that copies each record three times more, holds no place in the file to name in an error, and
its errors do not say which file they are about.
"""

import os
import struct
from pathlib import Path

import google_crc32c
import numpy as np

from shardstream.ingest.dataset.metadata import SplitInfo
from shardstream.ingest.dataset.records import CHECKSUM_BYTES, FRAMING_BYTES, HEADER_BYTES, block_checksum
from shardstream.train.data.order import Blocks

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_FOREIGN = "is another one than was written here: a foreign or swapped shard"


def read_block(
    data_dir: Path, split: SplitInfo, blocks: Blocks, row: int, out: np.ndarray | None = None
) -> list[memoryview | str]:
    """Returns the records of one block: of each a view of its payload, or in words what is wrong with it.

    Args:
        data_dir: The folder of the dataset.
        split: Whose shards `blocks` are of.
        blocks: Among others the one.
        row: Which it is.
        out: uint8 of its length, where it is to be read to.
    """
    out = np.empty(blocks.lengths[row], np.uint8) if out is None else out
    count = int(blocks.counts[row])
    try:
        block = _read(data_dir / split.shards[blocks.shards[row]].filename, int(blocks.offsets[row]), out)
    except OSError as error:
        return [f"cannot be read: {error.strerror}"] * count
    payloads = block.data
    records: list[memoryview | str] = []
    checksums: list[memoryview] = []
    position = 0
    for _ in range(count):
        try:
            start, position = position + HEADER_BYTES, position + _framed_length(block, position)
        except ValueError:
            return _read_damaged(block, len(out), count, int(blocks.checksums[row]))
        end = position - CHECKSUM_BYTES
        records.append(_payload(block, start, end))
        if not isinstance(records[-1], str):
            checksums.append(payloads[end:position])
    if len(checksums) < count:
        return records
    is_right = position == len(out) and block_checksum(checksums) == blocks.checksums[row]
    return records if is_right else [_FOREIGN] * count


def find_records(
    path: Path, offset: int, length: int, count: int, checksum: int
) -> list[tuple[int, memoryview]]:
    """Returns where in a block each record ends, and its checksum, as far as that can be known."""
    block = _read(path, offset, np.empty(length, np.uint8))
    ends = _find_ends(block, length, count, checksum)
    return [(end, block.data[end - CHECKSUM_BYTES : end]) for end in ends]


def _read_damaged(block: np.ndarray, length: int, count: int, checksum: int) -> list[memoryview | str]:
    """Returns the records of a block in which the length of one is damaged."""
    ends = _find_ends(block, length, count, checksum)
    records = [_record(block, start, end) for start, end in zip([0, *ends], ends, strict=False)]
    if len(records) < count:
        # Where the next one begins is not known: what is left of the block goes with it.
        rest = _record(block, ends[-1] if ends else 0, length)
        records += [rest] * (count - len(records))
    return records


def _find_ends(block: np.ndarray, length: int, count: int, checksum: int) -> list[int]:
    """Returns where the records of a block end, as far as that can be known.

    Behind a record whose length is damaged the next one is looked for. What is found is believed if all records end
    where the block does, and their checksums are those that it had: then each is the one that was written there.
    """
    ends: list[int] = []
    num_certain = count
    while len(ends) < count:
        start = ends[-1] if ends else 0
        try:
            ends.append(start + _framed_length(block, start))
        except ValueError:
            num_certain = min(num_certain, len(ends))
            ends.append(length if len(ends) == count - 1 else _next_start(block, start + FRAMING_BYTES))
        if ends[-1] > len(block):
            return ends[:num_certain] if num_certain < count else ends
    checksums = [block.data[end - CHECKSUM_BYTES : end] for end in ends]
    is_right = ends[-1] == length and block_checksum(checksums) == checksum
    return ends if is_right else ends[:num_certain]


def _next_start(block: np.ndarray, start: int) -> int:
    """Returns where from `start` on a record may begin: where there is a length with its checksum."""
    starts = np.arange(start, len(block) - FRAMING_BYTES)
    # No record has 4 GB: the upper half of its length is 0. Else each byte would take Python a third of a microsecond.
    may_begin = np.logical_and.reduce([block[starts + byte] == 0 for byte in range(4, 8)])
    for position in starts[may_begin].tolist():
        length, crc = _HEADER.unpack_from(block.data, position)
        if length <= len(block) - position - FRAMING_BYTES and crc == _masked_crc(
            block[position : position + 8]
        ):
            return position
    return len(block) + 1


def _record(block: np.ndarray, start: int, end: int) -> memoryview | str:
    try:
        _framed_length(block, start)
    except ValueError as error:
        return str(error)
    return _payload(block, start + HEADER_BYTES, end - CHECKSUM_BYTES)


def _payload(block: np.ndarray, start: int, end: int) -> memoryview | str:
    if end + CHECKSUM_BYTES > len(block):
        return "is cut short"
    if _CHECKSUM.unpack_from(block.data, end)[0] != _masked_crc(block[start:end]):
        return "has a wrong checksum of its content"
    return block.data[start:end]


def _read(path: Path, offset: int, out: np.ndarray) -> np.ndarray:
    """Fills `out` from there on, and returns the part of it that was filled: less if the file ends before."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # A pipe would be waited for.
    try:
        done = 0
        while done < len(out) and (more := os.preadv(descriptor, [out[done:].data], offset + done)):
            done += more
        return out[:done]
    finally:
        os.close(descriptor)


def _framed_length(block: np.ndarray, position: int) -> int:
    if position + HEADER_BYTES > len(block):
        raise ValueError("is cut off")
    length, crc = _HEADER.unpack_from(block.data, position)
    if crc != _masked_crc(block[position : position + 8]):
        raise ValueError("has a wrong checksum of its length")
    return FRAMING_BYTES + length


def _masked_crc(content: np.ndarray) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
