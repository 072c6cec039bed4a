"""Opens the engine that a command asks for."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from shardstream.ingest.common.memory_limits import check_address_space
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.processes import open_pools

EngineName = Literal["local", "dask"]

# Address space of NumPy, OpenCV and Arrow after import, measured with `ulimit -v`: 350 MB; they crash below 250.
_MIN_ADDRESS_SPACE = 360_000_000


@contextlib.contextmanager
def open_engine(
    name: EngineName,
    *,
    workers: int,
    scheduler: str = "",
    folders: Sequence[Path] = (),
    preload: Sequence[str] = (),
) -> Iterator[Engine]:
    """Yields an engine whose processes start in the background.

    On an exception, kills the workers at once; partial output is never used.

    Args:
        name: "local" for processes on this machine, "dask" for Dask distributed.
        workers: The number of processes, unless a running cluster has its own.
        scheduler: With "dask", the address of the scheduler of a running cluster. Empty starts one on this machine.
        folders: With "dask", the folders that all workers must share with this process.
        preload: With "local", the modules of the tasks, imported once in the server that workers are forked from.

    Raises:
        ConfigError: Dask is not installed, or the cluster is not suitable.
        MachineError: The connection to the cluster was lost, or the memory limit is too low to import the libraries.
    """
    check_address_space(_MIN_ADDRESS_SPACE)
    if name == "dask":
        from shardstream.ingest.execution.dask_cluster import open_dask

        engine = open_dask(workers, scheduler=scheduler, folders=folders)
    else:
        engine = open_pools(workers, preload=preload)
    with engine as opened:
        yield opened
