"""Decoded images in a file shared by later runs and concurrent processes.

        header, one page: a line with the name of the format, and the hash of the cache identity
        images, uint8, page-aligned: TensorFlow requires aligned tensors
        labels, int32, page-aligned

The file is filled under a temporary name by pwrite, where a full disk is an error and not a signal, and renamed when
complete. Readers hold a shared lock and map it privately, after checking its size: mapping a truncated file would end
in SIGBUS.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

_PAGE = 4096
_FORMAT = b"shardstream images 2\n"
_SUFFIX, _PARTIAL_SUFFIX = ".images", ".images.part"
# mmap.MAP_NORESERVE exists from Python 3.13 on. Without it Linux refuses a mapping larger than the memory.
_MAP_NORESERVE = 0x4000
_POLL_SECS = 0.2


def default_cache_dir() -> Path:
    """Returns our folder in the user's cache folder, $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardstream"


Write = Callable[[int, np.ndarray, np.ndarray], None]
Arrays = tuple[np.ndarray, np.ndarray]


class _Layout:
    """Offsets in a file of `num_images` images."""

    def __init__(self, identity: Mapping[str, object], num_images: int, image_size: int) -> None:
        text = json.dumps(identity, sort_keys=True).encode()
        self.name = hashlib.sha256(text).hexdigest()[:32]
        self.header = (_FORMAT + self.name.encode() + b"\n").ljust(_PAGE, b"\0")
        self.shape = (num_images, image_size, image_size, 3)
        self.image_bytes = image_size * image_size * 3
        self.labels_offset = _PAGE + -(-num_images * self.image_bytes // _PAGE) * _PAGE
        self.num_bytes = self.labels_offset + 4 * num_images


def open_or_fill(
    folder: Path,
    identity: Mapping[str, object],
    num_images: int,
    image_size: int,
    fill: Callable[[Write], None],
) -> Arrays | None:
    """Returns images uint8 [num_images, image_size, image_size, 3] and labels int32 of a file in `folder`.

    A missing file is created: `fill` is called with a function that writes images and labels from a row on. If another
    process is creating it, this one waits. Returns None, with a warning, if the disk is full or not writable.
    """
    layout = _Layout(identity, num_images, image_size)
    path = folder / f"{layout.name}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (arrays := _open(path, layout)) is None:
            with _locked(folder / f"{layout.name}{_PARTIAL_SUFFIX}", path) as descriptor:
                if descriptor is not None:
                    _make(descriptor, path, layout, fill)
        return arrays
    except OSError as error:
        logger.warning(
            "%s: images cannot be cached there (%s); they are decoded in every epoch", folder, error.strerror
        )
        return None


def _open(path: Path, layout: _Layout) -> Arrays | None:
    """Maps a complete file; returns None, and removes the file, if it is invalid."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # Opening a pipe would block.
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        size = os.fstat(descriptor).st_size
        if size != layout.num_bytes or os.pread(descriptor, _PAGE, 0) != layout.header:
            logger.warning(
                "%s: removed: %d bytes, expected %d of another content", path, size, layout.num_bytes
            )
            path.unlink(missing_ok=True)
            return None
        # The mapping has its own descriptor, which keeps the lock.
        content = mmap.mmap(
            descriptor, size, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # Time of last use.
        os.utime(path)
    images = np.frombuffer(content, np.uint8, layout.labels_offset - _PAGE, _PAGE)
    labels = np.frombuffer(content, np.int32, layout.shape[0], layout.labels_offset)
    return images[: layout.shape[0] * layout.image_bytes].reshape(layout.shape), labels


@contextlib.contextmanager
def _locked(partial: Path, path: Path) -> Iterator[int | None]:
    """Gives an empty file locked for writing, or None if another process completed it in the meantime."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        _wait_for_lock(descriptor, path)
        # Another process may have renamed or removed it while this one waited.
        if not _is_named(descriptor, partial):
            yield None
            return
        try:
            os.ftruncate(descriptor, 0)
            yield None if path.exists() else descriptor
        finally:
            if _is_named(descriptor, partial):  # Incomplete, so of no use.
                partial.unlink()
    finally:
        os.close(descriptor)


def _is_named(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _wait_for_lock(descriptor: int, path: Path) -> None:
    is_told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not is_told:
                logger.info("%s: another process decodes these images; waiting for it", path)
                is_told = True
            time.sleep(_POLL_SECS)


def _make(descriptor: int, path: Path, layout: _Layout, fill: Callable[[Write], None]) -> None:
    def write(first: int, images: np.ndarray, labels: np.ndarray) -> None:
        _pwrite(descriptor, images, _PAGE + first * layout.image_bytes)
        _pwrite(descriptor, labels, layout.labels_offset + 4 * first)

    os.posix_fallocate(descriptor, 0, layout.num_bytes)
    fill(write)
    _pwrite(descriptor, np.frombuffer(layout.header, np.uint8), 0)
    # Before the rename: a file with the final name is complete even after a power failure.
    os.fsync(descriptor)
    Path(f"{path.parent}/{layout.name}{_PARTIAL_SUFFIX}").rename(path)


def _pwrite(descriptor: int, array: np.ndarray, offset: int) -> None:
    # Flattened: a memoryview of an empty batch, which the last batch of a host may be, cannot be cast.
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
