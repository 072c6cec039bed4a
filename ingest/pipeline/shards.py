"""The reduce step: copies records in shard order from the files of the map step or of the previous dataset."""

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shardstream.ingest.common.atomic_io import open_atomic
from shardstream.ingest.common.errors import DatasetError, MachineError
from shardstream.ingest.common.hashing_writer import HashingWriter
from shardstream.ingest.dataset.index import index_rows
from shardstream.ingest.dataset.metadata import ShardInfo
from shardstream.ingest.dataset.records import (
    CHECKSUM_BYTES,
    RecordError,
    check_origin,
    frame,
    unframe,
    with_label,
)
from shardstream.ingest.execution.base import Result, Task
from shardstream.ingest.execution.processes import run_alone
from shardstream.ingest.pipeline.record_reads import RecordPlaces, read_records


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSpec:
    """A shard to write: its records in order, and their current locations.

    Attributes:
        path: Path of the file to write.
        places: Locations of the records.
        digests: SHA-256 of the source file of each record, uint64 [records, 4].
        labels: The class of each record, uint32 [records].
    """

    path: Path
    places: RecordPlaces
    digests: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.uint32]


class WrittenShard(NamedTuple):
    """A written shard: its description and its rows of the index, `INDEX_DTYPE` [num_examples]."""

    info: ShardInfo
    rows: npt.NDArray[np.void]


def write_shard(spec: ShardSpec) -> WrittenShard:
    """Writes one shard and returns its description.

    Raises:
        DatasetError: A record to copy is corrupt, or is not the expected one.
    """
    with open_atomic(spec.path) as file, HashingWriter(file) as writer:
        return _write_records(spec, writer)


def write_shard_alone(spec: ShardSpec) -> WrittenShard:
    """Retries a shard whose worker died, in its own process.

    Raises:
        MachineError: That process died as well.
    """
    return run_again(write_shard, spec, spec.path.name)


def run_again(function: Callable[[Task], Result], task: Task, filename: str) -> Result:
    """Retries a task whose worker died while it wrote a file, in its own process.

    Raises:
        MachineError: That process died as well.
    """
    try:
        return run_alone(function, task)
    except BrokenExecutor:
        raise MachineError(
            f"{filename}: the process that wrote it died twice, most often because memory ran out; the same "
            "command resumes, and fewer --workers need less memory"
        ) from None


def read_intact(places: RecordPlaces) -> Iterator[tuple[bytes, bytes]]:
    """Yields each record with and without framing.

    Raises:
        DatasetError: A record is corrupt.
    """
    for record, framed in enumerate(read_records(places)):
        try:
            payload = unframe(framed)
        except RecordError as error:
            raise _damaged(places, record, error) from None
        yield framed, payload


def _write_records(spec: ShardSpec, writer: HashingWriter) -> WrittenShard:
    offsets: list[int] = []
    checksums: list[bytes] = []
    sha256s = spec.digests.astype(">u8").tobytes().hex().encode()
    labels = spec.labels.tolist()
    for record, (framed, payload) in enumerate(read_intact(spec.places)):
        offsets.append(writer.num_bytes)
        try:
            check_origin(payload, sha256s[64 * record : 64 * (record + 1)])
        except RecordError as error:
            raise _damaged(spec.places, record, error) from None
        labelled = with_label(payload, labels[record])
        # The label order may have changed since the record was encoded.
        written = framed if labelled is payload else frame(labelled)
        writer.write(written)
        checksums.append(written[-CHECKSUM_BYTES:])
    sha256 = writer.finish()
    info = ShardInfo(
        filename=spec.path.name, num_examples=len(spec.labels), num_bytes=writer.num_bytes, sha256=sha256
    )
    return WrittenShard(info, index_rows(offsets, checksums))


def _damaged(places: RecordPlaces, record: int, error: RecordError) -> DatasetError:
    source, offset = places.describe(record)
    path = Path(source)
    if path.suffix == ".pictures":
        remedy = "work in progress was damaged: the same command, started again, makes it anew"
    else:
        remedy = "repair the dataset with `shardstream-ingest repair` first"
    return DatasetError(f"{path}: at byte {offset}: {error}; {remedy}")
