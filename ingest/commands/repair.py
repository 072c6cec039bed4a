"""A damaged dataset made whole again: only what is bad is made again, to the bytes that it had."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

from shardstream.ingest.commands.config import RepairConfig
from shardstream.ingest.commands.rebuild import CannotRepairError, remake_manifest, remake_shard
from shardstream.ingest.commands.verify import check_shards, examine
from shardstream.ingest.common.atomic_io import exchange, fsync_file, fsync_folder, write_atomic
from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.index import open_index_writer, scan_shards
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.ingest.dataset.metadata_check import MetadataState, read_metadata_state
from shardstream.ingest.dataset.provenance import RecordSources
from shardstream.ingest.dataset.tfds_files import tfds_files
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.pipeline.staging import StagingArea, open_repair_place
from shardstream.ingest.pipeline.steps import TASK_MODULES


@dataclasses.dataclass(frozen=True, slots=True)
class Repair:
    """What became of one damaged file.

    Attributes:
        filename: Inside the dataset folder.
        damage: What was wrong with it.
        outcome: What was done, or why nothing could be.
        is_mended: Whether it is as it was made.
        photos: Those that have to be as they were for it, and are not.
    """

    filename: str
    damage: str
    outcome: str
    is_mended: bool
    photos: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Done:
    """What was done about a file."""

    outcome: str
    is_mended: bool = True
    photos: tuple[str, ...] = ()

    @classmethod
    def not_mended(cls, error: CannotRepairError) -> "_Done":
        return cls(f"not mended: {error}", False, error.photos)


_Outcomes = dict[str, _Done]  # By the names of files.


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    info: DatasetInfo
    images: Path
    place: StagingArea
    engine: Engine


def repair_dataset(config: RepairConfig) -> list[Repair]:
    """Mends what is damaged in `config.data`; returns what became of each damaged file, nothing if all are whole.

    Each file is replaced by itself, in one rename. Killed, the same call goes on. What looks like a shard and is none
    of this dataset's is moved to DATA.foreign: it may be somebody's.

    Raises:
        ConfigError: There is no folder `config.images`, or another process is at work.
        DatasetError: `config.data` is not a dataset folder.
        MachineError: The disk is full, the photos went away, or a worker process died for no file's fault.
    """
    if not config.images.is_dir():
        raise ConfigError(f"{config.images}: no such folder of photos")
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
        done = _mend_manifest(config, first, place, engine)
        found = examine(config.data, engine)
        damages: dict[str, list[str]] = {}
        for damage in (*(damage for damage in first.damages if damage.filename in done), *found.damages):
            if damage.what not in damages.setdefault(damage.filename, []):
                damages[damage.filename].append(damage.what)
        if found.info is None or not all(one.is_mended for one in done.values()):
            # Nothing vouches for the metadata then: what they say may be as wrong as what it is compared with.
            done = dict.fromkeys(damages, _Done(f"not mended: it takes a whole {MANIFEST}", False)) | done
        else:
            job = _Job(found.info, config.images, place, engine)
            done |= _mend(job, damages.keys() - done.keys(), found.contents)
            done |= _find_still_damaged(job, done)
    return [
        Repair(filename, "; ".join(whats), **dataclasses.asdict(done[filename]))
        for filename, whats in sorted(damages.items())
    ]


def _mend_manifest(
    config: RepairConfig, first: MetadataState, place: StagingArea, engine: Engine
) -> _Outcomes:
    """Makes a damaged manifest again, of the photos and of what the metadata or the manifest itself say."""
    if MANIFEST not in {damage.filename for damage in first.damages}:
        return {}
    metadata = config.data / METADATA
    content = metadata.read_bytes() if metadata.exists() else b""
    done = _Done(f"not mended: neither it nor {METADATA} can be read", False)
    for info in (first.doubtful, first.info):
        if info is None:
            continue
        try:
            new = remake_manifest(info, content, images=config.images, place=place, engine=engine)
        except CannotRepairError as error:
            done = _Done.not_mended(error)
            continue
        _replace(new, config.data)
        return {MANIFEST: _Done("made again: all photos were judged again")}
    return {MANIFEST: done}


def _replace(new: Path, data: Path) -> None:
    """Puts a file that was made again in the place of the damaged one in `data`, in one rename."""
    fsync_file(new)
    new.replace(data / new.name)
    fsync_folder(data)


def _mend(job: _Job, damaged: Collection[str], contents: dict[str, str]) -> _Outcomes:
    """Mends `damaged` files of a dataset with a whole manifest.

    Args:
        job: The dataset.
        damaged: The names of files.
        contents: The SHA-256 of what is in each that has records, or should.
    """
    done = _write_small_files(job, damaged)
    done |= _rename_misnamed(job, contents)
    done |= _mend_shards(job, contents.keys() & job.info.shards.keys())
    if INDEX in damaged or not (job.info.data_dir / INDEX).exists():
        done |= _write_index(job)
    return done | _put_aside(job, contents.keys() - job.info.shards.keys(), contents)


def _write_small_files(job: _Job, damaged: Collection[str]) -> _Outcomes:
    done: _Outcomes = {}
    for filename, content in {METADATA: job.info.encode(), **tfds_files(job.info)}.items():
        if filename in damaged:
            write_atomic(job.place.dataset / filename, content)
            _replace(job.place.dataset / filename, job.info.data_dir)
            done[filename] = _Done(f"written again from {MANIFEST if filename == METADATA else METADATA}")
    return done


def _write_index(job: _Job) -> _Outcomes:
    """Writes the index again, of the shards as they are now."""
    path = job.place.dataset / INDEX
    try:
        rows = scan_shards(job.info, job.info.shards.values())
    except DatasetError as error:
        return {INDEX: _Done(f"not repaired: {error}", False)}
    with open_index_writer(path, len(rows)) as index:
        index[:] = rows
    _replace(path, job.info.data_dir)
    return {INDEX: _Done("written again from the shards")}


def _rename_misnamed(job: _Job, contents: dict[str, str]) -> _Outcomes:
    """Gives whole files that have the name of another one their own, and leaves in `contents` what is bad still.

    After each step every content that is needed is there still, under whatever name: a kill loses nothing.
    """
    data, shards = job.info.data_dir, job.info.shards
    homes = {shards[name].sha256: name for name in contents if name in shards}
    done: _Outcomes = {}
    for name in list(contents):
        while home := homes.pop(contents.get(name, ""), None):
            if home == name:
                pass  # The last of a circle: what it needs has come to it.
            elif contents[home] in homes:
                exchange(data / name, data / home)
                contents[name] = contents[home]
            else:
                (data / name).replace(data / home)
                contents[name] = ""
            del contents[home]
            done[home] = _Done("renamed: it had the name of another file")
            if name not in shards and not contents[name]:
                del contents[name]
                done[name] = _Done("renamed to the shard that it was")
    fsync_folder(data)
    return done


def _mend_shards(job: _Job, filenames: Collection[str]) -> _Outcomes:
    done: _Outcomes = {}
    places = {
        (split.name, number): shard.filename
        for split in job.info.splits.values()
        for number, shard in enumerate(split.shards)
        if shard.filename in filenames
    }
    if not places:
        return done
    origins = RecordSources(job.info.data_dir / MANIFEST, list(places))
    for (split, number), filename in places.items():
        photos = origins.of(split, number)
        try:
            new = remake_shard(
                job.info, split, number, photos, images=job.images, place=job.place, engine=job.engine
            )
        except CannotRepairError as error:
            done[filename] = _Done.not_mended(error)
            continue
        _replace(new, job.info.data_dir)
        done[filename] = _Done(f"made again of its {len(photos)} photos")
    return done


def _put_aside(job: _Job, filenames: Collection[str], contents: dict[str, str]) -> _Outcomes:
    """Takes files out of the dataset that are none of its own. What is in no other file is kept, beside the dataset."""
    data = job.info.data_dir
    owners = {shard.sha256: shard.filename for shard in job.info.shards.values()}
    foreign = data.with_name(f"{data.name}.foreign")
    done: _Outcomes = {}
    for filename in filenames:
        if owner := owners.get(contents[filename]):
            (data / filename).unlink()
            done[filename] = _Done(f"removed: {owner} is the same")
        else:
            foreign.mkdir(exist_ok=True)
            names = (filename, *(f"{filename}.{number}" for number in range(1, 1000)))
            path = next(foreign / name for name in names if not (foreign / name).exists())
            (data / filename).rename(path)
            done[filename] = _Done(f"moved to {path}")
    return done


def _find_still_damaged(job: _Job, done: _Outcomes) -> _Outcomes:
    """Reads what was mended, and returns what is damaged for all that."""
    mended = [shard for name, shard in job.info.shards.items() if name in done and done[name].is_mended]
    faults = [fault for _, _, faults in check_shards(job.info, mended, job.engine) for fault in faults]
    whats = {fault.filename: fault.what for fault in faults}
    whats |= {damage.filename: damage.what for damage in read_metadata_state(job.info.data_dir).damages}
    return {
        name: _Done(f"{done[name].outcome}, and is damaged again: {what}", False)
        for name, what in whats.items()
        if name in done and done[name].is_mended
    }
