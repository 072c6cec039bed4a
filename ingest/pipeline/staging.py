"""DATA.incomplete: the folder where a dataset is assembled, before one rename publishes it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from shardstream.ingest.common.atomic_io import (
    exchange,
    fsync_folder,
    fsync_folder_contents,
    is_mount_point,
    publish_folder,
    recover_swap,
    write_atomic,
)
from shardstream.ingest.common.errors import ConfigError, DatasetError, UserError, machine_errors
from shardstream.ingest.common.locks import lock_file
from shardstream.ingest.common.safe_files import parse_errors, read_regular, refuse_link
from shardstream.ingest.pipeline.own_files import (
    is_dataset_file,
    is_spooled_file,
    is_task_file,
    keep_leftovers,
    remove_files,
    remove_named,
    shortened,
)

OPTIONS, REJECTED_LIST = "options.json", "rejected.csv"
_FOLDERS = {"dataset", "dataset.before", "shards", "units", "repair"}
_FILES = {OPTIONS, REJECTED_LIST}


@dataclasses.dataclass(frozen=True, slots=True)
class StagingArea:
    """The folders of a job in progress.

    Attributes:
        data: The dataset folder, which may not exist yet.
        root: The folder for work in progress, next to `data`.
        units: The results of the map step; they survive a kill.
        shards: The folder where workers write shards, unique to this run: a worker that outlives its command, as on a
            cluster, would otherwise put its shard among those of the next command.
        dataset: The dataset being assembled, written only by this process; recreated on each run.
    """

    data: Path
    root: Path
    units: Path
    shards: Path
    dataset: Path

    @classmethod
    def of(cls, data: Path, root: Path, units: Path) -> "StagingArea":
        """Returns the staging area below `root`, which does not have to exist yet."""
        return cls(data, root, units, shards=root / "shards" / uuid.uuid4().hex, dataset=root / "dataset")

    @property
    def spool(self) -> Path:
        """The folder for extracted members of an archive; survives a kill, and is removed with `units`."""
        return self.units / "spool"

    def begin(self) -> None:
        """Creates the folders, and removes output of an earlier run that this one will write again."""
        for folder in (self.dataset, self.shards.parent):
            remove_files(folder, is_dataset_or_task_file)
        keep_leftovers(self.dataset, self.data)
        for folder in (self.dataset, self.shards, self.units):
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, shard: str) -> None:
        """Moves a shard that a worker of this run has written into the dataset."""
        (self.shards / shard).rename(self.dataset / shard)

    def link(self, shard: str, name: str) -> bool:
        """Hard-links a shard of the previous dataset into the new one; returns False if the file system cannot."""
        try:
            if (self.data / shard).is_symlink():
                return False
            (self.dataset / name).hardlink_to(self.data / shard)
        except OSError:
            return False
        return True

    def publish(self) -> None:
        """Renames the dataset to DATA, which must not exist or be an empty folder.

        Raises:
            ConfigError: DATA was created while the job ran.
        """
        fsync_folder_contents(self.dataset)
        publish_folder(self.dataset, self.data)
        fsync_folder(self.data.absolute().parent)
        self.remove()

    def replace(self, names: Iterable[str]) -> None:
        """Replaces the previous dataset at DATA by the new one, and removes its files.

        Args:
            names: The files of the previous dataset. All other files in its folder are kept in a folder next to DATA.
        """
        fsync_folder_contents(self.dataset)
        exchange(self.dataset, self.data)
        fsync_folder(self.data.absolute().parent)
        remove_named(self.dataset, names)
        keep_leftovers(self.dataset, self.data)
        self.remove()

    def remove(self) -> None:
        """Removes all work in progress, best effort: the dataset is complete without it."""
        self.remove_units()
        for folder in (self.dataset, self.shards.parent):
            remove_files(folder, is_dataset_or_task_file)
        remove_named(self.root, _FILES)

    def remove_units(self) -> None:
        """Removes the results of the map step and the spooled archive members."""
        remove_files(self.spool, is_spooled_file)
        remove_files(self.units, is_task_file)


def is_dataset_or_task_file(name: str) -> bool:
    """Whether a file of that name is work in progress."""
    return is_dataset_file(name) or is_task_file(name)


def has_staging(data: Path) -> bool:
    """Whether there is work in progress for `data`."""
    return _root(data).is_dir() and not _root(data).is_symlink()


@contextlib.contextmanager
def open_staging(
    data: Path, options: Mapping[str, object], *, restart: bool = False, work_dir: Path | None = None
) -> Iterator[StagingArea]:
    """Locks and opens the staging area of `data` for this process.

    Args:
        data: The dataset folder, which may not exist yet.
        options: The options that determine the work in progress, by name, as JSON values.
        restart: Whether to discard existing unfinished work.
        work_dir: Another folder for the output of the map step, such as on a faster disk.

    Raises:
        ConfigError: Another process holds the lock, there is unfinished work with other options, or the staging folder
            contains foreign files.
        MachineError: No space, or a failing disk.
    """
    data = _followed(data)
    if is_mount_point(data):
        raise ConfigError(
            f"{data}: a mount point, whose place no other folder can take; choose a folder inside of it, such as "
            f"{data / 'dataset'}, or mount the folder above it"
        )
    root = _root(data)
    units = root / "units"
    if work_dir is not None:
        # Named for DATA, so that several jobs can share the disk.
        place_name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
        units = work_dir / f"{data.name}.{place_name}.units"
        options = {**options, "--work-dir": str(work_dir.resolve())}
    place = StagingArea.of(data, root, units)
    with machine_errors(root), _locked(data):
        _prepare_root(root, units)
        if restart:
            place.remove_units()
            (root / OPTIONS).unlink(missing_ok=True)
        _check_options(place, options)
        recover_swap(place.dataset, data)
        place.begin()
        try:
            yield place
        except UserError:
            has_results = any(path.name != place.spool.name for path in units.iterdir())
            if not has_results and not (root / REJECTED_LIST).exists():
                place.remove()  # No work was done that the next command could resume.
            raise


@contextlib.contextmanager
def open_repair_place(data: Path) -> Iterator[StagingArea]:
    """Locks and opens a staging area for the repair of the dataset `data`.

    It lies inside the normal staging area and keeps unfinished work there: an `update` that found a corrupt shard can
    resume after the repair.

    Raises:
        ConfigError: Another process holds the lock, or the staging folder contains foreign files.
        MachineError: No space, or a failing disk.
    """
    data = _followed(data)
    root = _root(data)
    own = root / "repair"
    place = StagingArea.of(data, own, own / "units")
    with machine_errors(root), _locked(data):
        _prepare_root(root, root / "units")
        _refuse_links(own, place.units)
        recover_swap(root / "dataset", data)
        place.begin()
        try:
            yield place
        except DatasetError:
            _remove_repair(place)
            raise
        _remove_repair(place)


def _remove_repair(place: StagingArea) -> None:
    place.remove()
    with contextlib.suppress(OSError):  # Not empty: unfinished work of another command.
        place.root.parent.rmdir()


def _followed(data: Path) -> Path:
    """Resolves `data` if it is a link: the folder is replaced, not the link."""
    return data.resolve() if data.is_symlink() else data


def _root(data: Path) -> Path:
    return data.with_name(f"{data.name}.incomplete")


def _locked(data: Path) -> contextlib.AbstractContextManager[None]:
    """Locks the staging area of `data` against other processes."""
    path = data.with_name(f"{data.name}.lock")
    with contextlib.suppress(FileExistsError):  # If it is a file, opening the lock inside it reports that.
        path.parent.mkdir(parents=True, exist_ok=True)
    return lock_file(
        path, busy=f"{_root(data)}: another process is at work there; wait for it or choose another DATA"
    )


def _prepare_root(root: Path, units: Path) -> None:
    """Creates `root` if it is missing, and refuses a folder with foreign files: those must not be touched."""
    refuse_link(root)
    root.mkdir(parents=True, exist_ok=True)
    _refuse_links(root, units)
    own = (*_FOLDERS, *(f"{name}." for name in _FILES))  # The latter are left by killed writes.
    others = [
        path.name
        for path in root.iterdir()
        if path.name not in _FOLDERS | _FILES and not path.name.startswith(own)
    ]
    others = [name for name in others if name != "lock"]  # Created by older versions.
    if others:
        raise ConfigError(
            f"{root}: holds files that are no work in progress ({shortened(others)}); move them elsewhere"
        )


def _refuse_links(root: Path, units: Path) -> None:
    """Refuses links and special files at the paths that we write to."""
    refuse_link(root)
    for folder in (*(root / name for name in _FOLDERS), units):
        refuse_link(folder)
    for name in _FILES:
        refuse_link(root / name, kind="file")
    if units.is_dir():
        for folder in units.iterdir():
            if folder.is_symlink():
                refuse_link(folder)


def _check_options(place: StagingArea, options: Mapping[str, object]) -> None:
    """Checks that unfinished work has the same options, or saves them if there is none."""
    path = place.root / OPTIONS
    if not path.exists():
        write_atomic(path, json.dumps(options).encode())
        return
    with parse_errors(path, "--restart throws the unfinished work away"):
        before = dict(json.loads(read_regular(path)))
    command = before.get("command")
    if command != options.get("command"):
        raise ConfigError(
            f"{place.root}: holds unfinished work of `{command}`; start that again as it was to finish "
            "it, or give --restart to throw it away"
        )
    changed = [
        f"{name} was {before.get(name)}, now it is {options.get(name)}"
        for name in {**before, **options}
        if before.get(name) != options.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{place.root}: holds unfinished work of other options: {'; '.join(changed)}. Give the same options to go "
            "on with it, or --restart to throw it away"
        )
