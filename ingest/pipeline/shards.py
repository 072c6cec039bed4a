"""The reduce step: which record goes into which file, and the files themselves."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
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
from shardstream.ingest.dataset.split_hash import SPLIT_NAMES
from shardstream.ingest.dataset.validation import shard_filename
from shardstream.ingest.execution.processes import run_alone
from shardstream.ingest.pipeline.catalog import Catalog, shuffled_rows


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSpec:
    """A shard to be written: the records it will hold, in order, and where they are now.

    Attributes:
        path: Of the file to write.
        split: The name of its split.
        sources: The files that are read.
        source_numbers: For each record an index into `sources`, uint32 [records].
        offsets: And the offset there, uint64 [records].
        lengths: And the bytes there, framing included, uint32 [records].
        digests: SHA-256 of the file that each record was made of, uint64 [records, 4].
        labels: The class of each record, uint32 [records].
    """

    path: Path
    split: str
    sources: Sequence[str]
    source_numbers: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]
    digests: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.uint32]


def shard_sizes(num_examples: int, num_shards: int) -> list[int]:
    """Returns the number of records in each shard: as equal as can be, the first ones get the remainder."""
    size, remainder = divmod(num_examples, num_shards)
    return [size + (number < remainder) for number in range(num_shards)]


class ShardPlan:
    """The shards of all splits, each spelled out when it is asked for."""

    def __init__(self, catalog: Catalog, folder: Path, *, name: str, seed: int, shard_bytes: int) -> None:
        """Plans shards of about `shard_bytes`, none of them empty, and notes in `catalog` where each record goes."""
        self._catalog = catalog
        self._shards: list[tuple[Path, str, npt.NDArray[np.uint32]]] = []
        for split in SPLIT_NAMES:
            rows = shuffled_rows(catalog, split, seed=seed)
            num_bytes = int(catalog.lengths[rows].sum(dtype=np.int64))
            num_shards = min(len(rows), max(1, round(num_bytes / shard_bytes)))
            start = 0
            for number, size in enumerate(shard_sizes(len(rows), num_shards) if num_shards else []):
                chosen = rows[start : start + size]
                catalog.shards[chosen] = number
                catalog.positions[chosen] = np.arange(size)
                self._shards.append((folder / shard_filename(name, split, number, num_shards), split, chosen))
                start += size

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[ShardSpec]:
        return (make_spec(self._catalog, rows, path, split) for path, split, rows in self._shards)

    @property
    def num_records(self) -> int:
        """The number of records in all shards."""
        return sum(len(rows) for _, _, rows in self._shards)

    def first_rows(self) -> dict[str, int]:
        """Returns the row of the index at which each shard begins, by the name of its file."""
        ends = itertools.accumulate((len(rows) for _, _, rows in self._shards), initial=0)
        return {path.name: first for (path, _, _), first in zip(self._shards, ends, strict=False)}

    def filenames(self, split: str) -> list[str]:
        """Returns the names of the shards of `split`, in order."""
        return [path.name for path, of_split, _ in self._shards if of_split == split]


def make_spec(catalog: Catalog, rows: npt.NDArray[np.uint32], path: Path, split: str) -> ShardSpec:
    """Returns the shard that holds the records of `rows`, in this order."""
    sources, source_numbers = np.unique(catalog.source_numbers[rows], return_inverse=True)
    return ShardSpec(
        path=path,
        split=split,
        sources=[catalog.sources[source] for source in sources],
        source_numbers=source_numbers.astype(np.uint32),
        offsets=catalog.offsets[rows],
        lengths=catalog.lengths[rows],
        digests=catalog.digests[rows],
        labels=catalog.labels[rows],
    )


class WrittenShard(NamedTuple):
    """A shard that was written: its description, and the rows of the index, `INDEX_DTYPE` [num_examples]."""

    info: ShardInfo
    rows: npt.NDArray[np.void]


def write_shard(spec: ShardSpec) -> WrittenShard:
    """Writes one shard and returns what it is.

    Raises:
        DatasetError: A record that is to be copied is damaged, or is another one than expected.
    """
    with open_atomic(spec.path) as file, HashingWriter(file) as writer:
        return _write_records(spec, writer)


def write_shard_alone(spec: ShardSpec) -> WrittenShard:
    """Writes a shard whose worker died, in a process of its own.

    Raises:
        MachineError: That died as well.
    """
    try:
        return run_alone(write_shard, spec)
    except BrokenExecutor:
        raise MachineError(
            f"{spec.path.name}: the process that wrote it died twice, most often because memory ran out; the same "
            "command resumes, and fewer --workers need less memory"
        ) from None


def _write_records(spec: ShardSpec, writer: HashingWriter) -> WrittenShard:
    offsets: list[int] = []
    checksums: list[bytes] = []
    sha256s = spec.digests.astype(">u8").tobytes().hex().encode()
    with _Sources(spec.sources) as sources:
        for record, label in enumerate(spec.labels.tolist()):
            offsets.append(writer.num_bytes)
            place = spec.source_numbers[record], spec.offsets[record], spec.lengths[record]
            framed, payload = sources.read(*map(int, place), sha256=sha256s[64 * record : 64 * (record + 1)])
            labelled = with_label(payload, label)
            if labelled is not payload:  # The order of the classes is another one than when it was judged.
                framed = frame(labelled)
            writer.write(framed)
            checksums.append(framed[-CHECKSUM_BYTES:])
    sha256 = writer.finish()
    info = ShardInfo(
        filename=spec.path.name, num_examples=len(spec.labels), num_bytes=writer.num_bytes, sha256=sha256
    )
    return WrittenShard(info, index_rows(offsets, checksums))


class _Sources:
    """Random reads from many files, of which few are kept open."""

    _MAX_OPEN = 64

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: dict[int, int] = {}

    def __enter__(self) -> "_Sources":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, number: int, offset: int, length: int, *, sha256: bytes) -> tuple[bytes, bytes]:
        """Returns a record, framed and bare, if it is whole and of the file with that `sha256`, in hexadecimal."""
        framed = os.pread(self._descriptor(number), length, offset)
        try:
            payload = unframe(framed)
            check_origin(payload, sha256)
        except RecordError as error:
            raise self._damaged(number, offset, str(error)) from None
        return framed, payload

    def _damaged(self, number: int, offset: int, what: str) -> DatasetError:
        path = Path(self._paths[number])
        if path.suffix == ".pictures":
            remedy = "work in progress was damaged: the same command, started again, makes it anew"
        else:
            remedy = "repair the dataset with `shardstream-ingest repair` first"
        return DatasetError(f"{path}: at byte {offset}: {what}; {remedy}")

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            if len(self._open) >= self._MAX_OPEN:
                oldest = next(iter(self._open))
                os.close(self._open.pop(oldest))
            self._open[number] = os.open(self._paths[number], os.O_RDONLY)
        return self._open[number]
