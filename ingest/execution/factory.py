"""Opens the engine that a command asks for."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from shardstream.ingest.common.memory_limits import check_address_space
from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.processes import open_pools

EngineName = Literal["local", "dask"]

# What NumPy, OpenCV and Arrow take once they are loaded, measured with `ulimit -v`: 350 MB; they crash below 250.
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
    """Gives an engine whose processes start at once, beside what the caller does meanwhile.

    Left by an exception it kills what it started: nothing that a worker has under way is worth waiting for, because
    whatever a worker leaves is never treated as complete.

    Args:
        name: "local" for processes of this machine, "dask" for those of Dask distributed.
        workers: The number of processes, unless a running cluster has its own.
        scheduler: With "dask", the address of the scheduler of a running cluster. Empty starts one on this machine.
        folders: With "dask", the folders that all workers have to see as this process sees them.
        preload: With "local", the modules of the tasks, loaded once in the server that workers are forked from.

    Raises:
        ConfigError: Dask is not installed, or the cluster cannot do this work.
        MachineError: The cluster was lost, or a process may not have the memory that loading the libraries takes.
    """
    check_address_space(_MIN_ADDRESS_SPACE)
    if name == "dask":
        from shardstream.ingest.execution.dask_cluster import open_dask

        engine = open_dask(workers, scheduler=scheduler, folders=folders)
    else:
        engine = open_pools(workers, preload=preload)
    with engine as opened:
        yield opened
