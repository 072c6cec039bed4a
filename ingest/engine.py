"""Where work runs: a `concurrent.futures.Executor`. No step of the work knows which."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from typing import TypeVar

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
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as executor:
        try:
            yield executor
        except BaseException:
            # Nothing that a worker has under way is worth waiting for: whatever it leaves is never taken for whole.
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def run_all(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    alone: Callable[[Task], Result],
) -> Iterator[Result]:
    """Runs `function` on each task and yields the results as they come, in any order.

    A worker process that dies (a decoder crashed, memory ran out) takes the whole pool with it. A new pool goes on
    with the tasks that had not begun; those that had are left to `alone`, one by one.

    Args:
        function: Can be pickled.
        tasks: Taken one by one: there may be more of them than memory has room for.
        workers: How many processes work at once.
        alone: What is called here for a task that was under way when a worker died.
    """
    remaining = iter(tasks)
    while True:
        lost: list[Task] = []
        with local_executor(workers) as executor:
            yield from _run_until_broken(executor, function, remaining, 2 * workers, lost)
        if not lost:
            return
        yield from map(alone, lost)


def run_alone(function: Callable[[Task], Result], task: Task) -> Result:
    """Runs `function` in a process of its own.

    Raises:
        BrokenExecutor: The process died.
    """
    with local_executor(1) as executor:
        return executor.submit(function, task).result()


def _run_until_broken(
    executor: Executor,
    function: Callable[[Task], Result],
    tasks: Iterator[Task],
    in_flight: int,
    lost: list[Task],
) -> Iterator[Result]:
    """Yields results until there are no more tasks or a worker dies; then puts what was under way into `lost`."""
    waiting: dict[Future[Result], Task] = {}
    for task in tasks:
        try:
            waiting[executor.submit(function, task)] = task
        except BrokenExecutor:
            lost.append(task)
            break
        if len(waiting) >= in_flight:
            yield from _take_done(waiting, lost)
        if lost:
            break
    while waiting:
        yield from _take_done(waiting, lost)


def _take_done(waiting: dict[Future[Result], Task], lost: list[Task]) -> Iterator[Result]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        task = waiting.pop(future)
        try:
            result = future.result()
        except BrokenExecutor:
            lost.append(task)
        else:
            yield result


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides.
    # libtiff and libjpeg write what they think of broken files straight to stderr; the verdict says it better.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import cv2

    cv2.setNumThreads(1)  # The processes are the parallelism: threads on top only get in each other's way.
