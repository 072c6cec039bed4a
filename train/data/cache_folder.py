"""The folder of decoded pictures on disk: what is kept, what has to go, and who uses what.

The locks are those of the kernel on the files themselves: the process that fills a file has it alone, those that read
it share it, and they end with the process however that ends. Not filelock, which has no shared locks.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shardstream.train.data.picture_file import MAGIC, PictureLayout, parse_header, read_header

logger = logging.getLogger(__name__)

_WHOLE, _PARTIAL = ".pictures", ".pictures.part"


def default_cache_dir() -> Path:
    """Returns where caches of programs belong: $XDG_CACHE_HOME or ~/.cache, and there a folder of our own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardstream"


class CacheFolder:
    """Files of decoded pictures, named by what is in them."""

    def __init__(self, path: Path, *, limit_bytes: int | None = None) -> None:
        """Takes a folder, which is made where it is needed, and how much may be in it."""
        self.path = path
        self._limit_bytes = limit_bytes

    def whole(self, layout: PictureLayout) -> Path:
        """Returns the name of the file once all pictures are in it."""
        return self.path / f"{layout.key}{_WHOLE}"

    def partial(self, layout: PictureLayout) -> Path:
        """Returns its name until then."""
        return self.path / f"{layout.key}{_PARTIAL}"

    def begin(self, layout: PictureLayout) -> int | None:
        """Returns an empty file to fill, locked by this process, or None if another process fills it or has just.

        Raises:
            OSError: There is no room, or the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.partial(layout)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Between the two calls another process may have finished the file, or swept it away.
            if not _lock(descriptor) or not _is_named(descriptor, path):
                os.close(descriptor)
                return None
            os.ftruncate(descriptor, 0)  # What a process that was killed left.
            self._make_room(layout.num_bytes)
        except BaseException:
            remove(path)
            os.close(descriptor)
            raise
        return descriptor

    def sweep(self, layout: PictureLayout) -> None:
        """Removes what no process uses and none will.

        That is half-written files, and those of an older state of the dataset of `layout` or of this program.
        """
        for path, header in self._files():
            is_partial = path.name.endswith(_PARTIAL)
            is_stale = path != self.whole(layout) and _is_stale(parse_header(header), layout)
            if (is_partial or is_stale) and _remove_unused(path):
                reason = "half-written" if is_partial else "of an older state of the dataset"
                logger.info("%s: removed, as it is %s", path, reason)

    def _make_room(self, num_bytes: int) -> None:
        """Removes the files that were not used for the longest time, until one of `num_bytes` has room.

        Raises:
            OSError: It has none.
        """
        found = {path: path.stat() for path, _ in self._files()}
        used = sum(stat.st_size for stat in found.values())
        whole = [path for path in found if path.name.endswith(_WHOLE)]
        for path in sorted(whole, key=lambda path: found[path].st_mtime_ns):
            if self._has_room(used, num_bytes):
                break
            if _remove_unused(path):
                used -= found[path].st_size
        if not self._has_room(used, num_bytes):
            raise OSError(errno.ENOSPC, f"no room for {num_bytes / 1e9:.2f} GB")

    def _has_room(self, used: int, num_bytes: int) -> bool:
        within_limit = self._limit_bytes is None or used + num_bytes <= self._limit_bytes
        return within_limit and num_bytes <= shutil.disk_usage(self.path).free

    def _files(self) -> Iterator[tuple[Path, bytes]]:
        """Yields the files that are ours, with their first bytes; a file that was just begun is empty."""
        for path in sorted([*self.path.glob(f"*{_WHOLE}"), *self.path.glob(f"*{_PARTIAL}")]):
            with contextlib.suppress(OSError):
                header = read_header(path)
                if not header or header.startswith(MAGIC):
                    yield path, header

    def free_bytes(self) -> int:
        """Returns how much can be put here, with nothing removed."""
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        if self._limit_bytes is None:
            return free
        used = sum(path.stat().st_size for path, _ in self._files())
        return min(free, self._limit_bytes - used)


def _is_stale(header: Mapping[str, Any], layout: PictureLayout) -> bool:
    if not header["identity"]:  # Of another version of the format.
        return True
    state = ("decoder", "fingerprint")
    differs = any(header["identity"].get(name) != layout.identity[name] for name in state)
    return differs and header["origin"] == layout.origin


def _remove_unused(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # It has just gone, or is somebody else's.
        return False
    try:
        return _lock(descriptor) and remove(path)
    finally:
        os.close(descriptor)


def remove(path: Path) -> bool:
    """Removes a file, if this user may; returns whether it was there and is gone."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
