"""The engine for several machines: Dask distributed on a shared file system."""

import asyncio
import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import logging
import os
import platform
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

from shardstream.ingest.common.errors import ConfigError, MachineError, UserError
from shardstream.ingest.execution.base import Engine, Result, Task
from shardstream.ingest.execution.worker import (
    block_sigint,
    end_with_parent,
    silence_decoders,
    use_one_thread,
)

if TYPE_CHECKING:
    from distributed import Client, Worker

_CONNECT_SECS = 10
# Workers of a batch job start after the scheduler, and all import from the shared file system at the same time.
_FIRST_WORKER_SECS = 60
_CLOSE_SECS = 1
_NAMES_COMPARED = 100


@dataclasses.dataclass(frozen=True, slots=True)
class _Caller:
    """The environment of the caller, which workers must match.

    Attributes:
        versions: Versions of all libraries that affect the bytes of a dataset or transport tasks, by name.
        folders: Each folder with some of the names in it.
        shares_terminal: Whether the worker was started by the caller and writes to the same stderr.
    """

    versions: tuple[tuple[str, str], ...]
    folders: tuple[tuple[Path, tuple[str, ...]], ...]
    shares_terminal: bool


class _Cluster(Engine):
    """The workers of a Dask cluster; a task whose worker dies is retried a few times by other workers."""

    def __init__(self, client: "Client", caller: _Caller) -> None:
        from distributed import KilledWorker

        # distributed's executor raises TypeError if the worker dies before its result is registered
        # (cfexecutor._cascade_future unpacks it as an error). A task that raises TypeError itself does so again alone.
        self._lost = (KilledWorker, TypeError)
        self._client = client
        self._caller = caller
        self._executor = client.get_executor(pure=False)
        self._num_workers = 0
        self._counted = -float("inf")

    def in_flight(self) -> int:
        # The number of workers changes. A query takes 1 ms: too long for each task, negligible once a second.
        if time.monotonic() - self._counted > 1:
            workers = self._client.nthreads()
            self._num_workers = len(
                cast("dict[str, int]", workers)
            )  # Only asynchronous clients return a coroutine.
            self._counted = time.monotonic()
        return 2 * max(1, self._num_workers)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        return self._executor.submit(_run, self._caller, function, task)


@contextlib.contextmanager
def open_dask(workers: int, *, scheduler: str, folders: Sequence[Path]) -> Iterator[Engine]:
    """Yields an engine with the workers of a Dask cluster, see `factory.open_engine`."""
    _load_dask()
    with contextlib.ExitStack() as stack:
        address = scheduler or stack.enter_context(_local_cluster(workers))
        client = stack.enter_context(_connect(address))
        caller = _Caller(_versions(), _names(folders), shares_terminal=not scheduler)
        try:
            _wait_for_worker(client, address)
            _check_installed(client)
            client.run(_prepare_all, caller)
            yield _Cluster(client, caller)
        except UserError:
            raise
        except Exception as error:
            if isinstance(error, CancelledError) or client.status != "running":
                what = "the connection to the Dask scheduler was lost"
            elif type(error).__module__.startswith("distributed."):
                what = f"Dask gave up: {error}"
            else:
                raise
            raise MachineError(
                f"{address}: {what}; finished work is kept: once the cluster is back, run the same command again"
            ) from None


def _load_dask() -> None:
    try:
        import dask.config

        # Default log levels for the import; DASK_LOGGING__DISTRIBUTED=info enables the logs of Dask.
        loggers = ("distributed", "distributed.client", "tornado.application", "asyncio")
        dask.config.update_defaults({"logging": dict.fromkeys(loggers, "critical")})
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--engine dask needs {error.name}, which is not installed: pip install distributed"
        ) from None


