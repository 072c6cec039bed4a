"""Record offsets and labels of TFDS shards: scanned once, then kept in the cache folder.

TFDS stores neither. A scan reads the record headers and the labels, and skips the images.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shardstream.ingest.common.atomic_io import open_atomic_nosync
from shardstream.ingest.common.errors import DatasetError
from shardstream.ingest.dataset.index import scan_shard
from shardstream.ingest.dataset.metadata import ShardInfo
from shardstream.ingest.dataset.records import (
    FRAMING_BYTES,
    HEADER_BYTES,
    RecordError,
    decode_example,
    encode_example,
    read_varint,
)
from shardstream.train.data.split_index import SplitIndex

logger = logging.getLogger(__name__)

REPAIR_HINT = "make or download the dataset again"
NO_LABEL = -1  # Written by TFDS into the test splits of competitions.

# The fields of INDEX_DTYPE, so that code for those accepts these rows, plus the label.
ROW_DTYPE = np.dtype([("offset", "<i8"), ("checksum", "<u4"), ("label", "<i4")])

_VERSION = 3
# A scan is mostly waiting for the file system.
_SCAN_THREADS = 8
# Small records are read completely; images of megabytes are skipped.
_BUFFER_BYTES = 1 << 14
_MAX_VARINT_BYTES = 10
_FIELD_1 = (
    0x0A  # The tag of field 1 with a length: Example.features, Features.feature, and the key of a map entry.
)


def labels_of(index: SplitIndex) -> np.ndarray:
    """Returns the label of each example of a split, int32; NO_LABEL if it has none."""
    labels = index.records["label"]
    return labels if index.selected is None else labels[index.selected]


def check_labels(index: SplitIndex) -> None:
    """Raises a DatasetError that names the first record of a split without a label."""
    unlabelled = np.flatnonzero(labels_of(index) == NO_LABEL)[:1]
    if len(unlabelled):
        found = index.locate(int(unlabelled[0]))
        raise DatasetError(
            f"{index.path(found.shard)}: record {found.number} has no label (-1); only splits whose records all have "
            "a label can be used"
        )


def load_rows(
    data_dir: Path, shards: Sequence[ShardInfo], label_key: str, num_classes: int, *, cache_dir: Path
) -> np.ndarray:
    """Returns the `ROW_DTYPE` rows of these files, from the cache if possible, else from a scan.

    Raises:
        DatasetError: A file is missing, does not match its metadata, or has a label that is out of range.
    """
    path = cache_dir / "indexes" / f"{_cache_key(data_dir, shards, label_key, num_classes)}.npy"
    rows = _load_cached(path, shards, num_classes)
    if rows is not None:
        return rows
    num_examples = sum(shard.num_examples for shard in shards)
    logger.info(
        "%s: reads the headers of %s records once, to find them by number from now on",
        data_dir,
        f"{num_examples:,}",
    )
    with ThreadPoolExecutor(_SCAN_THREADS) as threads:
        parts = threads.map(
            lambda shard: _scan(data_dir / shard.filename, shard, label_key, num_classes), shards
        )
        rows = np.concatenate(list(parts))
    _save(path, rows)
    return rows


def _cache_key(data_dir: Path, shards: Sequence[ShardInfo], label_key: str, num_classes: int) -> str:
    digest = hashlib.sha256(repr((_VERSION, label_key, num_classes)).encode())
    for shard in shards:
        path = data_dir.absolute() / shard.filename
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise DatasetError(f"{path}: no such shard; {REPAIR_HINT}") from None
        key = (os.fsencode(path), shard.num_examples, stat.st_size, stat.st_mtime_ns)
        digest.update(repr(key).encode())
    return digest.hexdigest()[:32]


def _load_cached(path: Path, shards: Sequence[ShardInfo], num_classes: int) -> np.ndarray | None:
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    # A corrupt header makes its parser raise any of ValueError, EOFError, SyntaxError, TokenError.
    except Exception as error:
        logger.warning("%s: cannot be read (%s); the shards are scanned again", path, str(error)[:80])
        return None
    if not _is_valid(rows, shards, num_classes):
        logger.warning("%s: not the index of these shards; they are scanned again", path)
        return None
    return rows


def _is_valid(rows: object, shards: Sequence[ShardInfo], num_classes: int) -> bool:
    num_examples = sum(shard.num_examples for shard in shards)
    if not isinstance(rows, np.ndarray) or rows.dtype != ROW_DTYPE or rows.shape != (num_examples,):
        return False
    if num_examples and not NO_LABEL <= rows["label"].min() <= rows["label"].max() < num_classes:
        return False
    first = 0
    for shard in shards:
        offsets = rows["offset"][first : first + shard.num_examples]
        if offsets[0] or (np.diff(offsets) < FRAMING_BYTES).any():
            return False
        if offsets[-1] > shard.num_bytes - FRAMING_BYTES:
            return False
        first += shard.num_examples
    return True


def _save(path: Path, rows: np.ndarray) -> None:
    """Writes the index; if that fails, the shards are scanned again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not synced: NumPy compares the size with the header, and the content is checked on reading.
        with open_atomic_nosync(path) as file:
            np.save(file, rows, allow_pickle=False)
    except OSError as error:
        logger.warning(
            "%s: cannot be written (%s): the shards are scanned again next time", path, error.strerror
        )


