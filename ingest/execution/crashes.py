"""Finds the item of a task that crashes or hangs its worker: the worker logs each item before it processes it."""

import collections
import os
import struct
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.execution.base import Result, Task
from shardstream.ingest.execution.processes import run_alone

# Per item, including reading. An image of 100 million pixels takes 2 s; a slow machine may be ten times slower.
MAX_SECS_PER_ITEM = 45
REASON = "kills or hangs its decoder"

_ITEM = struct.Struct("<q")
_MAX_DEATHS = 2


class AttemptLog:
    """A file with the item that a worker is processing; it outlives the worker."""

    def __init__(self, path: Path) -> None:
        """Creates or truncates the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._path = path
        self._descriptor = os.open(path, flags, 0o644)

    def __enter__(self) -> "AttemptLog":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def note(self, item: int) -> None:
        """Logs that the worker starts to process `item`."""
        os.pwrite(self._descriptor, _ITEM.pack(item), 0)


def find_crashing_item(path: Path) -> int | None:
    """Returns the item that a worker was processing when it died, or None if there was none."""
    try:
        return _ITEM.unpack(path.read_bytes())[0]
    except (FileNotFoundError, struct.error):
        return None


def run_isolated(
    function: Callable[[Task], Result],
    task: Task,
    *,
    log: Path,
    without: Callable[[Task, frozenset[int]], Task],
) -> Result:
    """Retries a task whose worker died, in its own processes; an item that crashes two of them is excluded.

    Args:
        function: Runs the task, and logs its items in an `AttemptLog`.
        task: The task.
        log: The path of that log.
        without: Returns the task without some of its items.

    Raises:
        MachineError: A worker died without processing an item.
    """
    deaths: collections.Counter[int | None] = collections.Counter()
    excluded: frozenset[int] = frozenset()
    while True:
        item = find_crashing_item(log)
        deaths[item] += 1
        if deaths[item] >= _MAX_DEATHS:
            if item is None or item in excluded:
                raise MachineError(
                    f"{log}: a worker process died twice between files, probably out of memory; the same "
                    "command resumes, and fewer --workers need less memory"
                )
            excluded |= {item}
        try:
            return run_alone(function, without(task, excluded))
        except BrokenExecutor:
            continue
