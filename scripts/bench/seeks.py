"""Simulates the disk accesses of the reduce step: requests one by one, by windows, and after sorting.

    python -m scripts.bench.seeks [--counts 100000 1000000] [--seek-ms 10] [--mb-per-sec 150]

Records are where the map step leaves them, 256 per file, and are needed in random order. The real plan is used; instead
of running tasks on workers, each is counted. A request costs a seek, and its bytes.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import tyro

from shardstream.ingest.execution.base import Engine, Result, Task
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.sorted_runs import estimate_requests, is_worth_a_pass, merge

RECORDS_PER_FILE = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeeksConfig:
    """Counts what the reduce asks of a disk."""

    counts: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """How many records there are."""
    record_bytes: int = 41_000
    """The size of each."""
    seek_ms: float = 10.0
    """How long a seek takes, in milliseconds."""
    mb_per_sec: float = 150.0
    """How much the disk reads or writes of one file."""


class Counting(Engine):
    """Counts the requests of each task, and runs none."""

    def __init__(self) -> None:
        self.num_requests = 0

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Counts the requests of a run to be written, and reports it as written."""
        run = cast(Any, task)
        self.num_requests += sum(len(run.places.requests(window)) for window in run.places.windows())
        future: Future[Any] = Future()
        future.set_result(run.number)
        return future

    def in_flight(self) -> int:
        """Returns the number of concurrent tasks."""
        return 1


def main(config: SeeksConfig) -> None:
    """Prints a table and one JSON line."""
    print("| records | one by one | by windows | passes | requests in all | one by one, h | as planned, h |")
    print("|---|---|---|---|---|---|---|")
    results = [count_requests(count, config) for count in config.counts]
    for one in results:
        print(
            f"| {one['records']:,} | {one['records']:,} | {one['by_windows']:,.0f} | {one['passes']} "
            f"| {one['requests']:,.0f} | {one['before_hours']:.2f} | {one['after_hours']:.2f} |"
        )
    print(json.dumps(results))


def count_requests(count: int, config: SeeksConfig) -> dict[str, float]:
    """Returns the cost of reading the records of a dataset in the order of its shards, and writing them."""
    rows = np.random.default_rng(1).permutation(count).astype(np.uint32)
    numbers = np.arange(count)
    where = SimpleNamespace(
        sources=[str(number) for number in range(math.ceil(count / RECORDS_PER_FILE))],
        source_numbers=(numbers // RECORDS_PER_FILE).astype(np.uint32),
        offsets=(numbers % RECORDS_PER_FILE * config.record_bytes).astype(np.uint64),
        lengths=np.full(count, config.record_bytes, np.uint32),
    )
    catalog = cast(Catalog, where)
    num_bytes, seek_secs = count * config.record_bytes, config.seek_ms / 1000
    by_windows = estimate_requests(catalog, rows)
    engine, passes = Counting(), 0
    while is_worth_a_pass(estimate_requests(catalog, rows), seek_secs, num_bytes):
        merge(catalog, rows, Path(), engine)
        passes += 1
    requests = engine.num_requests + estimate_requests(catalog, rows)

    def hours(num_requests: float, num_copies: int) -> float:
        """Returns the time of the seeks, and of reading and writing all bytes this number of times."""
        return (num_requests * seek_secs + 2 * num_copies * num_bytes / (config.mb_per_sec * 1e6)) / 3600

    return {
        "records": count,
        "by_windows": by_windows,
        "passes": passes,
        "requests": requests,
        "before_hours": hours(count, 1),
        "after_hours": hours(requests, 1 + passes),
    }


if __name__ == "__main__":
    main(tyro.cli(SeeksConfig))
