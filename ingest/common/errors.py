"""The errors a person is meant to read. Everything else that is raised is a bug.

    UserError          one clear sentence, no traceback
    ├── ConfigError    an option has a value that cannot be used          exit code 2
    ├── DatasetError   a folder or file is not what it has to be          exit code 2
    ├── LimitError     a limit that the user set was passed               exit code 3
    └── MachineError   the machine failed: no space, a dying disk         exit code 1

Not subclasses of ValueError: the parser of the command line would take those for mistakes of its own.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

# Errors of the operating system that the machine has to answer for, not the user.
MACHINE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENOMEM,
    errno.EFBIG,
}


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
    """The machine failed, not the user: no space left, a read error."""

    exit_code = 1


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
        raise MachineError(
            f"{folder}: {error.strerror}; what was done is kept: mend that and start the same command again"
        ) from None
