"""A lock on a folder, released whenever and however its process ends."""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from shardstream.ingest.common.errors import ConfigError
from shardstream.ingest.common.locks import is_at, open_lock_file, try_lock

_Result = TypeVar("_Result")

_MAX_NOTE_CHARS = 4096
_TRIES, _SECS_BETWEEN_TRIES = 20, 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A process that is running."""

    pid: int
    host: str


@contextlib.contextmanager
def locked_by_this_process(path: Path) -> Iterator[None]:
    """Holds a lock on the file `path`, which names the holder.

    Raises:
        ConfigError: Another process holds it, or it is a link or a foreign file.
    """
    # Not filelock, which truncates the file before it knows whether another process holds it.
    with contextlib.closing(_locked(path)) as file:
        if os.fstat(file.fileno()).st_size and _parsed(file) is None:
            raise ConfigError(f"{path}: not a lock file of ours; move it elsewhere")
        note = json.dumps(dataclasses.asdict(Process(os.getpid(), platform.node()))).encode()
        # In this order, so that the file is never empty.
        os.pwrite(file.fileno(), note, 0)
        os.ftruncate(file.fileno(), len(note))
        yield


def locking_process(path: Path) -> Process | None:
    """Returns the process that holds the lock on `path`, or None if none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _tried(lambda: _parsed(file))  # Noted a moment after the lock is acquired.
    except OSError:  # None, or not a lock file of ours.
        pass
    return None


def _locked(path: Path) -> IO[str]:
    """Returns the lock file, opened and locked."""
    while True:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(os.fdopen(open_lock_file(path), "r+"))
            # A process that only checks also holds the lock for a moment.
            if not _tried(lambda file=file: try_lock(file.fileno(), path)):
                raise ConfigError(
                    f"{path.parent}: {_who(path)} is at work there; wait for it or choose another run folder"
                )
            if is_at(file.fileno(), path):
                opened.pop_all()
                return file
        path.parent.mkdir(parents=True, exist_ok=True)  # Its holder removed it in the meantime.


def _tried(attempt: Callable[[], _Result]) -> _Result | None:
    """Returns the first result of `attempt` that is true, or None if there is none for a moment."""
    for _ in range(_TRIES):
        if result := attempt():
            return result
        time.sleep(_SECS_BETWEEN_TRIES)
    return None


def _parsed(file: IO[str]) -> Process | None:
    file.seek(0)
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        process = Process(**json.loads(file.read(_MAX_NOTE_CHARS)))
        return process if isinstance(process.pid, int) and isinstance(process.host, str) else None
    return None


def _who(path: Path) -> str:
    process = locking_process(path)
    return f"process {process.pid} on {process.host}" if process else "another process"
