"""Where work runs: a `concurrent.futures.Executor`. No step of the work knows which."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ingest.errors import MachineError

Task = TypeVar("Task")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def local_executor(workers: int) -> Iterator[Executor]:
    """Gives an executor of `workers` processes on this machine.

    The processes are forked from a small server that has the decoders loaded and no threads: forking the caller
    would copy its locks in whatever state they are.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ingest.units", "ingest.shards", "ingest.verify"])
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield executor
    except BrokenProcessPool:
        raise MachineError(
            "a worker process died, most often because memory ran out; the same command goes on where this one "
            "stopped, and fewer --workers need less memory"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def run_all(
    executor: Executor, function: Callable[[Task], Result], tasks: Iterable[Task], *, in_flight: int
) -> Iterator[Result]:
    """Runs `function` on each task and yields the results as they come, in any order.

    Args:
        executor: Where it runs.
        function: Can be pickled.
        tasks: Taken one by one: there may be more of them than memory has room for.
        in_flight: How many are handed out at once.
    """
    waiting: set[Future[Result]] = set()
    for task in tasks:
        if len(waiting) >= in_flight:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        waiting.add(executor.submit(function, task))
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides.
    # libtiff and libjpeg write what they think of broken files straight to stderr; the verdict says it better.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import cv2

    cv2.setNumThreads(1)  # The processes are the parallelism: threads on top only get in each other's way.
