"""DATA.incomplete: where a dataset grows until it is whole, and takes its name in one rename."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shardstream.ingest.common.atomic_io import (
    exchange,
    fsync_folder,
    fsync_folder_contents,
    recover_swap,
    write_atomic,
)
from shardstream.ingest.common.errors import ConfigError, DatasetError, UserError, machine_errors

_LOCK = "lock"


@dataclasses.dataclass(frozen=True, slots=True)
class StagingArea:
    """The folders of a job in progress.

    Attributes:
        data: The folder that the dataset will be, or is.
        root: Work in progress, beside `data`.
        units: What the map step has done; kept over a kill.
        shards: Where workers write shards, a folder that no other run has: a worker that outlives the command that it
            worked for, as on a cluster, would otherwise put its shard among those of the next command.
        dataset: The dataset that is being put together, by this process alone; made anew each time.
    """

    data: Path
    root: Path
    units: Path
    shards: Path
    dataset: Path

    @classmethod
    def of(cls, data: Path, root: Path, units: Path) -> "StagingArea":
        """Returns the workplace below `root`, of which nothing has to be there yet."""
        return cls(data, root, units, shards=root / "shards" / uuid.uuid4().hex, dataset=root / "dataset")

    def begin(self) -> None:
        """Makes the folders, and removes what an earlier run has written and this one will write again."""
        for left in (self.dataset, self.shards.parent):
            shutil.rmtree(left, ignore_errors=True)
        for folder in (self.dataset, self.shards, self.units):
            folder.mkdir(parents=True, exist_ok=True)

    def take(self, shard: str) -> None:
        """Takes a shard that a worker of this run has written into the dataset."""
        (self.shards / shard).rename(self.dataset / shard)

    def finish(self) -> None:
        """Gives the dataset its name, which the dataset that it replaces has until then."""
        fsync_folder_contents(self.dataset)
        if self.data.exists():
            exchange(self.dataset, self.data)
        else:
            self.dataset.rename(self.data)
        fsync_folder(self.data.absolute().parent)
        self.remove()

    def remove(self) -> None:
        """Removes all work in progress."""
        if self.units.is_dir():
            with (
                ThreadPoolExecutor() as threads
            ):  # Gigabytes are given back to the disk and the memory, file by file.
                list(threads.map(functools.partial(shutil.rmtree, ignore_errors=True), self.units.iterdir()))
        shutil.rmtree(self.units, ignore_errors=True)
        shutil.rmtree(self.root)


def has_staging(data: Path) -> bool:
    """Whether there is work in progress for `data`."""
    return _root(data).is_dir()


@contextlib.contextmanager
def open_staging(
    data: Path, options: Mapping[str, object], *, restart: bool = False, work_dir: Path | None = None
) -> Iterator[StagingArea]:
    """Gives the workplace for `data` to one process alone.

    Args:
        data: The folder that the dataset will be, or is.
        options: What decides the work in progress, by the names of the options, in types that JSON has.
        restart: Whether unfinished work that is there is thrown away.
        work_dir: Where the map step's work lies instead, such as a quicker disk.

    Raises:
        ConfigError: Another process is at work there, or there is unfinished work of other options.
        MachineError: No space, or a disk that fails.
    """
    data = _followed(data)
    root = _root(data)
    units = root / "units"
    if work_dir is not None:
        # Named for DATA, so that several jobs can share the disk.
        place_name = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
        units = work_dir / f"{data.name}.{place_name}.units"
        options = {**options, "--work-dir": str(work_dir.resolve())}
    place = StagingArea.of(data, root, units)
    with machine_errors(root), _locked(root):
        if restart:
            shutil.rmtree(units, ignore_errors=True)
            _options_path(place).unlink(missing_ok=True)
        _check_options(place, options)
        recover_swap(place.dataset, data)
        place.begin()
        try:
            yield place
        except UserError:
            if not any(units.iterdir()):
                place.remove()  # Nothing was done that the next command would have to fit to.
            raise


@contextlib.contextmanager
def open_repair_place(data: Path) -> Iterator[StagingArea]:
    """Gives a place to mend the dataset `data` in to one process alone.

    It lies inside of the other workplace and leaves unfinished work there as it is: an `update` that found a damaged
    shard goes on once that is mended.

    Raises:
        ConfigError: Another process is at work there.
        MachineError: No space, or a disk that fails.
    """
    data = _followed(data)
    root = _root(data)
    own = root / "repair"
    place = StagingArea.of(data, own, own / "units")
    with machine_errors(root), _locked(root):
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
    root = place.root.parent
    if {path.name for path in root.iterdir()} == {_LOCK}:
        shutil.rmtree(root)


def _followed(data: Path) -> Path:
    """Returns the folder itself where `data` is a link to it: that is what is replaced, not the link."""
    return data.resolve() if data.is_symlink() else data


def _root(data: Path) -> Path:
    return data.with_name(f"{data.name}.incomplete")


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Keeps other processes out of `root`, which is made if there is none."""
    import filelock

    root.mkdir(parents=True, exist_ok=True)
    # Locks of the operating system end with their process, however it ends.
    lock = filelock.FileLock(root / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{root}: another process is at work there; wait for it or choose another DATA"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _options_path(place: StagingArea) -> Path:
    """Returns the file that says what decided the work that is there."""
    return place.root / "options.json"


def _check_options(place: StagingArea, options: Mapping[str, object]) -> None:
    """Sees to it that unfinished work is of the same options, or notes them where there is none."""
    path = _options_path(place)
    if not path.exists():
        write_atomic(path, json.dumps(options).encode())
        return
    before = json.loads(path.read_text())
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
