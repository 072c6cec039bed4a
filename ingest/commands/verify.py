"""The `verify` command: reads a dataset and reports corrupt, missing and foreign files."""

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from shardstream.ingest.common.atomic_io import file_sha256
from shardstream.ingest.common.errors import DatasetError, is_machine_error
from shardstream.ingest.common.progress import progress
from shardstream.ingest.dataset.corruption import Corruption
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import first_rows, open_index
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FORMAT_VERSION, DatasetInfo, ShardInfo
from shardstream.ingest.dataset.metadata_check import read_metadata_state
from shardstream.ingest.dataset.provenance import RecordSources
from shardstream.ingest.dataset.shard_check import (
    ShardError,
    ShardExpectation,
    check_shard,
    check_shard_alone,
)
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """The state of a dataset folder.

    Attributes:
        info: The expected dataset; None if there are no intact metadata to compare with.
        damages: All corruption, sorted by file name.
        contents: The SHA-256 of each corrupt or foreign shard, in hexadecimal, by file name; empty for a file that
            cannot be read, or whose size tells that it is no shard of this dataset.
    """

    info: DatasetInfo | None
    damages: list[Corruption]
    contents: dict[str, str]


def verify_dataset(data_dir: Path, *, deep: bool, workers: int) -> list[Corruption]:
    """Returns all corruption of the dataset in `data_dir`; empty if it is intact.

    Args:
        data_dir: The dataset folder.
        deep: Whether to decode every image as well.
        workers: The number of worker processes.

    Raises:
        DatasetError: It is not a dataset folder, or was replaced meanwhile.
    """
    before = _folder_identity(data_dir)
    with open_engine("local", workers=workers) as engine:
        damages = examine(data_dir, engine, deep=deep).damages
    if damages and _folder_identity(data_dir) != before:
        raise DatasetError(
            f"{data_dir}: another folder took its place while it was read, as at the end of an update; verify it again"
        )
    return damages


def _folder_identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def examine(data_dir: Path, engine: Engine, *, deep: bool = False) -> Examination:
    """Returns the content of the dataset folder `data_dir` and all its corruption.

    Raises:
        DatasetError: It is not a dataset folder.
    """
    described = read_metadata_state(data_dir)
    damages, contents = list(described.damages), {}
    if described.info is not None:
        manifest_is_whole = not any(damage.filename == MANIFEST for damage in damages)
        extra = dict(_extra_files(described.info))
        index = _open_index(described.info, damages)
        found, faults = _check_shards(described.info, index, engine, deep)
        owners = {shard.sha256: shard.filename for shard in described.info.shards.values()}
        damages += [Corruption(name, _extra(owners.get(sha256))) for name, sha256 in extra.items()]
        damages += _shard_damages(described.info, found, faults, owners, names_photos=manifest_is_whole)
        contents = extra | found
    return Examination(described.info, sorted(damages, key=lambda damage: damage.filename), contents)


def check_shards(
    info: DatasetInfo,
    shards: Iterable[ShardInfo],
    engine: Engine,
    *,
    index: np.ndarray | None = None,
    deep: bool = False,
) -> Iterator[tuple[str, str, list[ShardError]]]:
    """Reads shards, and yields the name, the SHA-256 and the errors of each."""
    shards = list(shards)
    firsts = first_rows(info)
    max_bytes = max((shard.num_bytes for shard in info.shards.values()), default=0)

    def rows(shard: ShardInfo) -> np.ndarray | None:
        first = firsts[shard.filename]
        return None if index is None else np.array(index[first : first + shard.num_examples])

    with (
        tempfile.TemporaryDirectory(prefix="shardstream-") as logs,
        progress("verifying", sum(shard.num_examples for shard in shards), "records") as advance,
    ):
        # Lazy: the rows of all shards together would be the complete index.
        checks = (
            ShardExpectation(
                info.data_dir / shard.filename,
                shard,
                max_bytes,
                rows(shard),
                info.num_classes,
                info.image,
                deep,
                log=Path(logs) / shard.filename if deep else None,
            )
            for shard in shards
        )
        for checked in engine.run_all(check_shard, checks, alone=check_shard_alone):
            advance(checked.shard.num_examples, num_bytes=checked.shard.num_bytes)
            yield checked.shard.filename, checked.sha256, checked.faults


