"""External merge sort of records into shard order, for disks where each seek costs milliseconds.

The map step leaves records in file order, and a shard has records from everywhere: reading a hundred million of them
one by one takes a disk eleven days. A merge sort takes a few sequential passes instead: first, files that together fill
a window are read and written as one run in shard order; then runs are merged, about a hundred at a time. Each shard
then reads one piece of each run.
"""

import dataclasses
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shardstream.ingest.common.atomic_io import open_atomic_nosync
from shardstream.ingest.common.progress import progress
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.pipeline import record_reads
from shardstream.ingest.pipeline.catalog import Catalog
from shardstream.ingest.pipeline.disk_space import has_room
from shardstream.ingest.pipeline.record_reads import RecordPlaces
from shardstream.ingest.pipeline.shard_plan import Rows, record_places
from shardstream.ingest.pipeline.shards import read_intact, run_again

# Runs merged at once: a window then has a piece of 1 MiB of each.
_MAX_MERGED = 128
# Sequential throughput of a disk with slow seeks.
_BYTES_PER_SEC = 100e6
_NUM_SAMPLES = 16
# The runs of two passes, and the shards.
_COPIES = 3


@dataclasses.dataclass(frozen=True, slots=True)
class RunTask:
    """A run to write.

    Attributes:
        number: Number of the run in its pass.
        path: Path of the file to write.
        places: Locations of its records, in shard order.
    """

    number: int
    path: Path
    places: RecordPlaces


def sort_where_seeks_are_slow(catalog: Catalog, rows: Rows, folder: Path, engine: Engine) -> None:
    """Sorts records until another pass would no longer save time, and updates their locations in `catalog`.

    Args:
        catalog: All files.
        rows: The rows whose records are needed, in the desired order.
        folder: The folder for the runs, which are left there.
        engine: The engine that runs the work.
    """
    if not len(rows):
        return
    num_bytes = int(catalog.lengths[rows].sum(dtype=np.int64))
    written: list[Path] = []
    # A single run is sorted: no estimate, such as one on a stalled disk, can make another pass useful.
    while len(written) != 1 and is_worth_a_pass(
        estimate_requests(catalog, rows), _secs_per_request(catalog, rows), num_bytes
    ):
        if not written and not has_room(_COPIES * num_bytes, folder):
            return
        before = written
        written = merge(catalog, rows, folder, engine)
        for path in before:
            path.unlink()


def is_worth_a_pass(num_requests: float, secs_per_request: float, num_bytes: int) -> bool:
    """Whether one pass over all bytes takes less time than the requests that it saves."""
    in_order = 1 + num_bytes / record_reads.WINDOW_BYTES + num_bytes / record_reads.MAX_REQUEST_BYTES
    return (num_requests - in_order) * secs_per_request > 2 * num_bytes / _BYTES_PER_SEC


def estimate_requests(catalog: Catalog, rows: Rows) -> float:
    """Estimates from a sample of windows how many requests read the records of `rows` in this order."""
    num_bytes = int(catalog.lengths[rows].sum(dtype=np.int64))
    num_windows = max(1, round(num_bytes / record_reads.WINDOW_BYTES))
    size = -(-len(rows) // num_windows)
    num_requests = num_records = 0
    for number in _evenly(num_windows):
        window = rows[number * size : (number + 1) * size]
        num_requests += len(record_places(catalog, window).requests(slice(0, len(window))))
        num_records += len(window)
    return num_requests / num_records * len(rows)


def merge(catalog: Catalog, rows: Rows, folder: Path, engine: Engine) -> list[Path]:
    """Merges the files with the records of `rows` into fewer, each in this order; returns the new files."""
    group_numbers = _group_sources(catalog, rows)[catalog.source_numbers[rows]]
    order = np.argsort(group_numbers, kind="stable")
    bounds = np.searchsorted(group_numbers[order], np.arange(int(group_numbers.max()) + 2))
    paths = [folder / f"{uuid.uuid4().hex}.pictures" for _ in bounds[1:]]

    def rows_of(number: int) -> Rows:
        return rows[order[bounds[number] : bounds[number + 1]]]

    def tasks() -> Iterator[RunTask]:
        return (
            RunTask(number, path, record_places(catalog, rows_of(number)))
            for number, path in enumerate(paths)
        )

    first = len(catalog.sources)
    catalog.sources += map(str, paths)
    with progress("sorting", len(rows), "records") as advance:
        for number in engine.run_all(write_run, tasks(), alone=write_run_alone):
            moved = rows_of(number)
            lengths = catalog.lengths[moved]
            catalog.source_numbers[moved] = first + number
            catalog.offsets[moved] = np.cumsum(lengths, dtype=np.uint64) - lengths
            advance(len(moved), num_bytes=int(lengths.sum(dtype=np.int64)))
    return paths


def write_run(task: RunTask) -> int:
    """Writes a run and returns its number.

    Raises:
        DatasetError: A record is corrupt.
    """
    with open_atomic_nosync(task.path) as file:
        for framed, _ in read_intact(task.places):
            file.write(framed)
    return task.number


def write_run_alone(task: RunTask) -> int:
    """Retries a run whose worker died, in its own process.

    Raises:
        MachineError: That process died as well.
    """
    return run_again(write_run, task, task.path.name)


def _group_sources(catalog: Catalog, rows: Rows) -> np.ndarray:
    """Returns the run that the records of each source go to, intp [sources]."""
    numbers = catalog.source_numbers[rows]
    num_bytes = np.bincount(numbers, weights=catalog.lengths[rows], minlength=len(catalog.sources))
    used = np.flatnonzero(num_bytes)
    # Files that together fill a window are read sequentially from start to end, whatever the order of the records.
    by_size = (np.cumsum(num_bytes[used]) // record_reads.WINDOW_BYTES).astype(np.intp)
    by_count = np.arange(len(used)) // _MAX_MERGED
    chosen = by_size if 2 * len(np.unique(by_size)) <= len(used) else by_count
    groups = np.zeros(len(catalog.sources), np.intp)
    groups[used] = np.unique(chosen, return_inverse=True)[1]
    return groups


def _secs_per_request(catalog: Catalog, rows: Rows) -> float:
    """Returns the average time to read a record at a random location."""
    chosen = rows[_evenly(len(rows))].tolist()
    began = time.monotonic()
    for row in chosen:
        descriptor = os.open(catalog.sources[catalog.source_numbers[row]], os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pread(descriptor, int(catalog.lengths[row]), int(catalog.offsets[row]))
        finally:
            os.close(descriptor)
    return (time.monotonic() - began) / len(chosen)


def _evenly(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(_NUM_SAMPLES, count)).astype(np.intp)).tolist()
