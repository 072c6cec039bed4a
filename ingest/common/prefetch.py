"""Asking a disk for many things one after the other, some of them ahead where it is slow to answer."""

import collections
import errno
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from shardstream.ingest.common.retries import retry_transient
from shardstream.ingest.common.safe_files import read_regular

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Content = bytes | OSError

# A mounted Drive or NFS answers after 50 ms, a photo is judged in 1: so many have to be asked for at once.
_MAX_AHEAD = 64
# What waits in memory is bounded, however large the files.
_MAX_BYTES_AHEAD = 32 << 20
# No photo is larger; something that is named like one may be, and is not worth a machine's memory.
_MAX_FILE_BYTES = 400_000_000
# A file in memory takes 0.05 ms, and handing it to a thread and back as much again.
_QUICK_SECS = 0.001
_NUM_REMEMBERED = 8


class LatencyEstimate:
    """How long a disk takes to answer, and how long its reader takes to ask for the next; both of late."""

    def __init__(self) -> None:
        self.ask_secs: collections.deque[float] = collections.deque(maxlen=_NUM_REMEMBERED)
        self.use_secs = 0.0

    @property
    def ahead(self) -> int:
        """How many answers are to be asked for at once."""
        # The quickest answer is the disk's; in others there may be the time that this process waited for a core.
        ask_secs = min(self.ask_secs, default=0.0)
        if ask_secs < max(_QUICK_SECS, self.use_secs / 4):
            return 0
        return min(_MAX_AHEAD, 1 + int(ask_secs / max(self.use_secs, _QUICK_SECS)))


def read_files(paths: Sequence[Path], sizes: Sequence[int], pace: LatencyEstimate) -> Iterator[Content]:
    """Yields the content of each file, or why it cannot be read, in order. Opens each once.

    Args:
        paths: The files.
        sizes: The bytes that each is expected to have.
        pace: What is known of the disk.
    """
    return prefetch_map(_read, list(zip(paths, sizes, strict=True)), sizes, pace)


def prefetch_map(
    function: Callable[[Item], Answer], items: Sequence[Item], sizes: Sequence[int], pace: LatencyEstimate
) -> Iterator[Answer]:
    """Yields `function` of each item, in order.

    As many are asked for ahead as come to be used in the time that one takes to be answered: none of a disk that is
    quicker than their use, where threads would only be in the way.

    Args:
        function: Asks the disk; called in threads.
        items: What to ask for.
        sizes: The bytes that each answer will take in memory.
        pace: What is known of the disk; learns more.
    """

    def ask(item: Item) -> Answer:
        began = time.monotonic()
        answer = function(item)
        pace.ask_secs.append(time.monotonic() - began)
        return answer

    asked: collections.deque[Future[Answer]] = collections.deque()
    end = bytes_ahead = 0  # Of what was asked for.
    with ThreadPoolExecutor(_MAX_AHEAD) as threads:
        for number, item in enumerate(items):
            while end < len(items) and len(asked) < pace.ahead and bytes_ahead < _MAX_BYTES_AHEAD:
                asked.append(threads.submit(ask, items[end]))
                bytes_ahead += sizes[end]
                end += 1
            if asked:
                answer = asked.popleft().result()
                bytes_ahead -= sizes[number]
            else:
                answer, end = ask(item), number + 1
            began = time.monotonic()
            yield answer
            pace.use_secs += (time.monotonic() - began - pace.use_secs) / 4


def _read(file: tuple[Path, int]) -> Content:
    path, size_bytes = file
    if size_bytes > _MAX_FILE_BYTES:
        return OSError(errno.EINVAL, f"{size_bytes:,} bytes, more than a photo has")
    try:
        return retry_transient(lambda: read_regular(path, max_bytes=_MAX_FILE_BYTES))
    except OSError as error:
        return error
    except MemoryError:
        return OSError(errno.ENOMEM, "not enough memory")
