"""Reads a shard and compares it with the metadata: the part of `verify` that runs in worker processes."""

import dataclasses
import hashlib
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from shardstream.ingest.common.errors import is_machine_error
from shardstream.ingest.common.retries import retry_transient
from shardstream.ingest.common.safe_files import open_regular
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import index_rows
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import ShardInfo
from shardstream.ingest.dataset.records import RecordError, decode_example, read_records
from shardstream.ingest.execution.crashes import MAX_SECS_PER_ITEM, REASON, AttemptLog, run_isolated
from shardstream.ingest.images.decode import ImageError, check_whole, decode, read_source
from shardstream.ingest.images.settings import ImageSettings

_READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class ShardExpectation:
    """A file to check, and its expected content.

    Attributes:
        path: Path of the file.
        shard: Its expected description.
        max_bytes: Size of the largest shard of the dataset: a larger file is none of them, and is not read.
        rows: Its rows of the index, `INDEX_DTYPE` [num_examples]; None if there is no index to compare with.
        num_classes: The number of classes.
        image: How images are stored.
        deep: Whether to decode every image.
        log: Path of the log of the worker's current record; None if no image is decoded.
        crashing: The indices of records whose images crashed two worker processes.
    """

    path: Path
    shard: ShardInfo
    max_bytes: int
    rows: np.ndarray | None
    num_classes: int
    image: ImageSettings
    deep: bool
    log: Path | None = None
    crashing: frozenset[int] = frozenset()


class ShardError(NamedTuple):
    """An error: the file of the dataset, the description, and the index of the record if a single one is at fault."""

    filename: str
    what: str
    record: int | None = None


class CheckedShard(NamedTuple):
    """The result of checking a file.

    Attributes:
        shard: Its expected description.
        sha256: SHA-256 of the file, in hexadecimal; empty if it cannot be read or is too large.
        faults: All errors in it.
    """

    shard: ShardInfo
    sha256: str
    faults: list[ShardError]


class _Found(NamedTuple):
    num_bytes: int
    sha256: str
    num_examples: int  # Number of intact records before the first corrupt one.
    rows: np.ndarray  # The rows that the index should have.
    bad_record: str  # The error of the first corrupt record.


def check_shard(check: ShardExpectation) -> CheckedShard:
    """Reads a file once, or twice if it is intact and images are decoded."""
    shard = check.shard
    try:
        num_bytes = retry_transient(check.path.stat).st_size
        if num_bytes > check.max_bytes:
            return CheckedShard(shard, "", [_too_large(shard, num_bytes)])
        found = retry_transient(lambda: _read(check.path))
        if found.sha256 != shard.sha256:
            faults = [_difference(found, shard, check.rows)]
        else:
            faults = [
                *_wrong_description(found, shard, check.rows),
                *(_check_pictures(check) if check.deep else ()),
            ]
    except FileNotFoundError:
        return CheckedShard(shard, "", [ShardError(shard.filename, "missing")])
    except OSError as error:
        if is_machine_error(error):
            raise
        return CheckedShard(shard, "", [ShardError(shard.filename, f"cannot be read: {error.strerror}")])
    return CheckedShard(shard, found.sha256, faults)


