"""Where work runs: a `concurrent.futures.Executor`. No step of the work knows which."""

import abc
import contextlib
import fcntl
import itertools
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Literal, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
EngineName = Literal["local", "dask"]

# What the server that workers are forked from has loaded, so that no worker has to: decoders above all.
_PRELOADED = ["cv2", "simplejpeg", "shardstream.ingest.units", "shardstream.ingest.shards"]


class Engine(abc.ABC):
    """Processes that run tasks. One for the whole of a job: they stay alive between its steps."""

    # What a future raises when the processes that tried its task died.
    _lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def run_all(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        alone: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """Runs `function` on each task and yields the results as they come, in any order.

        Args:
            function: Can be pickled.
            tasks: Taken one by one: there may be more of them than memory has room for.
            alone: What is called here for a task that was under way when a worker process died (a decoder
                crashed, memory ran out).
        """
        remaining = iter(tasks)
        waiting: dict[Future[Result], Task] = {}
        while True:
            for task in itertools.islice(remaining, max(0, self._in_flight() - len(waiting))):
                waiting[self._submit(function, task)] = task
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                task = waiting.pop(future)
                try:
                    result = future.result()
                except self._lost:
                    result = alone(task)
                yield result

    @abc.abstractmethod
    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Has a living worker run `function` on `task`."""

    @abc.abstractmethod
    def _in_flight(self) -> int:
        """Returns how many tasks are under way at once: so many that no worker waits for its next one."""


@contextlib.contextmanager
def open_engine(
    name: EngineName, *, workers: int, scheduler: str = "", folders: Sequence[Path] = ()
) -> Iterator[Engine]:
    """Gives an engine whose processes start at once, beside what the caller does meanwhile.

    Left by an exception it kills what it started: nothing that a worker has under way is worth waiting for, because
    whatever a worker leaves is never taken for whole.

    Args:
        name: "local" for processes of this machine, "dask" for those of Dask distributed.
        workers: The number of processes, unless a running cluster has its own.
        scheduler: With "dask", the address of the scheduler of a running cluster. Empty starts one on this machine.
        folders: With "dask", the folders that all workers have to see as this process sees them.

    Raises:
        ConfigError: Dask is not installed, or the cluster cannot do this work.
        MachineError: The cluster was lost.
    """
    if name == "dask":
        from shardstream.ingest.dask_engine import open_dask

        engine = open_dask(workers, scheduler=scheduler, folders=folders)
    else:
        engine = _open_pools(workers)
    with _started_afresh(), engine as opened:
        yield opened


@contextlib.contextmanager
def _started_afresh() -> Iterator[None]:
    """Has processes that are started meanwhile know nothing of the caller's script and of the folder it runs in.

    They would run the script again, `import tyro` and all, and start another job where it is not guarded by
    `if __name__ == "__main__"`; and take a stray numpy.py in that folder for NumPy.
    """
    main, safe = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if safe is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe


def run_alone(function: Callable[[Task], Result], task: Task) -> Result:
    """Runs `function` in a process of its own.

    Raises:
        BrokenExecutor: The process died.
    """
    with _started_afresh(), _open_pools(1) as engine:
        return engine._submit(function, task).result()


class _Pools(Engine):
    """A pool of processes on this machine, and the next one when it broke: one worker takes its pool with it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._new_pool()

    def _in_flight(self) -> int:
        return 2 * self._workers

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        try:
            return self._pool.submit(function, task)
        except BrokenExecutor:
            self._pool = self._new_pool()
            return self._pool.submit(function, task)

    def _new_pool(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("forkserver")
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=_start_worker)

    def close(self) -> None:
        """Waits for the processes to end."""
        self._pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _open_pools(workers: int) -> Iterator[Engine]:
    others = set(multiprocessing.active_children())
    _start_server()
    pools = _Pools(workers)
    try:
        yield pools
    finally:
        # What they have done is known, and for the rest nobody waits. Asked to end, a worker that queues for tasks
        # behind one that was killed would never hear of it.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pools.close()


def _start_server() -> None:
    """Starts, if it does not run, the server that workers are forked from; does not wait until it is ready.

    It has the decoders loaded and no threads. Forking this process instead would copy its locks in whatever state
    they are, and starting each worker afresh would load the decoders again for each.
    """
    multiprocessing.set_forkserver_preload(_PRELOADED)
    with deaf_to_ctrl_c(), _silent_children():
        forkserver.ensure_running()


@contextlib.contextmanager
def _silent_children() -> Iterator[None]:
    """Takes stderr from the processes that are started meanwhile.

    A worker that was just being started when this process ended would show that it cannot find what they shared.
    """
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    silence_decoders()
    use_one_thread()


@contextlib.contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Keeps Ctrl-C, which reaches a whole group, from the processes that are started meanwhile: this one decides.

    They would die each in the middle of something and show where. This process hears of it afterwards.
    """
    # All processes of multiprocessing need it; starting it meanwhile would let the signal through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Has the kernel end this process when the one that it works for ends, even by `kill -9`.

    Without it a worker of a pool waits for tasks for ever: it holds both ends of the pipe that they come through.
    The other end of the sentinel is held by the parent alone. When it closes, the kernel sends SIGIO, which ends a
    process that has no handler for it, whatever it is busy with.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, os.O_ASYNC)
    if not parent.is_alive():
        os._exit(1)


def silence_decoders() -> None:
    """Lets what libtiff and libjpeg think of broken files go unheard; the verdict says it better.

    They write straight to stderr.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def use_one_thread() -> None:
    """Keeps OpenCV to one thread: the processes are the parallelism, threads on top get in each other's way."""
    import cv2

    cv2.setNumThreads(1)
