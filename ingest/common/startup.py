"""Set-up of a command before its imports. Imports almost nothing itself, so that it takes effect early."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def exit_on_ctrl_c() -> Iterator[None]:
    """Exits with code 130 and without a traceback if Ctrl-C is pressed inside this context.

    For imports: there is nothing to clean up yet, and libraries convert a KeyboardInterrupt during their import to
    other errors.
    """
    # If SIGINT was ignored at start-up, it stays ignored, as in background jobs of a shell.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, _: object) -> NoReturn:
    os._exit(128 + number)
