"""Sequential reads with prefetching, at a depth that adapts to the latency of the disk."""

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

# A mounted Drive or NFS has a latency of 50 ms, and an image is processed in 1 ms: this many reads must be in flight.
_MAX_AHEAD = 64
# Bounds the prefetched bytes in memory for large files.
_MAX_BYTES_AHEAD = 32 << 20
# No image is larger; a file named like one may be, and must not exhaust the memory.
_MAX_FILE_BYTES = 400_000_000
# A cached file takes 0.05 ms to read, and passing it through a thread as much again.
_QUICK_SECS = 0.001
_NUM_REMEMBERED = 8


class LatencyEstimate:
    """Recent read latency and consumer time, used to choose the prefetch depth."""

    def __init__(self) -> None:
        self.ask_secs: collections.deque[float] = collections.deque(maxlen=_NUM_REMEMBERED)
        self.use_secs = 0.0

    @property
    def ahead(self) -> int:
        """Returns how many reads to keep in flight."""
        # The minimum is the latency of the disk; other samples may include time waiting for a core.
        ask_secs = min(self.ask_secs, default=0.0)
        if ask_secs < max(_QUICK_SECS, self.use_secs / 4):
            return 0
        return min(_MAX_AHEAD, 1 + int(ask_secs / max(self.use_secs, _QUICK_SECS)))


def read_files(paths: Sequence[Path], sizes: Sequence[int], pace: LatencyEstimate) -> Iterator[Content]:
    """Yields the content of each file, or why it cannot be read, in order. Opens each once.

    Args:
        paths: The files.
        sizes: The expected size of each file in bytes.
        pace: The latency estimate of the disk.
    """
    return prefetch_map(_read, list(zip(paths, sizes, strict=True)), sizes, pace)


def prefetch_map(
    function: Callable[[Item], Answer], items: Sequence[Item], sizes: Sequence[int], pace: LatencyEstimate
) -> Iterator[Answer]:
    """Yields `function` of each item, in order.

    Prefetches as many items as are consumed during one read: none if the disk is faster than the consumer, because
    threads would only add overhead.

    Args:
        function: Reads an item; called in threads.
        items: The items to read.
        sizes: The bytes that each result will take in memory.
        pace: The latency estimate of the disk, which is updated.
    """

    def ask(item: Item) -> Answer:
        began = time.monotonic()
        answer = function(item)
        pace.ask_secs.append(time.monotonic() - began)
        return answer

    asked: collections.deque[Future[Answer]] = collections.deque()
    end = bytes_ahead = 0  # End and size of the prefetched items.
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
