"""The `repair` command: rebuilds only the corrupt files of a dataset, byte-identical."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from shardstream.ingest.commands.config import RepairConfig
from shardstream.ingest.commands.rebuild import CannotRepairError, remake_manifest, remake_shard
from shardstream.ingest.commands.verify import check_shards, examine
from shardstream.ingest.common.atomic_io import file_sha256, replace_in, write_atomic
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import open_index_writer, scan_shards
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.metadata_check import read_metadata_state
from shardstream.ingest.dataset.provenance import RecordSources
from shardstream.ingest.dataset.tfds_files import tfds_files
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.pipeline.staging import StagingArea, open_repair_place
from shardstream.ingest.pipeline.steps import TASK_MODULES


@dataclasses.dataclass(frozen=True, slots=True)
class Repair:
    """The result for one corrupt file.

    Attributes:
        filename: Name inside the dataset folder.
        damage: Description of the corruption.
        outcome: What was done, or why it could not be repaired.
        is_mended: Whether the file was repaired.
        photos: The changed source images that prevent the repair.
    """

    filename: str
    damage: str
    outcome: str
    is_mended: bool
    photos: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Done:
    """The outcome of the repair of a file."""

    outcome: str
    is_mended: bool = True
    photos: tuple[str, ...] = ()

    @classmethod
    def not_mended(cls, error: CannotRepairError) -> "_Done":
        return cls(f"not repaired: {error}", False, error.photos)


_Outcomes = dict[str, _Done]  # By file name.


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    info: DatasetInfo
    images: Path
    labels: Path | None
    place: StagingArea
    engine: Engine


def repair_dataset(config: RepairConfig) -> list[Repair]:
    """Repairs the corrupt files of `config.data`; returns the result for each, empty if all files are intact.

    Each file is replaced separately with an atomic rename. If interrupted, calling it again resumes. Files that look
    like shards but do not belong to the dataset are reported and left in place: they may be the user's.

    Raises:
        ConfigError: There is no folder `config.images`, or another process holds the lock.
        DatasetError: `config.data` is not a dataset folder.
        MachineError: The disk is full, the images disappeared, or a worker process died without a file as the cause.
    """
    if not config.images.is_dir():
        raise ConfigError(
            f"{config.images}: not a folder; give the folder of the images, unpacked from its archive"
        )
    with (
        open_engine(
            config.engine,
            workers=config.workers,
            scheduler=config.scheduler,
            preload=TASK_MODULES,
            folders=[config.images, config.data.absolute().parent],
        ) as engine,
        open_repair_place(config.data) as place,
    ):
        first = read_metadata_state(config.data)
        done: _Outcomes = {}
        if first.info is not None and MANIFEST in {damage.filename for damage in first.damages}:
            done = _repair_manifest(_Job(first.info, config.images, config.labels, place, engine))
        found = examine(config.data, engine)
        damages: dict[str, list[str]] = {}
        for damage in (*(damage for damage in first.damages if damage.filename in done), *found.damages):
            if damage.what not in damages.setdefault(damage.filename, []):
                damages[damage.filename].append(damage.what)
        if found.info is None or not all(one.is_mended for one in done.values()):
            # The metadata cannot be verified then: they may be as corrupt as the files compared with them.
            done = (
                dict.fromkeys(damages, _Done(f"not repaired: it takes a complete {MANIFEST}", False)) | done
            )
        else:
            job = _Job(found.info, config.images, config.labels, place, engine)
            done |= _repair(job, damages.keys() - done.keys(), found.contents)
            done |= _find_still_damaged(job, done)
    return [
        Repair(filename, "; ".join(whats), **dataclasses.asdict(done[filename]))
        for filename, whats in sorted(damages.items())
    ]


def _repair_manifest(job: _Job) -> _Outcomes:
    """Rebuilds a corrupt manifest from the source images and the metadata."""
    try:
        new = remake_manifest(
            job.info, images=job.images, labels=job.labels, place=job.place, engine=job.engine
        )
        if (sha256 := file_sha256(new)) != job.info.manifest_sha256:  # It equals the existing manifest.
            write_atomic(job.place.dataset / METADATA, job.info.with_manifest(sha256).encode())
            outcome = f"as it has to be: {METADATA}, which named another one, was written again"
            return {MANIFEST: _replace(job.place.dataset / METADATA, job.info.data_dir, outcome)}
        return {MANIFEST: _replace(new, job.info.data_dir, "made again: all photos were judged again")}
    except CannotRepairError as error:
        return {MANIFEST: _Done.not_mended(error)}


def _replace(new: Path, data: Path, outcome: str) -> _Done:
    """Replaces a corrupt file in `data` by the rebuilt one, with an atomic rename; returns the outcome."""
    if (data / new.name).is_dir() and not (data / new.name).is_symlink():
        return _Done(
            "not repaired: a folder has its name: move that elsewhere and run the same command again", False
        )
    replace_in(data, new)
    return _Done(outcome)


def _repair(job: _Job, damaged: Collection[str], contents: dict[str, str]) -> _Outcomes:
    """Repairs `damaged` files of a dataset with a complete manifest.

    Args:
        job: The dataset.
        damaged: The names of the files.
        contents: The current SHA-256 of each corrupt or foreign shard.
    """
    done = _write_small_files(job, damaged)
    done |= _repair_shards(job, contents.keys() & job.info.shards.keys())
    if INDEX in damaged or not (job.info.data_dir / INDEX).exists():
        done |= _write_index(job)
    return done | {
        filename: _Done("left where it is: no file of this dataset; move it elsewhere", False)
        for filename in contents.keys() - job.info.shards.keys()
    }


def _write_small_files(job: _Job, damaged: Collection[str]) -> _Outcomes:
    done: _Outcomes = {}
    for filename, content in {METADATA: job.info.encode(), **tfds_files(job.info)}.items():
        if filename in damaged:
            write_atomic(job.place.dataset / filename, content)
            outcome = f"written again from {MANIFEST if filename == METADATA else METADATA}"
            done[filename] = _replace(job.place.dataset / filename, job.info.data_dir, outcome)
    return done


def _write_index(job: _Job) -> _Outcomes:
    """Rebuilds the index from the current shards."""
    path = job.place.dataset / INDEX
    try:
        rows = scan_shards(job.info, job.info.shards.values())
    except DatasetError as error:
        return {INDEX: _Done(f"not repaired: {error}", False)}
    with open_index_writer(path, len(rows)) as index:
        index[:] = rows
    return {INDEX: _replace(path, job.info.data_dir, "written again from the shards")}


def _repair_shards(job: _Job, filenames: Collection[str]) -> _Outcomes:
    done: _Outcomes = {}
    places = {
        (split.name, number): shard.filename
        for split in job.info.splits.values()
        for number, shard in enumerate(split.shards)
        if shard.filename in filenames
    }
    if not places:
        return done
    origins = RecordSources(job.info, list(places))
    for (split, number), filename in places.items():
        photos = origins.of(split, number)
        try:
            new = remake_shard(
                job.info, split, number, photos, images=job.images, place=job.place, engine=job.engine
            )
        except CannotRepairError as error:
            done[filename] = _Done.not_mended(error)
            continue
        done[filename] = _replace(new, job.info.data_dir, f"made again of its {len(photos)} photos")
    return done


def _find_still_damaged(job: _Job, done: _Outcomes) -> _Outcomes:
    """Verifies the repaired files, and returns those that are still corrupt."""
    repaired = [shard for name, shard in job.info.shards.items() if name in done and done[name].is_mended]
    faults = [fault for _, _, faults in check_shards(job.info, repaired, job.engine) for fault in faults]
    whats = {fault.filename: fault.what for fault in faults}
    whats |= {damage.filename: damage.what for damage in read_metadata_state(job.info.data_dir).damages}
    return {
        name: _Done(f"{done[name].outcome}, and is corrupt again: {what}", False)
        for name, what in whats.items()
        if name in done and done[name].is_mended
    }
