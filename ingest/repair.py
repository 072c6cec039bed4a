"""A damaged dataset made whole again: only what is bad is made again, to the bytes that it had."""

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from ingest.config import RepairConfig
from ingest.descriptions import read_descriptions
from ingest.engine import Engine, open_engine
from ingest.errors import ConfigError
from ingest.manifest import FILENAME as MANIFEST
from ingest.metadata import FILENAME as METADATA
from ingest.metadata import DatasetInfo
from ingest.origins import Origins
from ingest.remake import NotMendedError, remake_manifest, remake_shard
from ingest.tfds_files import tfds_files
from ingest.verify import check_shards, examine
from ingest.whole_files import exchange, sync_folder, write_whole
from ingest.workplace import Workplace, open_repair_place


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
    def not_mended(cls, error: NotMendedError) -> "_Done":
        return cls(f"not mended: {error}", False, error.photos)


_Outcomes = dict[str, _Done]  # By the names of files.


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    info: DatasetInfo
    images: Path
    place: Workplace
    engine: Engine

    def replace(self, new: Path) -> None:
        """Puts a file that was made again in the place of the damaged one, in one rename."""
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(self.info.data_dir / new.name)
        sync_folder(self.info.data_dir)


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
            folders=[config.images, config.data.absolute().parent],
        ) as engine,
        open_repair_place(config.data) as place,
    ):
        found = examine(config.data, engine)
        damages: dict[str, list[str]] = {}
        for damage in found.damages:
            damages.setdefault(damage.filename, []).append(damage.what)
        if found.info is None:
            done = dict.fromkeys(
                damages, _Done("not mended: of these two files one is needed to make the other", False)
            )
        else:
            job = _Job(found.info, config.images, place, engine)
            done = _mend(job, damages, found.contents)
            done |= _find_still_damaged(job, done)
    return [
        Repair(filename, "; ".join(whats), **dataclasses.asdict(done[filename]))
        for filename, whats in damages.items()
    ]


def _mend(job: _Job, damaged: Collection[str], contents: dict[str, str]) -> _Outcomes:
    """Mends all `damaged` files. `contents` has the SHA-256 of what is in each that has records, or should."""
    done: _Outcomes = {}
    if MANIFEST in damaged:
        done[MANIFEST] = _mend_manifest(job)
        if not done[MANIFEST].is_mended:
            # Nothing vouches for the metadata then: what they say may be as wrong as what it is compared with.
            return dict.fromkeys(damaged, _Done(f"not mended: it takes a whole {MANIFEST}", False)) | done
    done |= _write_small_files(job, damaged)
    done |= _rename_misnamed(job, contents)
    done |= _mend_shards(job, [name for name in job.info.shards if name in contents])
    return done | _put_aside(job, contents.keys() - job.info.shards.keys(), contents)


def _mend_manifest(job: _Job) -> _Done:
    try:
        job.replace(remake_manifest(job.info, images=job.images, place=job.place, engine=job.engine))
    except NotMendedError as error:
        return _Done.not_mended(error)
    return _Done("made again: all photos were judged again")


def _write_small_files(job: _Job, damaged: Collection[str]) -> _Outcomes:
    done: _Outcomes = {}
    for filename, content in {METADATA: job.info.encode(), **tfds_files(job.info)}.items():
        if filename in damaged:
            write_whole(job.place.dataset / filename, content)
            job.replace(job.place.dataset / filename)
            done[filename] = _Done(f"written again from {MANIFEST if filename == METADATA else METADATA}")
    return done


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
    sync_folder(data)
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
    origins = Origins(job.info.data_dir / MANIFEST, list(places))
    for (split, number), filename in places.items():
        photos = origins.of(split, number)
        try:
            job.replace(
                remake_shard(
                    job.info, split, number, photos, images=job.images, place=job.place, engine=job.engine
                )
            )
        except NotMendedError as error:
            done[filename] = _Done.not_mended(error)
        else:
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
    whats |= {damage.filename: damage.what for damage in read_descriptions(job.info.data_dir).damages}
    return {
        name: _Done(f"{done[name].outcome}, and is damaged again: {what}", False)
        for name, what in whats.items()
        if name in done and done[name].is_mended
    }
