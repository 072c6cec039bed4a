"""Asking a disk for many things one after the other, some of them ahead where it is slow to answer."""

import collections
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Content = bytes | OSError

# A mounted Drive or NFS answers after 50 ms, a photo is judged in 1: so many have to be asked for at once.
_MAX_AHEAD = 64
# What waits in memory is bounded, however large the files.
_MAX_BYTES_AHEAD = 32 << 20
# No photo is larger; something that is named like one may be, and is not worth a machine's memory.
_MAX_FILE_BYTES = 512 << 20
# A file in memory takes 0.05 ms; handing it to a thread and back costs as much again.
_QUICK_SECS = 0.0003


def read_files(paths: Sequence[Path], sizes: Sequence[int]) -> Iterator[Content]:
    """Yields the content of each file, or why it cannot be read, in order. Opens each once.

    Args:
        paths: The files.
        sizes: The bytes that each is expected to have.
    """
    return map_ahead(_read, list(zip(paths, sizes, strict=True)), sizes)


def map_ahead(
    function: Callable[[Item], Answer], items: Sequence[Item], sizes: Sequence[int]
) -> Iterator[Answer]:
    """Yields `function` of each item, in order.

    As many are asked for ahead as come to be used in the time that one takes to be answered: none of a disk that is
    quicker than their use, where threads would only be in the way.

    Args:
        function: Asks the disk; called in threads.
        items: What to ask for.
        sizes: The bytes that each answer will take in memory.
    """
    asked: collections.deque[Future[Answer]] = collections.deque()
    end = bytes_ahead = 0  # Of what was asked for.
    pace = _Pace(function)
    with ThreadPoolExecutor(_MAX_AHEAD) as threads:
        for number, item in enumerate(items):
            if asked:
                answer = asked.popleft().result()
                bytes_ahead -= sizes[number]
            else:
                answer, end = pace.ask(item), number + 1
            while end < len(items) and len(asked) < pace.ahead and bytes_ahead < _MAX_BYTES_AHEAD:
                asked.append(threads.submit(pace.ask, items[end]))
                bytes_ahead += sizes[end]
                end += 1
            began = time.monotonic()
            yield answer
            pace.use_secs += (time.monotonic() - began - pace.use_secs) / 4


class _Pace(Generic[Item, Answer]):
    """How long an answer takes to come, and how long its reader takes to ask for the next; both of late."""

    def __init__(self, function: Callable[[Item], Answer]) -> None:
        self._function = function
        self._ask_secs = 0.0
        self.use_secs = 0.0

    def ask(self, item: Item) -> Answer:
        began = time.monotonic()
        answer = self._function(item)
        self._ask_secs += (time.monotonic() - began - self._ask_secs) / 4
        return answer

    @property
    def ahead(self) -> int:
        """How many are to be asked for at once."""
        if self._ask_secs < max(_QUICK_SECS, self.use_secs / 4):
            return 0
        return min(_MAX_AHEAD, 1 + int(self._ask_secs / max(self.use_secs, _QUICK_SECS)))


def _read(file: tuple[Path, int]) -> Content:
    path, size_bytes = file
    if size_bytes > _MAX_FILE_BYTES:
        return OSError(0, f"{size_bytes:,} bytes, more than a photo has")
    try:
        with path.open("rb", buffering=0) as opened:
            return opened.read()
    except OSError as error:
        return error
