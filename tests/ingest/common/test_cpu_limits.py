import os
from pathlib import Path

import pytest

from shardstream.ingest.commands.config import BuildConfig
from shardstream.ingest.common.cpu_limits import usable_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "quota",
    [
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "50000 100000"},
        {
            "proc/self/cgroup": "2:cpu:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
        },
    ],
)
def test_cores_respect_quotas(tmp_path, quota):
    assert usable_cores(write(tmp_path, quota)) == 1


@pytest.mark.parametrize(
    "no_quota",
    [
        {},
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000"},
        {
            "proc/self/cgroup": "2:cpu:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
        },
    ],
)
def test_cores_without_quota(tmp_path, no_quota):
    assert usable_cores(write(tmp_path, no_quota)) == len(os.sched_getaffinity(0))


def test_as_many_workers_as_cores(tmp_path):
    assert BuildConfig(images=tmp_path / "a", data=tmp_path / "b").workers == usable_cores()
