"""The workers that train together, and the rank of this process. Loads no TensorFlow."""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from shardstream.ingest.common.errors import ConfigError, UserError

StrategyName = Literal["auto", "default", "mirrored", "multiworker"]
Precision = Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"]
JitCompile = Literal["auto", "on", "off"]

_ADDRESS = re.compile(r"(?P<host>[^\s,/]+):(?P<port>\d{1,5})")


class WorkerLostError(UserError):
    """Another worker did not connect, exited or cannot be reached."""

    exit_code = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """The workers of a run, one process each.

    Attributes:
        addresses: Host and port of each worker, by rank; the same list on every worker.
        rank: Rank of this process; 0 is the chief, which writes the run folder.
    """

    addresses: tuple[str, ...] = ("this host",)
    rank: int = 0

    @property
    def num_workers(self) -> int:
        """Number of processes."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """Name of this worker in messages."""
        return f"worker {self.rank} ({self.addresses[self.rank]})"

    def host_and_port(self, rank: int) -> tuple[str, int]:
        """Returns the address of worker number `rank`."""
        host, _, port = self.addresses[rank].rpartition(":")
        return host.strip("[]"), int(port)  # An IPv6 address is in brackets.


ALONE = Cluster()


def find_cluster(hosts: str | None, rank: int | None, environment: Mapping[str, str] = os.environ) -> Cluster:
    """Returns the cluster given by `--hosts` and `--rank`, else by TF_CONFIG, else this process alone.

    Raises:
        ConfigError: The options or TF_CONFIG are invalid.
    """
    if hosts is not None or rank is not None:
        return _from_options(hosts, rank)
    if text := environment.get("TF_CONFIG", "").strip():
        return _from_tf_config(text)
    return ALONE


def _from_options(hosts: str | None, rank: int | None) -> Cluster:
    if hosts is None or rank is None:
        missing = "hosts" if hosts is None else "rank"
        raise ConfigError(
            f"hosts and rank go together, and {missing} is missing; give for example --hosts a:2222,b:2222 --rank 0"
        )
    return _checked("hosts", tuple(hosts.split(",")), "rank", rank)


def _from_tf_config(text: str) -> Cluster:
    try:
        content: Any = json.loads(text)
        tasks, task = content["cluster"], content["task"]
        chiefs, workers = list(tasks.get("chief", [])), list(tasks["worker"])
        kind, index = str(task["type"]), int(task["index"])
        if kind not in ("chief", "worker") or set(tasks) - {"chief", "worker"}:
            raise ValueError("of the kinds of tasks only chief and worker are known")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"TF_CONFIG: {_reason(error)}; expected for example "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    rank = index + (len(chiefs) if kind == "worker" else 0)
    return _checked("TF_CONFIG", tuple(map(str, chiefs + workers)), "its task", rank)


def _reason(error: Exception) -> str:
    return f"no {error.args[0]!r} in it" if isinstance(error, KeyError) else str(error)


def _checked(source: str, addresses: tuple[str, ...], rank_source: str, rank: int) -> Cluster:
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if not match or not 0 < int(match["port"]) < 2**16:
            raise ConfigError(f"{source}: {address!r} is no host and port such as a:2222")
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"{source}: {', '.join(addresses)} names a worker twice")
    if not 0 <= rank < len(addresses):
        raise ConfigError(
            f"{rank_source} is {rank}, but the {len(addresses)} workers have the numbers 0 to {len(addresses) - 1}"
        )
    return Cluster(addresses, rank)
