"""Reading files that somebody else put there: regular files only, no further than their size."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shardstream.ingest.common.errors import ConfigError, DatasetError, UserError, is_machine_error

# Small files that describe something, such as metadata.json: a larger one is none of ours.
MAX_DESCRIPTION_BYTES = 32 << 20


@contextlib.contextmanager
def open_regular(path: Path, *, buffering: int = -1) -> Iterator[BinaryIO]:
    """Opens a file for reading, if it is a regular file or a link to one: a pipe or a device may never end.

    Raises:
        OSError: It cannot be opened, or is something else than a file.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with os.fdopen(descriptor, "rb", buffering=buffering) as file:
        yield file


def read_regular(path: Path, *, max_bytes: int = MAX_DESCRIPTION_BYTES) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: It cannot be read, is something else than a file, or is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EINVAL, f"{size:,} bytes, expected at most {max_bytes:,}", str(path))
        return file.read(size)  # No more than that: some files of /proc have size 0 and no end.


@contextlib.contextmanager
def parse_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turns any failure of a parser into a DatasetError: whatever the bytes of a file are, they are no bug of ours.

    Parsers of JSON, Parquet, HDF5, zip and protobuf raise whatever a crafted file leads them to: RecursionError,
    OverflowError, MemoryError, KeyError, TypeError and errors of their own.

    Args:
        path: The file that is parsed.
        remedy: What to do about it, for the end of the sentence.

    Raises:
        DatasetError: The file cannot be parsed.
    """
    try:
        yield
    except UserError:
        raise
    except RecursionError:
        raise DatasetError(f"{path}: cannot be read: nested too deeply; {remedy}") from None
    except MemoryError:
        raise DatasetError(f"{path}: cannot be read: it asks for too much memory; {remedy}") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}: not JSON ({error}); {remedy}") from None
    except OSError as error:
        if is_machine_error(error):
            raise
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from None
    except KeyError as error:
        raise DatasetError(f"{path}: cannot be read: no {error} in it; {remedy}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DatasetError(f"{path}: cannot be read: {reason}; {remedy}") from None


def refuse_link(path: Path, *, kind: str = "folder") -> None:
    """Refuses a link, or anything but a `kind`, at a name of ours: whoever planted it would have us write elsewhere.

    Args:
        path: The name; it may be free.
        kind: "folder" or "file".

    Raises:
        ConfigError: Something else is there.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{path}: a link, expected a {kind} or nothing; remove the link")
    if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
        raise ConfigError(f"{path}: not a {kind}; move it elsewhere")
