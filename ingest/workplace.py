"""DATA.incomplete: where a dataset grows until it is whole, and takes its name in one rename."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ingest.errors import MACHINE_ERRNOS, ConfigError, MachineError


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

    def finish(self) -> None:
        """Gives the dataset its name, and removes the rest."""
        _sync_folder(self.dataset)
        self.dataset.rename(self.data)
        _sync_folder(self.data.absolute().parent)
        shutil.rmtree(self.root)


@contextlib.contextmanager
def open_workplace(data: Path) -> Iterator[Workplace]:
    """Gives the workplace for `data` to one process alone.

    Raises:
        ConfigError: Another process is at work there.
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


def _sync_folder(folder: Path) -> None:
    """Makes the names in `folder` last through a power cut, as fsync makes the content of files last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
