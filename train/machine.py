"""What this process may use of the machine: cores and memory, the limits of containers respected."""

from pathlib import Path

from ingest import engine

_UNREADABLE = (OSError, ValueError)


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may run on, at least 1."""
    return max(1, min([engine.usable_cores(), *_cpu_quotas(root)]))


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Returns how much memory this process can still take before the machine or its container runs out.

    The least of what the kernel calls available and what is left below each cgroup's limit (v1 and v2, those
    of all parents too). Page cache counts as free: the kernel drops it when memory is wanted.
    """
    return max(0, min([_available_bytes(root), *_left_in_cgroups(root)]))


def _available_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _left_in_cgroups(root: Path) -> list[int]:
    left = []
    for folder in _cgroup_folders(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            try:
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text()) - _cached_bytes(folder, cache_name)
            except _UNREADABLE:  # No such file, or the word "max".
                continue
            left.append(limit - used)
    return left


def _cached_bytes(folder: Path, name: str) -> int:
    try:
        pairs = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
    except OSError:
        return 0
    return next((int(value) for key, value in pairs if key == name), 0)


def _cpu_quotas(root: Path) -> list[int]:
    """Returns the quotas in whole cores, rounded up, of all cgroups that have one."""
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        try:
            if (folder / "cpu.max").is_file():
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota = int((folder / "cpu.cfs_quota_us").read_text())
                period = int((folder / "cpu.cfs_period_us").read_text())
        except _UNREADABLE:
            continue
        if quota > 0:
            quotas.append(-(-quota // period))
    return quotas


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Returns the folders of this process's cgroup and of its parents, up to the mount."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        mounts = {"": ["", "unified"], controller: [controller, controllers]}
        for mount in dict.fromkeys(
            mounts.get(controllers, mounts[controller] if controller in names else [])
        ):
            folders += _with_parents(root / "sys/fs/cgroup" / mount, path.strip("/"))
    return folders


def _with_parents(mount: Path, path: str) -> list[Path]:
    # In a container the path may be the host's while the mount shows the container's own: then only the
    # mount itself is there.
    parts = [part for part in path.split("/") if part]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
