"""Measures the duration of an epoch's training, and how much of it is waiting for input."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from shardstream.train.engine.progress import Progress

Batch = TypeVar("Batch")


class EpochMeter:
    """Times one epoch, which may have started in another process.

    Waiting is the time the loop spends in `next(batches)`, measured with two clock readings per step. On a CPU a step
    is complete when its call returns, so waiting is all the time without training; but decoding and training share
    the cores, and input that occupies them makes the steps longer, not the waiting. On a GPU the call returns while
    the device is still busy, which may overlap the waiting: little waiting proves that the device never waits for
    input, and much is an upper bound of what faster input would gain. Neither shows the copy of a batch to the device,
    which belongs to the step. `shardstream-train doctor` measures each of them separately.
    """

    def __init__(self, start: Progress, clock: Callable[[], float] = time.perf_counter) -> None:
        """Continues from the times of `start`; the clock is an argument so that tests need not wait."""
        self.waiting_secs = start.waiting_secs
        self._clock = clock
        self._made = clock()
        self._began = self._made - start.train_secs

    def secs(self) -> float:
        """Returns the duration of the epoch so far."""
        return self._clock() - self._began

    def waited_for(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields `batches`; the time to create them, since the meter was made, counts as waiting too."""
        asked = self._made
        iterator = iter(batches)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waiting_secs += self._clock() - asked
            yield batch
            asked = self._clock()
