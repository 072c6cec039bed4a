"""Memory limits of this process, including container limits."""

import contextlib
import ctypes
import resource
from pathlib import Path

from shardstream.ingest.common.cpu_limits import cgroup_folders
from shardstream.ingest.common.errors import MachineError


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Returns how much memory this process can still allocate before the machine or its container runs out.

    The minimum of the kernel's available memory and the rest below each cgroup limit (v1 and v2, including all
    parents). Page cache counts as free: the kernel drops it on demand.
    """
    return max(0, min([_available_bytes(root), *_left_in_cgroups(root)]))


def check_address_space(num_bytes: int) -> None:
    """Raises MachineError if the address space limit (`ulimit -v`, also set by batch systems) is below `num_bytes`.

    Libraries that cannot allocate memory during their import may crash instead of raising an error.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < num_bytes:
        raise MachineError(
            f"not enough memory: a process may have {limit / 1e6:.0f} MB of address space (ulimit -v), and "
            f"{num_bytes / 1e6:.0f} MB are needed"
        )


def use_one_arena() -> None:
    """Limits glibc to one heap instead of one per thread with 64 MB of address space each.

    For commands with few threads under the address space limit of a batch system. Source: man 3 mallopt.
    """
    m_arena_max = -8
    with contextlib.suppress(AttributeError, OSError):  # Another C library.
        ctypes.CDLL(None).mallopt(m_arena_max, 1)


def _available_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _left_in_cgroups(root: Path) -> list[int]:
    left = []
    for folder in cgroup_folders(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text()) - _cached_bytes(folder, cache_name)
            except (OSError, ValueError):  # No such file, or the word "max".
                continue
            left.append(limit - used)
    return left


def _cached_bytes(folder: Path, name: str) -> int:
    try:
        pairs = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return next((int(value) for key, value in pairs if key == name), 0)
