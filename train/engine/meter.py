"""How long an epoch's training takes, and how much of that it stands waiting for input."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from shardstream.train.engine.progress import Progress

Batch = TypeVar("Batch")


class EpochMeter:
    """Times one epoch, whose beginning may have been in another process.

    Waiting is the time in which the loop stands in `next(batches)`; two looks at the clock a step. On a CPU a step is
    over when its call returns, so that this is all the time in which nothing is trained; but decoding and training
    share the cores, and input that takes them away makes the steps longer, not the waiting. On a GPU the call
    returns while the device still works, so that it may be busy for a part of the waiting: next to nothing is proof
    that the device never waits for input, and much is at most what better input would gain. Neither shows the copy of
    a batch to the device, which belongs to the step. `shardstream-train doctor` measures each of them alone.
    """

    def __init__(self, start: Progress, clock: Callable[[], float] = time.perf_counter) -> None:
        """Goes on from the times of `start`; the clock is an argument so that tests need not wait."""
        self.waiting_secs = start.waiting_secs
        self._clock = clock
        self._made = clock()
        self._began = self._made - start.train_secs

    def secs(self) -> float:
        """Returns what the epoch has taken so far."""
        return self._clock() - self._began

    def waited_for(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yields `batches`; what it took to make them, since the meter was made, counts as waiting too."""
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
