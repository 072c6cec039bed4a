"""DATA.incomplete: where a dataset grows until it is whole, and takes its name in one rename."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ingest.errors import MACHINE_ERRNOS, ConfigError, MachineError
from ingest.units import write_whole


@dataclasses.dataclass(frozen=True, slots=True)
class Workplace:
    """The folders of a job in progress.

    Attributes:
        data: The folder that the dataset will be.
        root: All work in progress.
        units: What the map step has done; kept over a kill.
        dataset: The dataset that is being put together; made anew each time.
    """

    data: Path
    root: Path
    units: Path
    dataset: Path

    @property
    def options(self) -> Path:
        """What decided the work that is there."""
        return self.root / "options.json"

    def finish(self) -> None:
        """Gives the dataset its name, and removes the rest."""
        _sync_folder(self.dataset)
        self.dataset.rename(self.data)
        _sync_folder(self.data.absolute().parent)
        shutil.rmtree(self.root)


@contextlib.contextmanager
def open_workplace(data: Path, options: Mapping[str, object], *, restart: bool) -> Iterator[Workplace]:
    """Gives the workplace for `data` to one process alone.

    Args:
        data: The folder that the dataset will be.
        options: What decides the work in progress, by the names of the options, in types that JSON has.
        restart: Whether unfinished work that is there is thrown away.

    Raises:
        ConfigError: Another process is at work there, or there is unfinished work of other options.
        MachineError: No space, or a disk that fails.
    """
    import filelock

    root = data.with_name(f"{data.name}.incomplete")
    place = Workplace(data=data, root=root, units=root / "units", dataset=root / "dataset")
    place.units.mkdir(parents=True, exist_ok=True)
    # Locks of the operating system end with their process, however it ends.
    lock = filelock.FileLock(root / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(
            f"{root}: another build is at work there; wait for it or choose another DATA"
        ) from None
    try:
        if restart:
            shutil.rmtree(place.units)
            place.options.unlink(missing_ok=True)
            place.units.mkdir()
        _check_options(place, options)
        shutil.rmtree(place.dataset, ignore_errors=True)
        place.dataset.mkdir()
        yield place
    except OSError as error:
        if error.errno not in MACHINE_ERRNOS:
            raise
        raise MachineError(
            f"{root}: {error.strerror}; what was done is kept: mend that and start the same command again"
        ) from None
    finally:
        lock.release()


def _check_options(place: Workplace, options: Mapping[str, object]) -> None:
    """Sees to it that unfinished work is of the same options, or notes them where there is none."""
    if not place.options.exists():
        write_whole(place.options, json.dumps(options).encode())
        return
    before = json.loads(place.options.read_text())
    changed = [
        f"{name} was {before.get(name)}, now it is {value}"
        for name, value in options.items()
        if before.get(name) != value
    ]
    if changed:
        raise ConfigError(
            f"{place.root}: holds unfinished work of other options: {'; '.join(changed)}. Give the same options to go "
            "on with it, or --restart to throw it away"
        )


def _sync_folder(folder: Path) -> None:
    """Makes the names in `folder` last through a power cut, as fsync makes the content of files last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
