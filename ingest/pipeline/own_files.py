"""Recognizes the files that this package writes: nothing else is ever removed."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shardstream.ingest.common.terminal import escape_control_chars
from shardstream.ingest.dataset.index import FILENAME as INDEX
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA
from shardstream.ingest.dataset.source_state import FILENAME as SOURCE_STATE
from shardstream.ingest.dataset.tfds_files import FILENAMES as TFDS

DESCRIPTIONS = (METADATA, MANIFEST, INDEX, SOURCE_STATE, *TFDS)
# Created by file managers in every folder that they show.
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
# NFS renames a removed file that is still open; it disappears when it is closed.
_OPEN_ON_NFS = ".nfs"
_PART = r"(\.[0-9a-f]{12}\.part)?"
_TASK_FILE = re.compile(rf"[0-9a-f]{{32}}\.(pictures|verdicts){_PART}|[0-9a-f]{{32}}\.attempts")
_SHARD = re.compile(rf".+\.tfrecord-\d{{5,}}-of-\d{{5,}}{_PART}")
# The spool of an archive: folders, members and their index, see `archives`.
_SPOOLED = re.compile(rf"\d{{6,}}|index\.json{_PART}")
_DESCRIPTION = re.compile(rf"({'|'.join(map(re.escape, DESCRIPTIONS))}){_PART}")
_MAX_SHOWN = 3

logger = logging.getLogger(__name__)


def is_task_file(name: str) -> bool:
    """Whether `name` is the name of a file of the map step."""
    return _TASK_FILE.fullmatch(name) is not None


def is_spooled_file(name: str) -> bool:
    """Whether `name` is the name of a spooled member of an archive, or of their folders and index."""
    return _SPOOLED.fullmatch(name) is not None


def is_shard(name: str) -> bool:
    """Whether `name` is the name of a shard."""
    return _SHARD.fullmatch(name) is not None


def is_dataset_file(name: str) -> bool:
    """Whether `name` may be the name of a file of a dataset in progress."""
    return is_shard(name) or _DESCRIPTION.fullmatch(name) is not None


def remove_files(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Removes our own files in `folder` and its sub-folders, and the folders that are then empty.

    Links are not followed. Files that cannot be removed stay, such as files on NFS that a worker has open.
    """
    names = _names(folder)
    try:
        with (
            ThreadPoolExecutor() as threads
        ):  # Removing gigabytes takes time in the file system for each file: use threads.
            list(threads.map(lambda name: _remove(folder / name, is_ours), names))
    except RuntimeError:  # No thread can be started.
        for name in names:
            _remove(folder / name, is_ours)
    _try_to(folder.rmdir)


def remove_named(folder: Path, names: Iterable[str]) -> None:
    """Removes the files of these names in `folder`, and the folder if it is then empty."""
    for name in (*names, *CLUTTER):
        if (folder / name).is_symlink() or not (folder / name).is_dir():
            _try_to((folder / name).unlink)
    _try_to(folder.rmdir)


def keep_leftovers(folder: Path, data: Path) -> None:
    """Moves the remaining files of `folder`, which are not ours, to a folder next to `data`, and logs it."""
    names = [name for name in _names(folder) if not name.startswith(_OPEN_ON_NFS)]
    if not names:
        return
    numbers = ("", *(f".{number}" for number in range(1, 1000)))
    paths = (data.with_name(f"{data.name}.previous{number}") for number in numbers)
    kept = next(path for path in paths if not os.path.lexists(path))
    _try_to(lambda: folder.rename(kept))
    kept = kept if kept.is_dir() else folder
    logger.warning("%s: kept, it holds files that are no part of the dataset: %s", kept, shortened(names))


def shortened(names: Iterable[str]) -> str:
    """Returns the first few names for a message."""
    listed = [escape_control_chars(name) for name in sorted(names)]
    return ", ".join(listed[:_MAX_SHOWN]) + (", ..." if len(listed) > _MAX_SHOWN else "")


def _names(folder: Path) -> list[str]:
    try:
        return [] if folder.is_symlink() else os.listdir(folder)  # noqa: PTH208 - Names alone, of a million files.
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.warning("%s: not removed: %s", folder, error.strerror)
        return []


def _remove(path: Path, is_ours: Callable[[str], bool]) -> None:
    if path.is_dir() and not path.is_symlink():
        for name in _names(path):
            _remove(path / name, is_ours)
        _try_to(path.rmdir)
    elif is_ours(path.name):
        _try_to(path.unlink)


def _try_to(remove: Callable[[], object]) -> None:
    try:
        remove()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            logger.warning("%s: not removed: %s", error.filename, error.strerror)
