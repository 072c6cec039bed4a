"""The errors a person is meant to read. Everything else that is raised is a bug.

    UserError          one clear sentence, no traceback
    ├── ConfigError    an option has a value that cannot be used          exit code 2
    ├── DatasetError   a folder or file is not what it has to be          exit code 2
    ├── LimitError     a limit that the user set was passed               exit code 3
    └── MachineError   the machine failed: no space, a dying disk         exit code 1

Not subclasses of ValueError: the parser of the command line would treat those as its own errors.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# Errors of the machine that may be over in a second: a server that restarts, a disk that is busy.
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
# Errors that the machine has to answer for, not the user and not a file.
MACHINE_ERRNOS = TRANSIENT_ERRNOS | {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class UserError(Exception):
    """Says in one sentence where, what was found, what was expected and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """An option has a value that cannot be used."""


class DatasetError(UserError):
    """A folder or a file is not what it has to be."""


class LimitError(UserError):
    """A limit that the user set was passed."""

    exit_code = 3


class MachineError(UserError):
    """The machine failed, not the user: no space left, a read error that lasts, a server that is gone."""

    exit_code = 1


def is_machine_error(error: OSError) -> bool:
    """Whether the machine has to answer for `error`."""
    return error.errno in MACHINE_ERRNOS


@contextlib.contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Says of an error of the machine while work goes on in `folder` that nothing is lost.

    Raises:
        MachineError: No space, or a disk that fails.
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
