"""A split that is decoded once: by the stream, while the first epoch trains, and read by number from then on."""

import collections
import contextlib
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from shardstream.ingest.common.cpu_limits import usable_cores
from shardstream.train.data.input_pipeline import Arrays, StreamedSplit
from shardstream.train.data.order import epoch_permutation
from shardstream.train.data.stream import Threads

_FILL_BATCH = 64
# Batches that wait for a thread that keeps their pictures, while the next ones train.
_BATCHES_TO_KEEP = 2


class Pictures(Protocol):
    """Where the decoded pictures of a split are kept, by their number in the split."""

    def is_whole(self) -> bool:
        """Returns whether all are there."""
        ...

    def missing(self) -> np.ndarray:
        """Returns the numbers of those that can still be put in, int64, ascending."""
        ...

    def put(self, rows: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Keeps pictures, uint8 [batch, size, size, 3], if it can; those that are there already stay as they are."""
        ...

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns uint8 [num_examples, size, size, 3] and int32 [num_examples], once all are there."""
        ...

    def is_checked(self) -> bool:
        """Returns whether `check` has nothing more to look at."""
        ...

    def check(self, rows: np.ndarray) -> None:
        """Sees to it that the pictures `rows` are as they were put in, and decodes anew what is damaged."""
        ...


class CachedSplit:
    """A split whose decoded pictures are kept.

    The order depends on (seed, epoch) alone, not on what is kept already: the first epoch has the order of the
    stream, all others a true permutation. So a run that is resumed, finds the pictures of an earlier run or no room
    for its own trains the same.
    """

    def __init__(self, stream: StreamedSplit, pictures: Pictures) -> None:
        """Takes the split and where its pictures are to be kept."""
        self.split = stream.split
        self.share = stream.share
        self.image_size = stream.image_size
        self._stream = stream
        self._pictures = pictures

    def shuffled_batches(self, *, seed: int, epoch: int, start: int, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource`."""
        order = self.order(seed=seed, epoch=epoch)[start:]
        order = order[: len(order) // batch_size * batch_size]
        if epoch > 0:
            self.complete()
        if self._pictures.is_whole():
            return self._gathered(order, batch_size)
        if epoch > 0:  # There is no room, or another process fills the cache.
            return self._stream.chosen_batches(order, batch_size=batch_size)
        batches = self._stream.shuffled_batches(seed=seed, epoch=0, start=start, batch_size=batch_size)
        return self._kept(batches, order, batch_size)

    def ordered_batches(self, *, batch_size: int) -> Generator[Arrays]:
        """See `ExampleSource`."""
        order = np.arange(self.split.num_examples)
        if self._pictures.is_whole():
            return self._gathered(order, batch_size)
        return self._kept(self._stream.ordered_batches(batch_size=batch_size), order, batch_size)

    def order(self, *, seed: int, epoch: int) -> np.ndarray:
        """See `ExampleSource`."""
        return order_of_epoch(self._stream, seed=seed, epoch=epoch)

    def on_devices(self, batch: Any) -> Any:
        """See `ExampleSource`."""
        return batch

    def is_whole(self) -> bool:
        """Returns whether all pictures can be read by their number."""
        return self._pictures.is_whole()

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns all pictures and labels, once they are there. See `Pictures`."""
        return self._pictures.arrays()

    def complete(self) -> None:
        """See `ExampleSource`."""
        rows = self._pictures.missing()
        if not len(rows):
            return
        with contextlib.closing(self._stream.chosen_batches(rows, batch_size=_FILL_BATCH)) as batches:
            for part, (images, labels) in zip(in_batches(rows, _FILL_BATCH), batches, strict=True):
                self._pictures.put(part, images, labels)

    def _kept(self, batches: Generator[Arrays], order: np.ndarray, batch_size: int) -> Generator[Arrays]:
        waiting: collections.deque[Future[None]] = collections.deque()
        # Left early it still keeps what it has given out.
        with contextlib.closing(batches), ThreadPoolExecutor(1) as thread:
            for rows, (images, labels) in zip(in_batches(order, batch_size), batches, strict=True):
                waiting.append(thread.submit(self._pictures.put, rows, images, labels))
                yield images, labels
                if len(waiting) > _BATCHES_TO_KEEP:
                    waiting.popleft().result()
            for put in waiting:
                put.result()

    def _gathered(self, order: np.ndarray, batch_size: int) -> Generator[Arrays]:
        self._stream.free_windows()
        images, labels = self._pictures.arrays()
        is_checked = self._pictures.is_checked()
        buffers = self._stream.buffers

        def gather(rows: np.ndarray, out: np.ndarray) -> Arrays:
            if not is_checked:
                self._pictures.check(rows)
            # Without a mode NumPy writes to memory of its own first.
            return np.take(images, rows, axis=0, out=out, mode="clip"), labels[rows]

        waiting: collections.deque[Future[Arrays]] = collections.deque()
        with Threads(usable_cores()) as threads:
            for rows in in_batches(order, batch_size):
                waiting.append(threads.submit(gather, rows, buffers.take((len(rows), *images.shape[1:]))))
                if len(waiting) > usable_cores() + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def order_of_epoch(stream: StreamedSplit, *, seed: int, epoch: int) -> np.ndarray:
    """Returns the numbers of the examples, int64 [num_examples], in the order of an epoch with a cache."""
    if epoch == 0:
        return stream.order(seed=seed, epoch=0)
    return epoch_permutation(stream.split.num_examples, seed=seed, epoch=epoch)


def in_batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the numbers `order` in batches, the last of which may be shorter."""
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
