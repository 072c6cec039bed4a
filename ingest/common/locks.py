"""File locks, which the kernel releases when their process ends for any reason."""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shardstream.ingest.common.errors import ConfigError

logger = logging.getLogger(__name__)

_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}


@contextlib.contextmanager
def lock_file(path: Path, *, busy: str) -> Iterator[None]:
    """Holds an exclusive lock on `path`, which is created empty and removed afterwards.

    An existing file of the user is locked too, but neither changed nor removed.

    Args:
        path: Path of the lock file. Never inside a folder that is removed while the lock is held: on NFS an open file
            that is removed stays in its folder under another name.
        busy: The message if another process holds the lock.

    Raises:
        ConfigError: Another process holds the lock, or `path` is a link or not a regular file.
    """
    descriptor = _locked(path, busy)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_size == 0 and is_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def open_lock_file(path: Path) -> int:
    """Returns a descriptor of a lock file, which is created if it does not exist.

    Raises:
        ConfigError: The path is a link or not a regular file.
    """
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644
        )
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        what = "a link" if error.errno == errno.ELOOP else "not a file"
        raise ConfigError(f"{path}: {what}, expected a lock file or nothing; remove it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"{path}: not a file, expected a lock file or nothing; remove it")
    return descriptor


def try_lock(descriptor: int, path: Path) -> bool:
    """Returns whether this process holds the exclusive lock on an open file now; another one may hold it.

    True, with a warning, on a file system without locks. `path` is for the warning.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logger.warning("%s: this file system has no locks; start no second job for the same folder", path)
    return True


def _locked(path: Path, busy: str) -> int:
    while True:
        descriptor = open_lock_file(path)
        try:
            if not try_lock(descriptor, path):
                raise ConfigError(busy)
        except BaseException:
            os.close(descriptor)
            raise
        if is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # Its holder removed it in the meantime.


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
