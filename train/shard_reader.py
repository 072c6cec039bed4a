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

from ingest.metadata import SplitInfo
from ingest.records import CHECKSUM_BYTES, FRAMING_BYTES, HEADER_BYTES, block_checksum
from train.order import Blocks

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
        except ValueError as error:
            # Where the next one begins is not known: what is left of the block goes with it.
            return records + [str(error)] * (count - len(records))
        end = position - CHECKSUM_BYTES
        if position > len(block):
            records.append("is cut short")
        elif _CHECKSUM.unpack_from(payloads, end)[0] != _masked_crc(block[start:end]):
            records.append("has a wrong checksum of its content")
        else:
            records.append(payloads[start:end])
            checksums.append(payloads[end:position])
    if len(checksums) < count:
        return records
    is_right = position == len(out) and block_checksum(checksums) == blocks.checksums[row]
    return records if is_right else [_FOREIGN] * count


def find_records(path: Path, offset: int, length: int, count: int) -> list[tuple[int, memoryview]]:
    """Returns where in a block each record ends, and its checksum, as far as that can be known."""
    block = _read(path, offset, np.empty(length, np.uint8))
    found: list[tuple[int, memoryview]] = []
    end = 0
    try:
        while len(found) < count:
            end += _framed_length(block, end)
            found.append((end, block.data[end - CHECKSUM_BYTES : end]))
    except ValueError:
        pass  # From here on all are bad.
    return found


def _read(path: Path, offset: int, out: np.ndarray) -> np.ndarray:
    """Fills `out` from there on, and returns the part of it that was filled: less if the file ends before."""
    descriptor = os.open(path, os.O_RDONLY)
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
