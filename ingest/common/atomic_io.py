"""Atomic file writes and renames: a name never stands for a file that is half written."""

import contextlib
import ctypes
import errno
import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.safe_files import open_regular

_BUFFER_BYTES = 1 << 20
_MAX_SYNCED_AT_ONCE = 16
_FOLDER_SYNC_UNSUPPORTED = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EISDIR,
    errno.EPERM,
}


@contextlib.contextmanager
def open_atomic_nosync(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to, which takes the name `path` once all of it is written.

    A kill at any moment leaves no half of it under that name; a power cut within the next half minute may.
    Two processes may write the same file at once: each has its own until the end, and the last one stays.
    """
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with beside.open("wb", buffering=_BUFFER_BYTES) as file:
            yield file
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Gives the same, and the file takes its name once all of it is on the disk: a power cut leaves no half either."""
    with open_atomic_nosync(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` to the file `path`, as `open_atomic`."""
    with open_atomic(path) as file:
        file.write(content)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open_regular(path, buffering=0) as file:
        return hashlib.file_digest(cast(io.FileIO, file), "sha256").hexdigest()


def fsync_folder_contents(folder: Path) -> None:
    """Makes all files of a folder last through a power cut."""
    # At once: a file system notes down what it did once for all who wait for it.
    with ThreadPoolExecutor(_MAX_SYNCED_AT_ONCE) as threads:
        for _ in threads.map(fsync_file, folder.iterdir()):
            pass
    fsync_folder(folder)


def fsync_folder(folder: Path) -> None:
    """Makes the names in `folder` last through a power cut, as far as the file system can: FUSE and 9p may not."""
    try:
        fsync_file(folder)
    except OSError as error:
        if error.errno not in _FOLDER_SYNC_UNSUPPORTED:
            raise


def fsync_file(path: Path) -> None:
    """Makes the content of a file last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(new: Path, name: Path) -> None:
    """Gives the folder `new` its `name` in one step, which replaces nothing but an empty folder.

    Raises:
        ConfigError: There is something of that name.
    """
    try:
        new.rename(name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise ConfigError(
            f"{name}: appeared while the job ran, and was not touched; the finished dataset is {new}: move "
            f"{name.name} elsewhere and run the same command again"
        ) from None


def exchange(new: Path, old: Path) -> None:
    """Swaps two folders of one file system, in one step where it can do so: nobody finds `old` missing or half there.

    NFS and some others cannot: there `old` is moved aside for the moment that it takes to rename `new`.
    """
    if not _renameat2_exchange(new, old):
        old.rename(_aside(new))
        new.rename(old)
        _aside(new).rename(new)


def is_mount_point(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether something is mounted at `folder`: no other folder can take its place.

    Args:
        folder: It need not be there.
        mounts: What the kernel says is mounted. Source: man 5 proc.
    """
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:  # Not Linux. A folder of the same disk that is mounted is not seen then.
        return folder.is_mount()
    points = {line.split(b" ")[4] for line in lines if line.count(b" ") > 4}  # "\040" is a space.
    unescaped = {re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point) for point in points}
    return os.fsencode(folder.resolve()) in unescaped


def recover_swap(new: Path, old: Path) -> None:
    """Undoes an `exchange` that was killed between two renames, if it was."""
    if _aside(new).is_dir() and not _aside(new).is_symlink():
        _aside(new).rename(new if os.path.lexists(old) else old)


def _aside(new: Path) -> Path:
    return new.with_name(f"{new.name}.before")


def _renameat2_exchange(one: Path, other: Path) -> bool:
    """Asks Linux to swap two names; returns whether it could. Source: man 2 renameat2."""
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0
