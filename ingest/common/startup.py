"""What a command does before its imports. Imports next to nothing itself, so that it takes effect early."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def exit_on_ctrl_c() -> Iterator[None]:
    """Ends the process with exit code 130 if Ctrl-C is pressed inside, without a traceback.

    For imports: nothing was begun that has to be left in order, and libraries turn a KeyboardInterrupt in the middle of
    their import into errors of their own.
    """
    # What the process was started to ignore stays ignored, as a shell has it for jobs in the background.
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
