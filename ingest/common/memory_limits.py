"""How much memory this process may still take: the limits of containers respected."""

import contextlib
import ctypes
import resource
from pathlib import Path

from shardstream.ingest.common.cpu_limits import cgroup_folders
from shardstream.ingest.common.errors import MachineError


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Returns how much memory this process can still take before the machine or its container runs out.

    The least of what the kernel calls available and what is left below each cgroup's limit (v1 and v2, those
    of all parents too). Page cache counts as free: the kernel drops it when memory is wanted.
    """
    return max(0, min([_available_bytes(root), *_left_in_cgroups(root)]))


def check_address_space(num_bytes: int) -> None:
    """Raises MachineError where the limit of a process (`ulimit -v`, also of a batch system) is below `num_bytes`.

    Libraries that get no memory while they are loaded may crash instead of raising an error.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < num_bytes:
        raise MachineError(
            f"not enough memory: a process may have {limit / 1e6:.0f} MB of address space (ulimit -v), and "
            f"{num_bytes / 1e6:.0f} MB are needed"
        )


def use_one_arena() -> None:
    """Has glibc keep one heap instead of one for each thread, of 64 MB of address space each.

    For a command of few threads that a batch system may give little. Source: man 3 mallopt.
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
