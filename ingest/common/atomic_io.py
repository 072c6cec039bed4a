"""Atomic file writes and renames: a path never refers to a partly written file."""

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
    """Yields a temporary file, which is renamed to `path` after it was written.

    A kill never leaves a partial file at `path`; a power cut within the next half minute may. Two processes may write
    the same path at once: each has its own temporary file, and the last rename wins.
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
    """Like `open_atomic_nosync`, but syncs the file before the rename, so that it also survives a power cut."""
    with open_atomic_nosync(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes) -> None:
    """Writes `content` to the file `path`, like `open_atomic`."""
    with open_atomic(path) as file:
        file.write(content)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with open_regular(path, buffering=0) as file:
        return hashlib.file_digest(cast(io.FileIO, file), "sha256").hexdigest()


def fsync_folder_contents(folder: Path) -> None:
    """Syncs all files of a folder to disk."""
    # Concurrently: a journaling file system commits once for all waiting fsyncs.
    with ThreadPoolExecutor(_MAX_SYNCED_AT_ONCE) as threads:
        for _ in threads.map(fsync_file, folder.iterdir()):
            pass
    fsync_folder(folder)


def fsync_folder(folder: Path) -> None:
    """Syncs the directory entries of `folder` to disk, if the file system supports it: FUSE and 9p may not."""
    try:
        fsync_file(folder)
    except OSError as error:
        if error.errno not in _FOLDER_SYNC_UNSUPPORTED:
            raise


def replace_in(folder: Path, new: Path) -> None:
    """Moves a file into `folder`, in place of the one of its name: atomic, and synced to disk before and after."""
    fsync_file(new)
    new.replace(folder / new.name)
    fsync_folder(folder)


def fsync_file(path: Path) -> None:
    """Syncs the content of a file to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(new: Path, name: Path) -> None:
    """Renames the folder `new` to `name` atomically; replaces only an empty folder.

    Raises:
        ConfigError: Something else exists at `name`.
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
    """Swaps two folders of one file system, atomically if it supports that, so that `old` is never missing.

    NFS and some others do not: there `old` is moved aside briefly while `new` is renamed.
    """
    if not _renameat2_exchange(new, old):
        old.rename(_aside(new))
        new.rename(old)
        _aside(new).rename(new)


def is_mount_point(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether `folder` is a mount point, which cannot be replaced by a rename.

    Args:
        folder: A path that may not exist.
        mounts: The kernel's list of mounts. Source: man 5 proc.
    """
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:  # Not Linux. Bind mounts of the same disk are not detected then.
        return folder.is_mount()
    points = {line.split(b" ")[4] for line in lines if line.count(b" ") > 4}  # "\040" is a space.
    unescaped = {re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), point) for point in points}
    return os.fsencode(folder.resolve()) in unescaped


def recover_swap(new: Path, old: Path) -> None:
    """Undoes an `exchange` that was killed between its two renames."""
    if _aside(new).is_dir() and not _aside(new).is_symlink():
        _aside(new).rename(new if os.path.lexists(old) else old)


def _aside(new: Path) -> Path:
    return new.with_name(f"{new.name}.before")


def _renameat2_exchange(one: Path, other: Path) -> bool:
    """Swaps two paths with renameat2; returns False if unsupported. Source: man 2 renameat2."""
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0
