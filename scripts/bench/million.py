"""Builds datasets from many tiny photos: compares time and memory per file of a million with a hundred thousand.

    python -m scripts.bench.million [--counts 100000 1000000] [--folder FOLDER]

The photos are drawn first, 32x32 pixels and all different, a thousand per folder. `shardstream-ingest build` then runs
once for each of --counts, in separate processes, with the photos in the page cache. Memory is the peak resident size
reported by the kernel (VmHWM in proc_pid_status(5)), shared libraries included, read twenty times a second.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import tyro

from scripts.bench.peers.way import core_secs, family

CATEGORIES = ("food", "interior", "exterior")
PHOTOS_PER_FOLDER = 1000
SECS_BETWEEN_LOOKS = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class MillionConfig:
    """Builds datasets from many tiny photos and says time and memory per file."""

    counts: tuple[int, ...] = (100_000, 1_000_000)
    """How many photos to build from, one build for each; the first is what the others are compared with."""
    folder: Path | None = None
    """Where photos and datasets lie meanwhile, 5 kB for each photo; by default the system's temporary folder."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes, to draw and to build."""
    image_size: str = "original"
    """As for `shardstream-ingest build`."""


@dataclasses.dataclass(frozen=True)
class Build:
    """Result of a build.

    Attributes:
        count: Number of photos.
        num_ok: How many of them are in the dataset.
        secs: Duration of the command.
        core_secs: CPU seconds of all its processes.
        parent_bytes: Peak resident size of the main process.
        worker_bytes: Peak resident size of its largest child process.
    """

    count: int
    num_ok: int
    secs: float
    core_secs: float
    parent_bytes: int
    worker_bytes: int


def main(config: MillionConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    builds = []
    for count in config.counts:
        with tempfile.TemporaryDirectory(dir=config.folder) as folder:
            began = time.perf_counter()
            draw_photos(Path(folder) / "photos", count, config.workers)
            print(
                f"{count:,} photos drawn in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True
            )
            os.sync()
            builds.append(build(Path(folder), count, config))
            print(builds[-1], file=sys.stderr, flush=True)
    print_table(builds)
    print(json.dumps([dataclasses.asdict(one) for one in builds]))


def draw_photos(folder: Path, count: int, workers: int) -> None:
    """Draws photos into FOLDER/category/number/number.jpg."""
    jobs = [
        range(first, min(first + PHOTOS_PER_FOLDER, count)) for first in range(0, count, PHOTOS_PER_FOLDER)
    ]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as executor:
        for _ in executor.map(draw_folder, itertools.repeat(folder), jobs):
            pass


def draw_folder(root: Path, numbers: range) -> None:
    """Draws the photos of these numbers into a folder of their own."""
    cv2.setNumThreads(1)
    batch = numbers.start // PHOTOS_PER_FOLDER
    folder = root / CATEGORIES[batch % len(CATEGORIES)] / f"{batch:06d}"
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number:08d}.jpg").write_bytes(draw_photo(number))


def draw_photo(number: int) -> bytes:
    """Returns a smooth JPEG of 32x32 pixels, which differs for each `number`.

    Drawn from 8x8 random colors: with 4x4, 60,000 photos have 32,000 pairs of look-alikes, and a million nine million.
    """
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    picture = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(picture, 85, "RGB", "420", False)


def build(folder: Path, count: int, config: MillionConfig) -> Build:
    """Builds FOLDER/photos into FOLDER/data, monitors the processes, and removes the result."""
    data, log = folder / "data", folder / "build.log"
    command = [
        sys.executable,
        "-m",
        "shardstream.ingest",
        "build",
        str(folder / "photos"),
        str(data),
        "--json",
    ]
    command += [
        "--class-names",
        *CATEGORIES,
        "--image-size",
        config.image_size,
        "--workers",
        str(config.workers),
    ]
    cores, parent_bytes, worker_bytes = 0.0, 0, 0
    began = time.perf_counter()
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
        while process.poll() is None:
            cores = max(cores, core_secs(process.pid))
            parent_bytes = max(parent_bytes, peak_bytes(process.pid))
            for child in itertools.islice(family(process.pid), 1, None):
                worker_bytes = max(worker_bytes, peak_bytes(child))
            time.sleep(SECS_BETWEEN_LOOKS)
    secs = time.perf_counter() - began
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    shutil.rmtree(data)
    return Build(count, json.loads(output)["verdicts"]["ok"], secs, cores, parent_bytes, worker_bytes)


def peak_bytes(process: int) -> int:
    """Returns the peak resident size of a process; 0 if it has exited."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def print_table(builds: list[Build]) -> None:
    """Prints time and memory of each build, and how they depend on the number of files."""
    print("| files | stored | s | ms a file | core ms a file | parent, peak MB | largest worker, peak MB |")
    print("|---|---|---|---|---|---|---|")
    for one in builds:
        print(
            f"| {one.count:,} | {one.num_ok:,} | {one.secs:.0f} | {one.secs / one.count * 1e3:.3f} "
            f"| {one.core_secs / one.count * 1e3:.3f} | {one.parent_bytes / 1e6:.0f} | {one.worker_bytes / 1e6:.0f} |"
        )
    first = builds[0]
    for other in builds[1:]:
        time_ratio = other.secs / other.count / (first.secs / first.count)
        parent, worker = (
            (getattr(other, name) - getattr(first, name)) / (other.count - first.count)
            for name in ("parent_bytes", "worker_bytes")
        )
        print(
            f"\n{other.count:,} files take {time_ratio:.2f} times as long per file as {first.count:,}. Each file more "
            f"takes {parent:.0f} bytes of the parent's memory and {worker:.0f} of the largest worker's."
        )


if __name__ == "__main__":
    main(tyro.cli(MillionConfig))