@contextlib.contextmanager
def _started_afresh() -> Iterator[None]:
    """Hides the caller's script and current folder from processes that Dask starts inside this context.

    They would run the script again, and start another job if it is not guarded by `if __name__ == "__main__"`. Dask
    starts them itself, so there is no other way; workers that it starts later as replacements do see the script.
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


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[str]:
    """Yields the address of a private cluster of processes on this machine."""
    from distributed import LocalCluster

    with block_sigint(), _started_afresh():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # Any free port, so that two clusters do not conflict.
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            memory_limit=None,  # As in the local engine. Dask would kill workers above a memory limit.
        )
    try:
        yield cluster.scheduler_address
    except BaseException:
        for nanny in cluster.workers.values():
            nanny.close_gracefully()  # Keeps it from restarting its worker.
            if nanny.pid is not None:
                os.kill(nanny.pid, signal.SIGKILL)
        raise
    finally:
        cluster.close()


@contextlib.contextmanager
def _connect(address: str) -> Iterator["Client"]:
    from distributed import Client

    _check_answers(address)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About version mismatches: `_prepare` refuses those that matter.
        client = Client(address, timeout=_CONNECT_SECS, set_as_default=False)
    try:
        yield client
    finally:
        with contextlib.suppress(TimeoutError):
            client.close(timeout=_CLOSE_SECS)


def _check_answers(address: str) -> None:
    """Checks that a scheduler answers. A client would wait forever for another kind of server."""

    async def ask() -> None:
        from distributed import Security, rpc

        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await asyncio.wait_for(scheduler.identity(), _CONNECT_SECS)

    try:
        with ThreadPoolExecutor(1) as thread:  # The current thread may have an event loop, as in a notebook.
            thread.submit(asyncio.run, ask()).result()
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "--scheduler has to be like tcp://host:8786, or like tls://host:8786 with certificates in the settings of "
            f"Dask; got {address}: {error}"
        ) from None
    except Exception:  # Another kind of server may answer anything.
        raise ConfigError(
            f"--scheduler {address}: no Dask scheduler answers there; start one with `dask scheduler`, and look for "
            "the address in what it says"
        ) from None


def _wait_for_worker(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_FIRST_WORKER_SECS)
    except TimeoutError:
        raise ConfigError(
            f"--scheduler {address}: has no workers; start some with `dask worker {address} --nthreads 1 --nworkers N`"
        ) from None


def _check_installed(client: "Client") -> None:
    """Checks with a builtin function: our own cannot be unpickled by a worker without this package."""
    expected = importlib.metadata.version("shardstream")
    answers = client.run(importlib.metadata.version, "shardstream", on_error="return")
    for worker, found in cast("dict[str, str | Exception]", answers).items():
        if found != expected:
            # An exception means that it is not installed.
            what = f"shardstream {found}" if isinstance(found, str) else "no shardstream"
            raise ConfigError(
                f"the Dask worker {worker} has {what}, expected {expected}: install the same versions everywhere"
            )


def _versions() -> tuple[tuple[str, str], ...]:
    import cv2

    names = ("numpy", "pillow", "simplejpeg", "dask", "distributed")
    return (
        ("Python", ".".join(platform.python_version_tuple()[:2])),
        ("opencv", cv2.__version__),
        *((name, importlib.metadata.version(name)) for name in names),
    )


def _names(folders: Sequence[Path]) -> tuple[tuple[Path, tuple[str, ...]], ...]:
    def first_names(folder: Path) -> tuple[str, ...]:
        with os.scandir(folder) as entries:
            return tuple(entry.name for entry in itertools.islice(entries, _NAMES_COMPARED))

    # The engine does not check whether a folder must exist.
    return tuple((folder.absolute(), first_names(folder)) for folder in folders if folder.is_dir())


def _prepare_all(caller: _Caller, dask_worker: "Worker") -> None:
    """Runs in each existing worker through `Client.run`; others may join later."""
    _prepare(caller, dask_worker.address, dask_worker.state.nthreads)


def _run(caller: _Caller, function: Callable[[Task], Result], task: Task) -> Result:
    """Runs `function` on `task`, in a worker."""
    from distributed import get_worker

    worker = get_worker()
    _prepare(caller, worker.address, worker.state.nthreads)
    return function(task)


@functools.lru_cache
def _prepare(caller: _Caller, address: str, num_threads: int) -> None:
    """Prepares this cluster process as a worker of `caller`. Cached, so it runs only before the first task.

    Raises:
        ConfigError: The environment of this process does not match that of the caller.
    """
    if num_threads != 1:
        # A hung decoder is killed by an alarm: there is one per process, and it kills all threads.
        raise ConfigError(
            f"the Dask worker {address} has {num_threads} threads, expected one: "
            "start workers with `dask worker SCHEDULER --nthreads 1 --nworkers N`"
        )
    differing = [
        f"{name} {found}, expected {expected}"
        for (name, expected), (_, found) in zip(caller.versions, _versions(), strict=True)
        if found != expected
    ]
    if differing:
        raise ConfigError(
            f"the Dask worker {address} would not write the same bytes: it has {'; '.join(differing)}. "
            "Install the same versions everywhere"
        )
    for folder, names in caller.folders:
        # Files in the folder around DATA change; but on another disk hardly any of them exists.
        num_seen = sum((folder / name).exists() for name in names)
        if not folder.is_dir() or 2 * num_seen < len(names):
            raise ConfigError(
                f"the Dask worker {address} sees {num_seen} of {len(names)} names in {folder}: all workers need the "
                "same file system at the same place"
            )
    end_with_parent()
    use_one_thread()
    if caller.shares_terminal:
        silence_decoders()
