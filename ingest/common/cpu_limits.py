"""The cores and cgroups of this process, including container limits."""

import os
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores that this process may run on, at least 1."""
    return max(1, min([len(os.sched_getaffinity(0)), *_cpu_quotas(root)]))


def cgroup_folders(root: Path, controller: str) -> list[Path]:
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


def _cpu_quotas(root: Path) -> list[int]:
    """Returns the quotas in cores, rounded up, of all cgroups that have one."""
    quotas = []
    for folder in cgroup_folders(root, "cpu"):
        try:
            if (folder / "cpu.max").is_file():
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota = int((folder / "cpu.cfs_quota_us").read_text())
                period = int((folder / "cpu.cfs_period_us").read_text())
        except (OSError, ValueError):  # No such file, or the word "max".
            continue
        if quota > 0:
            quotas.append(-(-quota // period))
    return quotas


def _with_parents(mount: Path, path: str) -> list[Path]:
    # In a container the path may be that of the host, while the mount shows only the container's own cgroup: then only
    # the mount itself exists.
    parts = [part for part in path.split("/") if part]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
