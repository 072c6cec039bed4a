"""Errors for the user. Any other exception is a bug.

    UserError          one clear sentence, no traceback
    ├── ConfigError    an option has a value that cannot be used          exit code 2
    ├── DatasetError   a folder or file is missing, invalid or corrupt    exit code 2
    ├── LimitError     a limit that the user set was passed               exit code 3
    └── MachineError   the machine failed: no space, a dying disk         exit code 1

Not subclasses of ValueError: the parser of the command line would treat those as its own errors.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# Transient errors of the machine: a restarting server, a busy disk.
TRANSIENT_ERRNOS = {
    errno.EAGAIN,
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.EREMOTEIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# Errors caused by the machine, not by the user or a file.
MACHINE_ERRNOS = TRANSIENT_ERRNOS | {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class UserError(Exception):
    """An error whose message says in one sentence where, what was found, what was expected and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """An option has a value that cannot be used."""


class DatasetError(UserError):
    """A folder or a file is missing, invalid or corrupt."""


class LimitError(UserError):
    """A limit that the user set was passed."""

    exit_code = 3


class MachineError(UserError):
    """The machine failed: no space left, a permanent read error, an unreachable server."""

    exit_code = 1


def is_machine_error(error: OSError) -> bool:
    """Whether `error` is caused by the machine."""
    return error.errno in MACHINE_ERRNOS


@contextlib.contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Converts OSErrors of the machine during work in `folder` to a message that says that no work is lost.

    Raises:
        MachineError: No space, or a failing disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in MACHINE_ERRNOS:
            raise
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        raise MachineError(
            f"{folder}: {error.strerror}{where}; finished work is kept: fix that and run the same command again"
        ) from None
    except MemoryError:
        raise MachineError(
            f"{folder}: not enough memory; finished work is kept: run the same command again, with fewer --workers"
        ) from None
