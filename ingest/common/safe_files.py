"""Safe reading of untrusted files: only regular files, and only up to their size."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shardstream.ingest.common.errors import ConfigError, DatasetError, UserError, is_machine_error

# Limit for small description files such as metadata.json: ours are never larger.
MAX_DESCRIPTION_BYTES = 32 << 20


@contextlib.contextmanager
def open_regular(path: Path, *, buffering: int = -1) -> Iterator[BinaryIO]:
    """Opens a regular file, or a link to one, for reading: a pipe or a device may never end.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
    """
    # Without O_NONBLOCK, opening a pipe blocks until there is a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with os.fdopen(descriptor, "rb", buffering=buffering) as file:
        yield file


def read_regular(path: Path, *, max_bytes: int = MAX_DESCRIPTION_BYTES) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EINVAL, f"{size:,} bytes, expected at most {max_bytes:,}", str(path))
        return file.read(size)  # Not more: some files in /proc have size 0 and no end.


def check_regular(path: Path, remedy: str) -> None:
    """Checks that a file of a dataset is there, and no link, pipe or folder.

    Raises:
        DatasetError: It is not; the message ends with `remedy`.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise DatasetError(f"{path}: missing; {remedy}") from None
    if not stat.S_ISREG(mode):
        raise DatasetError(f"{path}: not a regular file; {remedy}")


@contextlib.contextmanager
def parse_errors(path: Path, remedy: str) -> Iterator[None]:
    """Converts any exception of a parser to a DatasetError: invalid file content is not a bug.

    Parsers of JSON, Parquet, HDF5, zip and protobuf can raise almost anything on a crafted file: RecursionError,
    OverflowError, MemoryError, KeyError, TypeError and their own errors.

    Args:
        path: Path of the parsed file.
        remedy: What to do about it, for the end of the message.

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
    """Refuses a link, or anything except a `kind`, at a path that we write to: a planted link would redirect writes.

    Args:
        path: The path, which may not exist.
        kind: "folder" or "file".

    Raises:
        ConfigError: Something else exists there.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise ConfigError(f"{path}: a link, expected a {kind} or nothing; remove the link")
    if not (stat.S_ISDIR(mode) if kind == "folder" else stat.S_ISREG(mode)):
        raise ConfigError(f"{path}: not a {kind}; move it elsewhere")
