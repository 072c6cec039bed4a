"""The reduce step: which record goes into which file, and the files themselves."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ingest.catalog import Catalog, shuffled_rows
from ingest.errors import DatasetError
from ingest.metadata import RECORDS_PER_BLOCK, ShardInfo
from ingest.records import RecordError, encode_entries, encode_example, frame, unframe
from ingest.splits import SPLIT_NAMES

_BUFFER_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class ShardSpec:
    """A shard to be written: the records it will hold, in order, and where their pictures are.

    Attributes:
        path: Of the file to write.
        split: The name of its split.
        sources: The files of pictures that are read.
        source_numbers: For each record an index into `sources`, int [records].
        offsets: And the offset there, uint64 [records].
        lengths: And the bytes there, framing included, uint32 [records].
        labels: The class of each record, uint16 [records].
    """

    path: Path
    split: str
    sources: Sequence[Path]
    source_numbers: npt.NDArray[np.intp]
    offsets: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.uint32]
    labels: npt.NDArray[np.uint16]


def shard_filename(name: str, split: str, number: int, num_shards: int) -> str:
    """Returns the name that TensorFlow Datasets expects a shard to have."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{num_shards:05d}"


def shard_sizes(num_examples: int, num_shards: int) -> list[int]:
    """Returns the number of records in each shard: as equal as can be, the first ones get the remainder."""
    size, remainder = divmod(num_examples, num_shards)
    return [size + (number < remainder) for number in range(num_shards)]


def plan_shards(catalog: Catalog, folder: Path, *, name: str, seed: int, shard_bytes: int) -> list[ShardSpec]:
    """Returns the shards of all splits, and notes in `catalog` where each record goes.

    A shard has about `shard_bytes`, and no split has an empty shard.
    """
    specs = []
    for split in SPLIT_NAMES:
        rows = shuffled_rows(catalog, split, seed=seed)
        num_bytes = int(catalog.lengths[rows].sum(dtype=np.int64))
        num_shards = min(len(rows), max(1, round(num_bytes / shard_bytes)))
        start = 0
        for number, size in enumerate(shard_sizes(len(rows), num_shards) if len(rows) else []):
            chosen = rows[start : start + size]
            catalog.shards[chosen] = number
            catalog.positions[chosen] = np.arange(size)
            path = folder / shard_filename(name, split, number, num_shards)
            specs.append(_spec(catalog, chosen, path, split))
            start += size
    return specs


def write_shard(spec: ShardSpec) -> ShardInfo:
    """Writes one shard and returns its description.

    Raises:
        DatasetError: A picture that the map step had written is damaged.
    """
    with spec.path.open("wb", buffering=_BUFFER_BYTES) as file:
        info = _write_records(spec, file)
        file.flush()
        os.fsync(file.fileno())
    return info


def _spec(catalog: Catalog, rows: npt.NDArray[np.intp], path: Path, split: str) -> ShardSpec:
    units, source_numbers = np.unique(catalog.unit_numbers[rows], return_inverse=True)
    return ShardSpec(
        path=path,
        split=split,
        sources=[catalog.units[unit].pictures_path for unit in units],
        source_numbers=source_numbers,
        offsets=catalog.offsets[rows],
        lengths=catalog.lengths[rows],
        labels=catalog.labels[rows],
    )


def _write_records(spec: ShardSpec, file: BinaryIO) -> ShardInfo:
    digest = hashlib.sha256()
    block_offsets: list[int] = []
    num_bytes = 0
    with _Pictures(spec.sources) as pictures:
        for record in range(len(spec.labels)):
            if record % RECORDS_PER_BLOCK == 0:
                block_offsets.append(num_bytes)
            entries = pictures.read(
                int(spec.source_numbers[record]), int(spec.offsets[record]), int(spec.lengths[record])
            )
            # "label" sorts behind every "image...", so the entries stay in the order of their names.
            framed = frame(encode_example(entries + encode_entries({"label": int(spec.labels[record])})))
            file.write(framed)
            digest.update(framed)
            num_bytes += len(framed)
    return ShardInfo(
        filename=spec.path.name,
        num_examples=len(spec.labels),
        num_bytes=num_bytes,
        sha256=digest.hexdigest(),
        block_offsets=tuple(block_offsets),
    )


class _Pictures:
    """Random reads from many files, of which few are kept open."""

    _MAX_OPEN = 64

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: dict[int, int] = {}

    def __enter__(self) -> "_Pictures":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def read(self, number: int, offset: int, length: int) -> bytes:
        framed = os.pread(self._descriptor(number), length, offset)
        try:
            return unframe(framed)
        except RecordError as error:
            raise DatasetError(
                f"{self._paths[number]}: at byte {offset}: {error}; work in progress was damaged: remove the file "
                f"and {self._paths[number].with_suffix('.verdicts').name}, and start the same command again"
            ) from None

    def _descriptor(self, number: int) -> int:
        if number not in self._open:
            if len(self._open) >= self._MAX_OPEN:
                oldest = next(iter(self._open))
                os.close(self._open.pop(oldest))
            self._open[number] = os.open(self._paths[number], os.O_RDONLY)
        return self._open[number]
