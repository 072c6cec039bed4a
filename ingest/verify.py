"""Is the dataset what its metadata say? Reads everything, and names what is damaged, missing or foreign."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

from ingest.decode import RejectedError, decode
from ingest.engine import run_all
from ingest.manifest import FILENAME as MANIFEST
from ingest.metadata import FILENAME as METADATA
from ingest.metadata import RECORDS_PER_BLOCK, DatasetInfo, ImageSettings, ShardInfo
from ingest.progress import progress
from ingest.records import RecordError, decode_example, read_records
from ingest.tfds_files import FILENAMES as TFDS_FILES

_READ_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        filename: Inside the dataset folder.
        what: What is wrong with it.
    """

    filename: str
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class _ShardCheck:
    path: Path
    shard: ShardInfo
    num_classes: int
    image: ImageSettings
    deep: bool


def verify_dataset(data_dir: Path, *, deep: bool, workers: int) -> list[Damage]:
    """Returns all that is wrong with the dataset in `data_dir`; nothing if it is whole.

    Args:
        data_dir: The dataset folder.
        deep: Whether every picture is decoded as well.
        workers: How many processes read.

    Raises:
        DatasetError: Its metadata cannot be read, so there is nothing to compare with.
    """
    info = DatasetInfo.load(data_dir)
    damages = [*_check_names(info), *_check_manifest(info)]
    damages += _check_shards(info, deep, workers)
    return sorted(damages, key=lambda damage: damage.filename)


def _check_shards(info: DatasetInfo, deep: bool, workers: int) -> Iterator[Damage]:
    checks = [
        _ShardCheck(info.data_dir / shard.filename, shard, info.num_classes, info.image, deep)
        for split in info.splits.values()
        for shard in split.shards
    ]
    with progress("verifying", sum(check.shard.num_examples for check in checks), "records") as advance:
        for num_examples, damages in run_all(_check_shard, checks, workers=workers, alone=_check_shard):
            advance(num_examples)
            yield from damages


def _check_names(info: DatasetInfo) -> Iterator[Damage]:
    shards = {shard.filename for split in info.splits.values() for shard in split.shards}
    expected = shards | {METADATA, MANIFEST, *TFDS_FILES}
    found = {path.name for path in info.data_dir.iterdir()}
    for name in sorted(expected - shards - found):
        yield Damage(name, "missing")
    for name in sorted(found - expected):
        if ".tfrecord" in name:
            yield Damage(name, "not a shard of this dataset")


def _check_manifest(info: DatasetInfo) -> Iterator[Damage]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = info.data_dir / MANIFEST
    if not path.exists():
        return  # Said already.
    try:
        num_rows = pq.read_table(path, columns=["verdict"]).num_rows
    except (pa.ArrowException, OSError) as error:
        yield Damage(MANIFEST, f"cannot be read: {' '.join(str(error).split())[:120]}")
        return
    if num_rows != sum(info.verdicts.values()):
        yield Damage(MANIFEST, f"{num_rows} files, metadata says {sum(info.verdicts.values())}")


def _check_shard(check: _ShardCheck) -> tuple[int, list[Damage]]:
    name = check.shard.filename
    try:
        whats = [*_check_file(check)] or [*_check_records(check)]
    except FileNotFoundError:
        whats = ["missing"]
    except (OSError, RecordError) as error:
        whats = [str(error)]
    return check.shard.num_examples, [Damage(name, what) for what in whats]


def _check_file(check: _ShardCheck) -> Iterator[str]:
    """Yields what is wrong with the file as a whole. Its hash is right only if every byte of it is."""
    num_bytes = check.path.stat().st_size
    with check.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 == check.shard.sha256:
        return
    try:
        num_examples = _count_records(check.path)
    except RecordError as error:
        yield str(error)
        return
    if num_examples != check.shard.num_examples:
        yield f"{num_examples} records, metadata says {check.shard.num_examples}: cut between two records, or foreign"
    else:
        yield f"whole, but another file than metadata says ({num_bytes} bytes, expected {check.shard.num_bytes})"


def _check_records(check: _ShardCheck) -> Iterator[str]:
    """Yields where the metadata or, if deep, the pictures do not fit the records of a file with the right hash."""
    offsets = []
    number = 0
    with check.path.open("rb", buffering=_READ_BYTES) as file:
        for number, record in enumerate(read_records(file), start=1):
            if (number - 1) % RECORDS_PER_BLOCK == 0:
                offsets.append(record.offset)
            if check.deep:
                yield from _check_picture(check, number - 1, record.payload)
    if number != check.shard.num_examples:
        yield f"{number} records, metadata says {check.shard.num_examples}"
    if tuple(offsets) != check.shard.block_offsets:
        yield "its records start elsewhere than the block offsets in metadata.json say"


def _check_picture(check: _ShardCheck, number: int, payload: bytes) -> Iterator[str]:
    try:
        features = decode_example(payload)
        label, image = features["label"], features["image"]
        size = features["image/height"], features["image/width"]
    except (RecordError, KeyError) as error:
        yield f"record {number}: {error}"
        return
    if not (isinstance(label, int) and 0 <= label < check.num_classes):
        yield f"record {number}: label {label}, there are {check.num_classes} classes"
    try:
        found = _picture_size(bytes(image), check.image)
    except RejectedError as error:
        yield f"record {number}: {error}"
        return
    if found != size:
        yield f"record {number}: a picture of {found[1]}x{found[0]}, the record says {size[1]}x{size[0]}"


def _picture_size(image: bytes, settings: ImageSettings) -> tuple[int, int]:
    if settings.encoding == "raw" and settings.size:
        if len(image) != settings.size**2 * 3:
            raise RejectedError(f"{len(image)} raw bytes")
        return settings.size, settings.size
    suffix = ".png" if image.startswith(b"\x89PNG") else ".jpg"
    decoded = decode(image, suffix, min_size=0, max_pixels=1 << 40)
    return decoded.height, decoded.width


def _count_records(path: Path) -> int:
    with path.open("rb", buffering=_READ_BYTES) as file:
        return sum(1 for _ in read_records(file))