def _open_index(info: DatasetInfo, damages: list[Corruption]) -> np.ndarray | None:
    """Returns the index, or None and adds its corruption to `damages`; format 3 has none."""
    if info.format_version < FORMAT_VERSION:
        return None
    try:
        return open_index(info)
    except DatasetError as error:
        damages.append(
            Corruption(INDEX, str(error).removeprefix(f"{info.data_dir / INDEX}: ").split("; ")[0])
        )
        return None


def _check_shards(
    info: DatasetInfo, index: np.ndarray | None, engine: Engine, deep: bool
) -> tuple[dict[str, str], list[ShardError]]:
    """Returns the SHA-256 of each shard with unexpected content, and all errors."""
    found: dict[str, str] = {}
    all_faults: list[ShardError] = []
    shards = info.shards
    for filename, sha256, faults in check_shards(info, shards.values(), engine, index=index, deep=deep):
        if sha256 != shards[filename].sha256:
            found[filename] = sha256
        all_faults += faults
    return found, all_faults


def _extra_files(info: DatasetInfo) -> Iterator[tuple[str, str]]:
    """Yields the name and the hash of each foreign file that a reader could mistake for a shard.

    The hash is empty if the file cannot be read, or has the size of no shard and so is no copy of one.
    """
    shards = info.shards
    sizes = {shard.num_bytes for shard in shards.values()}
    for path in sorted(info.data_dir.iterdir()):
        if ".tfrecord" in path.name and path.name not in shards:
            try:
                yield path.name, file_sha256(path) if path.stat().st_size in sizes else ""
            except OSError as error:
                if is_machine_error(error):
                    raise
                yield path.name, ""


def _extra(owner: str | None) -> str:
    return f"not a shard of this dataset, but a copy of {owner}" if owner else "not a shard of this dataset"


def _shard_damages(
    info: DatasetInfo,
    found: dict[str, str],
    faults: list[ShardError],
    owners: dict[str, str],
    *,
    names_photos: bool,
) -> Iterator[Corruption]:
    """Yields the corruption of shards.

    Args:
        info: The dataset.
        found: The SHA-256 of each shard with unexpected content.
        faults: All errors.
        owners: The name of each shard by its SHA-256.
        names_photos: Whether the manifest is usable to find the source image of a record.
    """
    photos = _photos(info, faults) if names_photos else {}
    for filename, what, record in faults:
        if owner := owners.get(found.get(filename, "")):
            yield Corruption(filename, f"holds the records of {owner}: swapped or copied")
            continue
        photo = photos.get((filename, record))
        # An invalid record in a file with the correct hash was written that way.
        remedy = "repair" if record is None or filename in found else "update"
        yield Corruption(filename, f"{what}; its photo is {photo}" if photo else what, remedy)


def _photos(info: DatasetInfo, faults: list[ShardError]) -> dict[tuple[str, int | None], str]:
    """Returns the path of the source image of each invalid record, by file and index of the record."""
    places = {
        shard.filename: (split.name, number)
        for split in info.splits.values()
        for number, shard in enumerate(split.shards)
    }
    wanted = {(filename, record) for filename, _, record in faults if record is not None}
    if not wanted:
        return {}
    filenames = sorted({filename for filename, _ in wanted})
    origins = RecordSources(info, [places[filename] for filename in filenames])
    return {
        (filename, record): origin.path
        for filename in filenames
        for record, origin in enumerate(origins.of(*places[filename]))
        if (filename, record) in wanted
    }
