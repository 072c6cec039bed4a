"""The engine on many machines: Dask distributed, over a file system that all of them see."""

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
# The workers of a batch job start after the scheduler, and load from a file system that all load from at once.
_FIRST_WORKER_SECS = 60
_CLOSE_SECS = 1
_NAMES_COMPARED = 100


@dataclasses.dataclass(frozen=True, slots=True)
class _Caller:
    """What a worker has to have in common with the process that it works for.

    Attributes:
        versions: Of all that decides the bytes of a dataset, and of what passes tasks on, by name.
        folders: Each folder with some of the names in it.
        shares_terminal: Whether the worker was started by the caller and writes to the same stderr.
    """

    versions: tuple[tuple[str, str], ...]
    folders: tuple[tuple[Path, tuple[str, ...]], ...]
    shares_terminal: bool


class _Cluster(Engine):
    """The workers of a Dask cluster; a task whose worker dies is tried by another one, a few times over."""

    def __init__(self, client: "Client", caller: _Caller) -> None:
        from distributed import KilledWorker

        # TypeError is what distributed's executor makes of a result whose worker dies before it has noted that it is
        # there (cfexecutor._cascade_future unpacks it as an error). A task that raises it itself raises it again.
        self._lost = (KilledWorker, TypeError)
        self._client = client
        self._caller = caller
        self._executor = client.get_executor(pure=False)
        self._num_workers = 0
        self._counted = -float("inf")

    def in_flight(self) -> int:
        # Workers come and go. Asking takes 1 ms: too long for each task, too little to matter each second.
        if time.monotonic() - self._counted > 1:
            workers = self._client.nthreads()
            self._num_workers = len(
                cast("dict[str, int]", workers)
            )  # Only asynchronous clients give a coroutine.
            self._counted = time.monotonic()
        return 2 * max(1, self._num_workers)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        return self._executor.submit(_run, self._caller, function, task)


@contextlib.contextmanager
def open_dask(workers: int, *, scheduler: str, folders: Sequence[Path]) -> Iterator[Engine]:
    """Gives an engine of the workers of a Dask cluster, see `factory.open_engine`."""
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

        # A default for its import: who wants to read what Dask logs sets DASK_LOGGING__DISTRIBUTED=info.
        loggers = ("distributed", "distributed.client", "tornado.application", "asyncio")
        dask.config.update_defaults({"logging": dict.fromkeys(loggers, "critical")})
        import distributed  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--engine dask needs {error.name}, which is not installed: pip install distributed"
        ) from None


@contextlib.contextmanager
def _started_afresh() -> Iterator[None]:
    """Has processes that Dask starts meanwhile know nothing of the caller's script and of the folder it runs in.

    They would run the script again, and start another job where it is not guarded by `if __name__ == "__main__"`. Dask
    starts them itself, so there is no other way; workers that it starts later, in the place of others, know the script.
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
    """Gives the address of a cluster of processes on this machine that nobody else is to use."""
    from distributed import LocalCluster

    with block_sigint(), _started_afresh():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # Any port, so that two clusters do not quarrel about Dask's usual one.
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
            memory_limit=None,  # As in the local engine. Dask would end workers that use their share of the memory.
        )
    try:
        yield cluster.scheduler_address
    except BaseException:
        for nanny in cluster.workers.values():
            nanny.close_gracefully()  # It is not to start its worker again.
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
        warnings.simplefilter("ignore")  # Of versions that differ: `_prepare` refuses those that matter.
        client = Client(address, timeout=_CONNECT_SECS, set_as_default=False)
    try:
        yield client
    finally:
        with contextlib.suppress(TimeoutError):
            client.close(timeout=_CLOSE_SECS)


def _check_answers(address: str) -> None:
    """Ensures that there is a scheduler. A client would wait for ever for what listens there and is none."""

    async def ask() -> None:
        from distributed import Security, rpc

        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            await asyncio.wait_for(scheduler.identity(), _CONNECT_SECS)

    try:
        with ThreadPoolExecutor(1) as thread:  # This one may have an event loop, as in a notebook.
            thread.submit(asyncio.run, ask()).result()
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "--scheduler has to be like tcp://host:8786, or like tls://host:8786 with certificates in the settings of "
            f"Dask; got {address}: {error}"
        ) from None
    except Exception:  # Whatever else may listen there answers whatever it likes.
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
    """Asks with a function that every Python has: ours cannot reach a worker that does not have this package."""
    expected = importlib.metadata.version("shardstream")
    answers = client.run(importlib.metadata.version, "shardstream", on_error="return")
    for worker, found in cast("dict[str, str | Exception]", answers).items():
        if found != expected:
            # An exception says that there is none.
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

    # Whether a folder has to be there at all is not for the engine to say.
    return tuple((folder.absolute(), first_names(folder)) for folder in folders if folder.is_dir())


def _prepare_all(caller: _Caller, dask_worker: "Worker") -> None:
    """What `Client.run` runs in each worker that there is; others may come later."""
    _prepare(caller, dask_worker.address, dask_worker.state.nthreads)


def _run(caller: _Caller, function: Callable[[Task], Result], task: Task) -> Result:
    """Runs `function` on `task`, in a worker."""
    from distributed import get_worker

    worker = get_worker()
    _prepare(caller, worker.address, worker.state.nthreads)
    return function(task)


@functools.lru_cache
def _prepare(caller: _Caller, address: str, num_threads: int) -> None:
    """Makes this process, of a cluster, a worker of `caller`; before its first task, for the cache keeps the answer.

    Raises:
        ConfigError: What this process does would not be what the caller would have done.
    """
    if num_threads != 1:
        # A decoder that hangs is ended by an alarm, which a process has one of, and which ends all of its threads.
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
        # Files come and go in the folder around DATA; on another disk hardly any of them is there.
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
