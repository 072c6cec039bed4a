"""Retries after transient errors of the machine."""

import time
from collections.abc import Callable
from typing import TypeVar

from shardstream.ingest.common.errors import TRANSIENT_ERRNOS

Answer = TypeVar("Answer")

_PAUSES_SECS = (0.1, 0.4, 1.6)


def retry_transient(ask: Callable[[], Answer]) -> Answer:
    """Returns the result of `ask`; retries after errors such as EIO, ESTALE or EMFILE, for some seconds in total.

    Raises:
        OSError: The error persists, or is not transient.
    """
    for pause in _PAUSES_SECS:
        try:
            return ask()
        except OSError as error:
            if error.errno not in TRANSIENT_ERRNOS:
                raise
        time.sleep(pause)
    return ask()
