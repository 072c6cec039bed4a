"""Decoded pictures in one file that is mapped into memory: its layout, and how damage is noticed.

A header of two pages that says what is in it, the pictures one behind the other, their labels (int32), a CRC-32C of
each picture (uint32), and the SHA-256 of all but the pictures. No fsync: what a power cut
spoils, the checksums notice, and the pictures can be decoded again.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import mmap
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

MAGIC = b"shardstream pictures "
_VERSION = b"1\n"
# Whole pages: TensorFlow wants its tensors aligned.
_HEADER_BYTES = 8192
_DIGEST_BYTES = hashlib.sha256().digest_size
# mmap.MAP_NORESERVE is there from Python 3.13 on. Without it Linux refuses a map larger than the memory.
_MAP_NORESERVE = 0x4000


class DamagedFileError(ValueError):
    """A file is not as it was written."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PictureLayout:
    """What is where in a file of `num_examples` pictures of `image_size` x `image_size`.

    Attributes:
        identity: All that decides the pictures; strings and numbers.
        origin: The folder of the dataset that they were made of.
    """

    identity: Mapping[str, Any]
    origin: str
    num_examples: int
    image_size: int

    @property
    def key(self) -> str:
        """Returns a name for the content: the same for the same identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def header(self) -> bytes:
        """The first bytes of the file."""
        text = json.dumps({"identity": self.identity, "origin": self.origin}, sort_keys=True).encode()
        header = MAGIC + _VERSION + text + b"\n"
        if len(header) > _HEADER_BYTES:  # A path of many Korean letters.
            return dataclasses.replace(self, origin="").header
        return header.ljust(_HEADER_BYTES, b"\0")

    @property
    def picture_bytes(self) -> int:
        """The size of a picture."""
        return self.image_size * self.image_size * 3

    @property
    def table_offset(self) -> int:
        """Where labels and checksums begin."""
        return _HEADER_BYTES + self.num_examples * self.picture_bytes

    @property
    def num_bytes(self) -> int:
        """The size of the file."""
        return self.table_offset + self.num_examples * 8 + _DIGEST_BYTES


def parse_header(header: bytes) -> dict[str, Any]:
    """Returns what a file says of itself, `identity` and `origin`; both are empty where that cannot be read."""
    try:
        first, text, _ = header.split(b"\n", 2)
        if first + b"\n" == MAGIC + _VERSION:
            return json.loads(text)
    except ValueError:
        pass
    return {"identity": {}, "origin": ""}


def read_header(path: Path) -> bytes:
    """Returns the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


class PartialPictureFile:
    """A file that is being filled, in any order, and takes its name once it is whole."""

    def __init__(self, descriptor: int, layout: PictureLayout) -> None:
        """Takes an empty file, open and locked by this process.

        Raises:
            OSError: There is no room for all of it.
        """
        self._descriptor = descriptor
        # The lock ends with the last who holds the descriptor.
        weakref.finalize(self, os.close, descriptor)
        self._layout = layout
        self._labels = np.zeros(layout.num_examples, np.int32)
        self._checksums = np.zeros(layout.num_examples, np.uint32)
        os.posix_fallocate(descriptor, 0, layout.num_bytes)
        _write(descriptor, layout.header, 0)

    def put(self, row: int, image: np.ndarray, label: int) -> None:
        """Writes a picture, uint8 and contiguous.

        Raises:
            OSError: The disk is full or fails.
        """
        self._labels[row], self._checksums[row] = label, google_crc32c.value(image)  # pyright: ignore[reportArgumentType]
        # Not through a map: there a full disk is a signal that ends the process.
        _write(self._descriptor, image.data, _HEADER_BYTES + row * self._layout.picture_bytes)

    def finish(self, here: Path, path: Path) -> "PictureFile":
        """Writes what belongs to the pictures and renames the file from `here` to `path`."""
        table = self._labels.tobytes() + self._checksums.tobytes()
        digest = hashlib.sha256(self._layout.header + table).digest()
        _write(self._descriptor, table + digest, self._layout.table_offset)
        here.rename(path)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        whole = PictureFile(os.dup(self._descriptor), path, self._layout)
        whole.is_checked[:] = True
        return whole


class PictureFile:
    """A whole file, which no other process removes while this one has it open.

    Attributes:
        images: uint8 [num_examples, image_size, image_size, 3]. What is written to it is seen by this process alone.
        labels: int32 [num_examples].
        is_checked: bool [num_examples], whether a picture was compared with its checksum.
    """

    def __init__(self, descriptor: int, path: Path, layout: PictureLayout) -> None:
        """Takes an open file and maps it.

        Raises:
            DamagedFileError: Its size, header or table is not as it was written.
            OSError: It cannot be mapped.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            size = os.fstat(descriptor).st_size
            if size != layout.num_bytes:
                raise DamagedFileError(f"{size:,} bytes, expected {layout.num_bytes:,}")
            # Python's map has a descriptor of its own, and with it the lock.
            content = mmap.mmap(
                descriptor,
                size,
                flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        finally:
            os.close(descriptor)
        self.path = path
        number, table = layout.num_examples, layout.table_offset
        shape = (number, layout.image_size, layout.image_size, 3)
        self.images = np.frombuffer(content, np.uint8, table - _HEADER_BYTES, _HEADER_BYTES).reshape(shape)
        self.labels = np.frombuffer(content, np.int32, number, table)
        self._checksums = np.frombuffer(content, np.uint32, number, table + 4 * number)
        self.is_checked = np.zeros(number, bool)
        found = hashlib.sha256(content[:_HEADER_BYTES] + content[table : size - _DIGEST_BYTES]).digest()
        if (
            content[-_DIGEST_BYTES:] != found
            or parse_header(content[:_HEADER_BYTES])["identity"] != layout.identity
        ):
            raise DamagedFileError("its description or table is damaged")

    @classmethod
    def open(cls, path: Path, layout: PictureLayout) -> "PictureFile":
        """Opens the file at `path`, and notes that it was used.

        Raises:
            DamagedFileError: It is not as it was written.
            OSError: There is none, or it cannot be read or mapped.
        """
        opened = cls(os.open(path, os.O_RDONLY), path, layout)
        with contextlib.suppress(OSError):  # Somebody else's, to be read only.
            # The file system's own clock stands still for milliseconds: a file just written would be as old.
            now = time.time_ns()
            os.utime(path, ns=(now, now))
        return opened

    def damaged(self, rows: np.ndarray) -> np.ndarray:
        """Returns those of `rows` whose picture is not as it was written; looks at each picture once."""
        fresh = rows[~self.is_checked[rows]]
        self.is_checked[fresh] = True
        checksums = [google_crc32c.value(self.images[row]) for row in fresh]
        return fresh[np.asarray(checksums, np.uint32) != self._checksums[fresh]]


def _write(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    content = memoryview(content).cast("B")
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