def _scan(path: Path, shard: ShardInfo, label_key: str, num_classes: int) -> np.ndarray:
    index = scan_shard(path, shard, REPAIR_HINT)
    rows = np.empty(len(index), ROW_DTYPE)
    rows["offset"], rows["checksum"] = index["offset"], index["checksum"]
    ends = np.append(index["offset"][1:], shard.num_bytes)
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        for number, (start, end) in enumerate(zip(index["offset"].tolist(), ends.tolist(), strict=True)):
            label = _read_label(file, start, end, label_key)
            if label is None:
                raise DatasetError(
                    f"{path}: record {number} is not a tf.train.Example with one number as {label_key!r}; {REPAIR_HINT}"
                )
            if not NO_LABEL <= label < num_classes:
                raise DatasetError(
                    f"{path}: record {number} has the label {label}, but there are {num_classes} classes; {REPAIR_HINT}"
                )
            rows["label"][number] = label
    return rows


def _read_label(file: BinaryIO, start: int, end: int, key: str) -> int | None:
    """Returns the label of the record at these bytes, or None unless it has exactly one."""
    with contextlib.suppress(IndexError, ValueError, RecordError):
        entry = _find_entry(file, start + HEADER_BYTES, end - (FRAMING_BYTES - HEADER_BYTES), key.encode())
        label = decode_example(encode_example(entry)).get(key)
        if isinstance(label, int):
            return label - (label >> 63 << 64)  # Negative numbers are stored as two's complement.
    return None


def _find_entry(file: BinaryIO, position: int, end: int, key: bytes) -> bytes:
    """Returns the serialized map entry of feature `key` in the Example at these bytes.

    Raises:
        ValueError: There is none, it is too long for a single number, or these bytes are not an Example.
    """
    head_bytes = 2 * (1 + _MAX_VARINT_BYTES) + len(key)
    position, features_end = _enter(_read(file, position, head_bytes), position, end)
    if features_end != end:
        raise ValueError("more than an Example")
    while position < end:
        head = _read(file, position, head_bytes)
        start, entry_end = _enter(head, position, end)
        name, name_end = _enter(head[start - position :], start, entry_end)
        if name_end - name == len(key) and head[name - position : name_end - position] == key:
            if entry_end - name_end > 4 * _MAX_VARINT_BYTES:
                raise ValueError("more than one number")
            return _read(file, position, entry_end - position)
        position = entry_end
    raise ValueError("no such feature")


def _read(file: BinaryIO, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)


def _enter(head: bytes, position: int, end: int) -> tuple[int, int]:
    """Returns start and end of the content of the field that starts with `head` at `position`."""
    if head[0] != _FIELD_1:
        raise ValueError("another field")
    length, header_bytes = read_varint(head[: 1 + _MAX_VARINT_BYTES], 1)
    start = position + header_bytes
    if start + length > end:
        raise ValueError("longer than its message")
    return start, start + length
