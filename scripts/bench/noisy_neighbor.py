"""Measures `train_batches` next to other CPU load, and how much Python it runs per image.

    python -m scripts.bench.noisy_neighbor DATA [--cache none] [--rounds 7] [--secs 3]

Three situations alternate for several rounds, in one process and on one iterator: alone, next to a thread that spins in
pure Python, and next to a process that spins. The process occupies a core, the thread a core and the GIL: the cost of
the latter is the ratio of the two rates. A Python loop consumes the batches, as in training.

Python per image: CPU time in the generators of the pipeline, and how often they are called.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import tyro

from shardstream.train.startup import start_tensorflow

SITUATIONS = ("alone", "thread", "process")
# Batches consumed before each measurement: those prefetched in the previous situation.
_WARM_UP_BATCHES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures `train_batches` beside other work."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Where decoded images are kept."""
    batch_size: int = 32
    """Images of a batch."""
    rounds: int = 7
    """How often each situation is measured."""
    secs: float = 3.0
    """For how long, each time."""


class PythonMeter:
    """Measures the processor time that the generators of tf.data take."""

    def __init__(self) -> None:
        self.secs = 0.0
        self.calls = 0

    def wrap(self, from_generator: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `Dataset.from_generator` for generators that are measured."""

        def measured(generator: Callable[[], Iterator[Any]], **options: Any) -> Any:
            return from_generator(lambda: self._timed(generator()), **options)

        return measured

    def _timed(self, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            start = time.thread_time()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.secs += time.thread_time() - start
                self.calls += 1
            yield item


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    start_tensorflow()
    import tensorflow as tf

    from shardstream.train.data.dataset import load_dataset

    meter = PythonMeter()
    tf.data.Dataset.from_generator = meter.wrap(tf.data.Dataset.from_generator)
    batches = load_dataset(config.data_dir).train_batches(config.batch_size, seed=1, cache=config.cache)
    meter.secs, meter.calls = 0.0, 0
    iterator = iter(batches)
    rates: dict[str, list[float]] = {situation: [] for situation in SITUATIONS}
    num_images = 0
    for _ in range(config.rounds):
        for situation in SITUATIONS:
            with beside(situation):
                count, secs = take(iterator, config.secs)
            rates[situation].append(count * config.batch_size / secs)
            num_images += (count + _WARM_UP_BATCHES) * config.batch_size
    report(rates, python_us=1e6 * meter.secs / num_images, images_per_call=num_images / max(1, meter.calls))


def take(iterator: Iterator[Any], secs: float) -> tuple[int, float]:
    """Takes batches for some seconds, and returns their number and the time."""
    for _ in range(_WARM_UP_BATCHES):
        next(iterator)
    start = time.perf_counter()
    for count in itertools.count(1):
        next(iterator)
        if (passed := time.perf_counter() - start) >= secs:
            return count, passed
    raise AssertionError


@contextlib.contextmanager
def beside(situation: str) -> Iterator[None]:
    """Has a thread or a process spin meanwhile."""
    if situation == "process":
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
            try:
                yield
            finally:
                process.kill()
        return
    stopped = threading.Event()
    spinning = threading.Thread(target=spin, args=(stopped,))
    if situation == "thread":
        spinning.start()
    try:
        yield
    finally:
        stopped.set()
        if situation == "thread":
            spinning.join()


def spin(stopped: threading.Event) -> None:
    """Runs Python until it is stopped."""
    while not stopped.is_set():
        pass


def report(rates: dict[str, list[float]], *, python_us: float, images_per_call: float) -> None:
    """Prints medians and their ratio."""
    alone, thread, process = (statistics.median(rates[situation]) for situation in SITUATIONS)
    print("| alone, img/s | beside a thread | beside a process | thread / process |\n|---|---|---|---|")
    print(f"| {alone:,.0f} | {thread:,.0f} | {process:,.0f} | {thread / process:.2f} |")
    print(f"\nPython: {python_us:.2f} core us an image, {images_per_call:,.0f} images a call")
    figures = {"rates": rates, "python_us": python_us, "images_per_call": images_per_call}
    print(json.dumps(figures | {"load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
