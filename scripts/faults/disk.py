"""Runs jobs that run out of disk space at a random moment, and restarts them with enough space."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.faults.jobs import BUILD, UPDATE, FaultError, Scene, check_none_left, start, wait
from scripts.faults.stops import check_between, finish
from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA

_PLENTY_BYTES = 4 << 30
_LIMITED = (
    "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class Tmpfs:
    """A disk in memory; mounting it requires root."""

    how = "a disk of its own that is full (tmpfs)"
    sentence = "No space left on device"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, command: Sequence[str], num_bytes: int, log: Path) -> int:
        """Runs a command with at most `num_bytes` of disk space, and returns its exit code."""
        self._resize(num_bytes)
        try:
            return _run(command, log)
        finally:
            self._resize(_PLENTY_BYTES)

    def used(self) -> int:
        """Returns the number of bytes in use."""
        return shutil.disk_usage(self.folder).used

    def _resize(self, num_bytes: int) -> None:
        _mount("-o", f"remount,size={num_bytes}", self.folder)


class FileSizes:
    """A limit on the file size, as a substitute for the disk where nothing can be mounted."""

    how = "the largest size of a file (RLIMIT_FSIZE)"
    sentence = "File too large"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, command: Sequence[str], num_bytes: int, log: Path) -> int:
        """Runs a command that cannot make any file larger than `num_bytes`, and returns its exit code."""
        return _run([sys.executable, "-c", _LIMITED, str(num_bytes), *command], log)

    def used(self) -> int:
        """Returns the size of the largest file."""
        sizes = [0]
        # Not `rglob`, which fails if a folder is removed during the scan.
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    sizes.append((Path(folder) / name).stat().st_size)
        return max(sizes)


def _run(command: Sequence[str], log: Path) -> int:
    process = start(command, log)
    exit_code = wait(process)
    check_none_left(process.pid)
    return exit_code


@contextlib.contextmanager
def open_disk(folder: Path) -> Iterator[Tmpfs | FileSizes]:
    """Gives the best available substitute for a disk that can be filled."""
    folder.mkdir()
    if not _can_mount(folder):
        yield FileSizes(folder)
        return
    try:
        yield Tmpfs(folder)
    finally:
        # Lazily, as a process about to exit may still use it for a moment.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _can_mount(folder: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    try:
        _mount("-t", "tmpfs", "-o", f"size={_PLENTY_BYTES}", "tmpfs", folder)
    except subprocess.CalledProcessError:
        return False
    return True


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def measure_need(scene: Scene, disk: Tmpfs | FileSizes, job: str) -> tuple[int, int]:
    """Runs a job undisturbed; returns the bytes on the disk before it, and the maximum during it."""
    data = scene.prepare(job, disk.folder / "measured")
    before = most = disk.used()
    with start(scene.command(job, data), scene.folder / "stderr") as process:
        while process.poll() is None:
            most = max(most, disk.used())
            time.sleep(0.001)
    check_none_left(process.pid)
    shutil.rmtree(data.parent)
    return before, most


def full_disk_round(
    scene: Scene, disk: Tmpfs | FileSizes, needs: Mapping[str, tuple[int, int]], name: str, rng: random.Random
) -> list[tuple[str, str]]:
    """Runs a job on a disk that is too small, then on one that is large enough.

    Args:
        scene: The jobs.
        disk: The disk to work on.
        needs: Result of `measure_need` for each job.
        name: Name of the folder to create there.
        rng: Chooses the job and the space.

    Returns:
        The job and its phase when the disk was full; nothing if there was enough space.

    Raises:
        FaultError: A guarantee was violated.
    """
    job = rng.choice((BUILD, UPDATE))
    data = scene.prepare(job, disk.folder / name)
    log = scene.folder / "stderr"
    least, most = needs[job]
    if rng.random() < 1 / 3:  # The last files take little space, and would hardly ever be hit.
        last = sum((scene.reference / filename).stat().st_size for filename in (METADATA, MANIFEST))
        least = max(least, most - last)
    exit_code = disk.run(scene.command(job, data), rng.randint(least, most), log)
    said, stopped_in = log.read_text(), scene.phase(job, data)
    sentences = (disk.sentence, " are free; make room")
    is_said = said.count("\n") == 1 and any(text in said for text in sentences)
    if exit_code and not (exit_code == 1 and is_said):
        raise FaultError(f"exit code {exit_code} on a full disk, and said: {said[-1000:]}")
    check_between(scene, job, data)
    finish(scene, job, data)
    shutil.rmtree(data.parent)
    return [(job, stopped_in)] if exit_code else []
