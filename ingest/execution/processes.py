"""Worker processes on this machine, forked from a server that has the decoders loaded.

Each worker has its own pipe, so that a dying worker loses only its current task. ProcessPoolExecutor is not used
because a crash breaks the pool with all tasks in flight, and multiprocessing's own fork server because its settings are
shared with the user's code.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.context as context
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection
from typing import Any

from shardstream.ingest.common.errors import MachineError
from shardstream.ingest.execution.base import Engine, Result, Task
from shardstream.ingest.execution.worker import (
    block_sigint,
    end_with_parent,
    silence_decoders,
    use_one_thread,
)

# The first one redirects stderr of the server and of all its forks.
_PRELOADED = ("shardstream.ingest.execution.silent", "cv2", "simplejpeg")
# By preloaded modules. A program usually has one, or a second one if it first ran a job that only needs decoders.
_servers: dict[tuple[str, ...], forkserver.ForkServer] = {}
_servers_lock = threading.Lock()


def run_alone(function: Callable[[Task], Result], task: Task) -> Result:
    """Runs `function` in its own process.

    Raises:
        BrokenExecutor: The process died.
    """
    with open_pools(1) as engine:
        return engine.submit(function, task).result()


@contextlib.contextmanager
def open_pools(workers: int, *, preload: Sequence[str] = ()) -> Iterator[Engine]:
    """Yields an engine with `workers` processes, which are killed on exit."""
    pools = _Pools(workers, _start_server(preload))
    try:
        yield pools
    finally:
        # All needed results have been received.
        pools.close()


class _Pools(Engine):
    """Processes on this machine; one that dies is replaced."""

    def __init__(self, workers: int, server: forkserver.ForkServer) -> None:
        self._tasks: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._tasks, server) for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    def in_flight(self) -> int:
        return 2 * len(self._workers)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        job = _Job(function, task)
        self._tasks.put(job)
        return job.future

    def close(self) -> None:
        """Kills the processes."""
        for worker in self._workers:
            worker.close()
        for _ in self._workers:
            self._tasks.put(None)
        for worker in self._workers:
            worker.join()


class _Job:
    """A function, its task, and the future of the result."""

    def __init__(self, function: Callable[[Any], Any], task: Any) -> None:
        self.function = function
        self.task = task
        self.future: Future[Any] = Future()


class _Worker(threading.Thread):
    """A process, and the thread that sends it one task after the other."""

    def __init__(self, tasks: "queue.SimpleQueue[_Job | None]", server: forkserver.ForkServer) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._tasks = tasks
        self._process: _Process | None = None
        self._pipe: Connection | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self) -> None:
        with contextlib.suppress(Exception):  # The first task reports why the process cannot be started.
            self._connect()
        while (job := self._tasks.get()) is not None:
            if self._is_closed:
                job.future.set_exception(BrokenExecutor("the engine was closed"))
                continue
            try:
                self._connect().send((job.function, job.task))
                result, error = self._connected().recv()
            except (EOFError, ConnectionError):
                self._end()
                job.future.set_exception(BrokenExecutor("a worker process died"))
            except BaseException as error:
                job.future.set_exception(error)
            else:
                job.future.set_result(result) if error is None else job.future.set_exception(error)

    def close(self) -> None:
        """Kills the process, even while it runs a task."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()

    def _connect(self) -> Connection:
        """Returns the pipe to the process, which is started if necessary."""
        if self._process is not None and not self._process.is_alive():
            self._end()
        if self._pipe is None:
            self._pipe, theirs = multiprocessing.Pipe()
            try:
                with self._lock:
                    if self._is_closed:
                        raise BrokenExecutor("the engine was closed")
                    process = _Process(self._server, theirs)
                    process.start()
                    self._process = process
            except (EOFError, OSError, MemoryError, RuntimeError) as error:
                self._end()
                raise MachineError(
                    f"no worker process can be started ({error or type(error).__name__}): not enough memory or "
                    "processes; fewer --workers need less of both"
                ) from None
            finally:
                theirs.close()
        return self._pipe

    def _connected(self) -> Connection:
        if self._pipe is None:
            raise EOFError
        return self._pipe

    def _end(self) -> None:
        with self._lock:
            if self._process is not None and self._process.pid is not None:
                self._process.kill()
                self._process.join()
            if self._pipe is not None:
                self._pipe.close()
            self._process = self._pipe = None


def _work(pipe: Connection) -> None:
    """Runs the tasks from `pipe`, in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    silence_decoders()
    use_one_thread()
    while True:
        try:
            function, task = pipe.recv()
        except EOFError:
            return
        try:
            result, error = function(task), None
        except Exception as raised:
            raised.add_note(traceback.format_exc())
            result, error = None, raised
        try:
            pipe.send((result, error))
        except (TypeError, AttributeError, ValueError) as unsendable:  # It cannot be pickled.
            pipe.send((None, RuntimeError(f"{error or unsendable}")))


class _Popen(popen_forkserver.Popen):
    """Starts a process from our own server, which does not import the caller's script.

    Importing it would run it again, and start another job if it is not guarded by `if __name__ == "__main__"`.
    Source: multiprocessing/popen_forkserver.py of Python 3.11 to 3.13.
    """

    def _launch(self, process_obj: "_Process") -> None:
        server = process_obj.take_server()
        preparation = {
            name: value
            for name, value in spawn.get_preparation_data(process_obj.name).items()
            if not name.startswith("init_main_from")
        }
        content = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(preparation, content)
            reduction.dump(process_obj, content)
        finally:
            context.set_spawning_popen(None)
        self.sentinel, writing = server.connect_to_new_process(self._fds)  # pyright: ignore[reportAttributeAccessIssue]
        # The child watches a duplicate of the writing end, to exit with this process.
        kept = os.dup(writing)
        self.finalizer = util.Finalize(self, _close_all, (kept, self.sentinel))
        with open(writing, "wb", closefd=True) as file:  # noqa: PTH123 - A descriptor has no path.
            file.write(content.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _close_all(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _Process(context.ForkServerProcess):
    """A worker process of our own server."""

    def __init__(self, server: forkserver.ForkServer, pipe: Connection) -> None:
        super().__init__(target=_work, args=(pipe,), daemon=True)
        self._server: forkserver.ForkServer | None = server

    def _Popen(self, process_obj: "_Process") -> _Popen:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Popen(process_obj)

    def take_server(self) -> forkserver.ForkServer:
        """Returns and removes the server: it must not be pickled with the other attributes for the new process."""
        server, self._server = self._server, None
        if server is None:
            raise RuntimeError("a process starts once")
        return server


def _start_server(preload: Sequence[str]) -> forkserver.ForkServer:
    """Returns the server that workers are forked from, starting it if necessary, without waiting until it is ready.

    It has the decoders loaded and no threads. Forking this process instead would copy locks in an arbitrary state, and
    spawning each worker would import the decoders each time.
    """
    with _servers_lock:
        modules = next((loaded for loaded in _servers if set(preload) <= set(loaded)), tuple(preload))
        server = _servers.setdefault(modules, forkserver.ForkServer())
        server.set_forkserver_preload([*_PRELOADED, *modules])
        with block_sigint(), _safe_path():
            server.ensure_running()
        return server


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Keeps processes started inside this context from importing a stray numpy.py in the current folder as NumPy."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
