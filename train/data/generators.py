"""Generators that a pipeline calls from TensorFlow's threads, made safe at interpreter exit.

Python ends a thread that requests the GIL while the interpreter shuts down, and TensorFlow is not told. Destroying the
pipeline then waits forever for that thread to return: the script would never exit. So the interpreter waits for calls
in progress, and later calls find the generator exhausted.
"""

import atexit
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

_Item = TypeVar("_Item")

# Overhead of a call outside the generator: its arguments and result are converted.
_CONVERSION_SECS = 0.05


class _Calls:
    """Counts the calls in progress, until the interpreter exits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_running = 0
        self._num_begun = 0
        self.is_exiting = False

    def __enter__(self) -> None:
        with self._changed:
            self._num_running += 1
            self._num_begun += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._num_running -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Ends all generators, and returns once no call is in progress."""
        self.is_exiting = True
        num_begun = -1
        while num_begun != self._num_begun:
            num_begun = self._num_begun
            with self._changed:
                self._changed.wait_for(lambda: not self._num_running)
            time.sleep(_CONVERSION_SECS)


_calls = _Calls()
atexit.register(_calls.end)


def until_exit(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yields `items` until Python exits."""
    while True:
        with _calls:
            if _calls.is_exiting:
                return
            try:
                item = next(items)
            except StopIteration:
                return
        yield item