class _HashedReader(io.BufferedReader):
    """A file that is hashed while it is read sequentially."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(cast(io.FileIO, file), _READ_BYTES)
        self.digest = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.digest.update(content)
        return content


def _read(path: Path) -> _Found:
    num_examples, bad_record = 0, ""
    offsets: list[int] = []
    checksums: list[bytes] = []
    with open_regular(path, buffering=0) as raw, _HashedReader(raw) as file:
        try:
            for record in read_records(file):
                offsets.append(record.offset)
                checksums.append(record.checksum)
                num_examples += 1
        except RecordError as error:
            bad_record = str(error)
            while file.read(_READ_BYTES):
                pass  # Completes the hash.
        return _Found(
            num_bytes=file.tell(),
            sha256=file.digest.hexdigest(),
            num_examples=num_examples,
            rows=index_rows(offsets, checksums),
            bad_record=bad_record,
        )


def _difference(found: _Found, shard: ShardInfo, rows: np.ndarray | None) -> ShardError:
    """Describes how a file with a hash mismatch differs from the expected one."""
    counts = f"{found.num_examples} records, expected {shard.num_examples}"
    num_rows = min(found.num_examples, shard.num_examples)
    starts_alike = rows is None or bool((found.rows[:num_rows] == rows[:num_rows]).all())
    if found.num_examples >= shard.num_examples and found.num_bytes > shard.num_bytes and starts_alike:
        return _too_large(shard, found.num_bytes)
    if found.bad_record:
        return ShardError(shard.filename, found.bad_record, found.num_examples)
    if found.num_examples < shard.num_examples and found.num_bytes < shard.num_bytes and starts_alike:
        what = f"{counts}: cut between two records, or foreign"
    else:
        what = f"foreign: its records are whole, but it is no file of this dataset ({counts})"
    return ShardError(shard.filename, what)


def _too_large(shard: ShardInfo, num_bytes: int) -> ShardError:
    too_many = num_bytes - shard.num_bytes
    return ShardError(shard.filename, f"{too_many} bytes too many, behind its last record or foreign")


def _wrong_description(found: _Found, shard: ShardInfo, rows: np.ndarray | None) -> Iterator[ShardError]:
    """Yields incorrect metadata of a file whose hash is correct."""
    for name, stated, counted in (
        ("num_examples", shard.num_examples, found.num_examples),
        ("num_bytes", shard.num_bytes, found.num_bytes),
    ):
        if stated != counted:
            yield ShardError(METADATA, f"{name} of {shard.filename}: {stated}, it has {counted}")
    if rows is not None and not np.array_equal(rows, found.rows):
        yield ShardError(
            INDEX, f"rows of {shard.filename}: its records are elsewhere or have other checksums"
        )


def check_shard_alone(check: ShardExpectation) -> CheckedShard:
    """Checks a shard whose worker died, in its own processes: an image that crashes two of them is an error."""
    return run_isolated(
        check_shard,
        check,
        log=check.log or Path(os.devnull),
        without=lambda check, items: dataclasses.replace(check, crashing=items),
    )


def _check_pictures(check: ShardExpectation) -> Iterator[ShardError]:
    if check.log is None:
        return
    with open_regular(check.path, buffering=_READ_BYTES) as file, AttemptLog(check.log) as attempts:
        for number, record in enumerate(read_records(file)):
            where = f"record {number} at byte {record.offset}"
            if number in check.crashing:
                yield ShardError(check.shard.filename, f"{where}: its image {REASON}", number)
                continue
            attempts.note(number)
            # A hung decoder runs no Python handlers: the alarm kills the process, and the log names the record.
            signal.alarm(MAX_SECS_PER_ITEM)
            faults = list(_check_picture(check, record.payload))
            signal.alarm(0)
            for what in faults:
                yield ShardError(check.shard.filename, f"{where}: {what}", number)


def _check_picture(check: ShardExpectation, payload: bytes) -> Iterator[str]:
    try:
        features = decode_example(payload)
        label, image = features["label"], features["image"]
        size = features["image/height"], features["image/width"]
    except RecordError as error:
        yield str(error)
        return
    except KeyError as error:
        yield f"no feature {error}"
        return
    if not (isinstance(label, int) and 0 <= label < check.num_classes):
        yield f"label {label}, there are {check.num_classes} classes"
    try:
        found = _picture_size(bytes(image), check.image)
    except ImageError as error:
        yield str(error)
        return
    if found != size:
        yield f"an image of {found[1]}x{found[0]}, the record says {size[1]}x{size[0]}"


def _picture_size(image: bytes, settings: ImageSettings) -> tuple[int, int]:
    if settings.encoding == "raw" and settings.size:
        if len(image) != settings.size**2 * 3:
            raise ImageError(f"{len(image)} raw bytes")
        return settings.size, settings.size
    suffix = ".png" if image.startswith(b"\x89PNG") else ".jpg"
    source = read_source(image, suffix, max_pixels=1 << 40)
    if source.clean_size and check_whole(source):
        return source.clean_size
    decoded = decode(source)
    return decoded.height, decoded.width
