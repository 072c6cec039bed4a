"""Rates of work that is done again and again."""

import time
from collections.abc import Callable

from shardstream.train.profiling.diagnosis import Stage

_FEWEST_CALLS = 3


class Stopwatch:
    """Repeats a piece of work for some seconds and tells how fast it is."""

    def __init__(self, secs: float) -> None:
        """Takes for how long."""
        self._secs = secs

    def stage(self, name: str, work: Callable[[], int], finish: Callable[[], object] = lambda: None) -> Stage:
        """Returns how fast `work`, which returns the number of its pictures, is from the second call on.

        `finish` waits for what the last calls left under way, and is timed too.
        """
        work()  # Traces, compiles and starts threads.
        finish()
        began, cores_began = time.perf_counter(), time.process_time()
        num_calls = num_pictures = 0
        while num_calls < _FEWEST_CALLS or time.perf_counter() - began < self._secs:
            num_pictures += work()
            num_calls += 1
        finish()
        secs, core_secs = time.perf_counter() - began, time.process_time() - cores_began
        return Stage(
            name=name,
            images_per_sec=num_pictures / secs,
            core_ms=1000 * core_secs / num_pictures,
        )
