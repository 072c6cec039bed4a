"""Measures the input of training on 1 to n cores of this machine.

    python -m scripts.bench.scaling DATA [--cores 1 2 4 8 16] [--caches none memory] [--rounds 3] [--secs 3]

Each measurement is a separate process, limited to this number of cores (sched_setaffinity); the numbers of cores
alternate. CPU time per image is printed besides the rate: what the input uses, training cannot.
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import tyro

from shardstream.train.startup import start_tensorflow

Cache = Literal["none", "memory", "disk"]
_WARM_UP_BATCHES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures the input of training on 1 to n cores."""

    data_dir: tyro.conf.Positional[Path]
    """A dataset folder."""
    cores: tuple[int, ...] = ()
    """How many, each time; by default 1, 2, 4 and so on up to all."""
    caches: tuple[Cache, ...] = ("none", "memory")
    """Where decoded images are kept."""
    batch_size: int = 32
    """Images of a batch."""
    rounds: int = 3
    """How often each is measured."""
    secs: float = 3.0
    """For how long, each time."""
    measured: bool = False
    """Measures once with the cores that this process may use: for the processes that the benchmark starts."""


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    if config.measured:
        print(json.dumps(measure(config)))
        return
    available = sorted(os.sched_getaffinity(0))
    cores = config.cores or powers_of_two(len(available))
    if too_many := [count for count in cores if not 1 <= count <= len(available)]:
        sys.exit(f"--cores {too_many[0]}: this process may use 1 to {len(available)}")
    found: dict[Cache, dict[int, list[tuple[float, float]]]] = {
        cache: {count: [] for count in cores} for cache in config.caches
    }
    for _ in range(config.rounds):
        for cache in config.caches:
            for count in cores:
                found[cache][count].append(run(config, cache, available[:count]))
    report(found)


def powers_of_two(most: int) -> tuple[int, ...]:
    """Returns 1, 2, 4 and so on, and `most` last."""
    return (*(2**power for power in range(most.bit_length()) if 2**power < most), most)


def run(config: BenchConfig, cache: Cache, cores: list[int]) -> tuple[float, float]:
    """Returns the images a second and the core ms an image of a process on `cores`."""
    command = [sys.executable, "-m", "scripts.bench.scaling", str(config.data_dir), "--measured"]
    command += ["--caches", cache, "--batch-size", str(config.batch_size), "--secs", str(config.secs)]
    result = subprocess.run(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rate, core_ms = json.loads(result.stdout.splitlines()[-1])
    print(f"{cache}, {len(cores)} cores: {rate:,.0f} img/s", file=sys.stderr, flush=True)
    return rate, core_ms


def measure(config: BenchConfig) -> tuple[float, float]:
    """Returns the images a second and the core ms an image of this process."""
    start_tensorflow()
    from shardstream.train.data.dataset import load_dataset

    with tempfile.TemporaryDirectory() as folder:
        batches = iter(
            load_dataset(config.data_dir).train_batches(
                config.batch_size, seed=1, cache=config.caches[0], cache_dir=Path(folder)
            )
        )
        for _ in range(_WARM_UP_BATCHES):
            next(batches)
        num_images = 0
        start, core_start = time.perf_counter(), time.process_time()
        while time.perf_counter() - start < config.secs:
            next(batches)
            num_images += config.batch_size
        secs, core_secs = time.perf_counter() - start, time.process_time() - core_start
    return num_images / secs, 1000 * core_secs / num_images


def report(found: dict[Cache, dict[int, list[tuple[float, float]]]]) -> None:
    """Prints medians, and the rates as multiples of the rate on the fewest cores."""
    print("| cache | cores | img/s | times the first | core ms an image |\n|---|---|---|---|---|")
    for cache, by_cores in found.items():
        first = None
        for count, pairs in by_cores.items():
            rate, core_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
            first = first or rate
            print(f"| {cache} | {count} | {rate:,.0f} | {rate / first:.2f} | {core_ms:.3f} |")
    figures = {"rates_and_core_ms": found, "python": platform.python_version()}
    print(json.dumps(figures | {"load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
