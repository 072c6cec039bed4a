import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from shardstream.ingest.common.memory_limits import free_memory_bytes

GB = 2**30


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 * GB // 1024} kB\n",
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = {
    "proc/self/cgroup": "9:cpu,cpuacct:/job\n4:memory:/job/step\n0::/\n",
    "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": str(2**63 - 4096),
    "sys/fs/cgroup/memory/job/step/memory.usage_in_bytes": str(GB),
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(5 * GB),
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(3 * GB),
    "sys/fs/cgroup/memory/job/memory.stat": f"cache 1\ntotal_inactive_file {GB}\n",
}
V2 = {
    "proc/self/cgroup": "0::/docker/abc\n",
    "sys/fs/cgroup/docker/abc/memory.max": str(2 * GB),
    "sys/fs/cgroup/docker/abc/memory.current": str(GB // 2),
    "sys/fs/cgroup/memory.max": "max",
    "sys/fs/cgroup/memory.current": str(7 * GB),
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GB),  # No cgroups at all.
        (V1, 3 * GB),  # 5 is the limit of the parent, 3 is used, 1 of that is cache.
        (V2, 3 * GB // 2),
        # Inside a container: the path is the host's, the files are those of the mount.
        ({**V2, "proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/memory.max": str(7 * GB + 1)}, 1),
        ({**V2, "sys/fs/cgroup/docker/abc/memory.current": str(3 * GB)}, 0),
    ],
)
def test_free_memory_respects_every_limit(tmp_path, files, expected):
    assert free_memory_bytes(write(tmp_path, files)) == expected


def test_free_memory_of_this_machine():
    assert 2**20 < free_memory_bytes() < 2**50


def test_an_address_space_that_no_build_fits_into_is_one_sentence(tmp_path):
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(photos / name / "1.png")
    command = [sys.executable, "-m", "shardstream.ingest", "build", str(photos), str(tmp_path / "d")]
    limited = ["sh", "-c", 'ulimit -v 250000; exec "$@"', "sh", *command]
    ended = subprocess.run(limited, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("shardstream-ingest: not enough memory: a process may have 256 MB")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "d").exists()
