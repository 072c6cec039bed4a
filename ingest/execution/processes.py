"""Worker processes of this machine, forked from a server that has the decoders loaded."""

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import forkserver

from shardstream.ingest.execution.base import Engine, Result, Task
from shardstream.ingest.execution.worker import (
    block_sigint,
    end_with_parent,
    silence_decoders,
    use_one_thread,
)

_DECODERS = ("cv2", "simplejpeg")


@contextlib.contextmanager
def started_afresh() -> Iterator[None]:
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
    with started_afresh(), open_pools(1) as engine:
        return engine.submit(function, task).result()


class _Pools(Engine):
    """A pool of processes on this machine, and the next one when it broke: one worker takes its pool with it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._new_pool()

    def in_flight(self) -> int:
        return 2 * self._workers

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
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
def open_pools(workers: int, *, preload: Sequence[str] = ()) -> Iterator[Engine]:
    """Gives an engine of `workers` processes, which are killed when it is left."""
    others = set(multiprocessing.active_children())
    _start_server(preload)
    pools = _Pools(workers)
    try:
        yield pools
    finally:
        # What they have done is known, and for the rest nobody waits. Asked to end, a worker that queues for tasks
        # behind one that was killed would never hear of it.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pools.close()


def _start_server(preload: Sequence[str]) -> None:
    """Starts, if it does not run, the server that workers are forked from; does not wait until it is ready.

    It has the decoders loaded and no threads. Forking this process instead would copy its locks in whatever state
    they are, and starting each worker afresh would load the decoders again for each.
    """
    multiprocessing.set_forkserver_preload([*_DECODERS, *preload])
    with block_sigint(), _silent_children():
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
