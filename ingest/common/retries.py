"""Trying again what the machine may do a moment later."""

import time
from collections.abc import Callable
from typing import TypeVar

from shardstream.ingest.common.errors import TRANSIENT_ERRNOS

Answer = TypeVar("Answer")

_PAUSES_SECS = (0.1, 0.4, 1.6)


def retry_transient(ask: Callable[[], Answer]) -> Answer:
    """Returns what `ask` returns; asks again after errors such as EIO, ESTALE or EMFILE, some seconds in all.

    Raises:
        OSError: The error lasts, or is none that passes.
    """
    for pause in _PAUSES_SECS:
        try:
            return ask()
        except OSError as error:
            if error.errno not in TRANSIENT_ERRNOS:
                raise
        time.sleep(pause)
    return ask()
