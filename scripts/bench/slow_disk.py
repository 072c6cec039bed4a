"""Measures ingest from a disk with high latency: opening any file takes a while.

    python -m scripts.bench.slow_disk PHOTOS [--count 3000] [--delays 0 5 50]

A small library, preloaded by the dynamic linker (LD_PRELOAD), delays each opening of a photo in all processes of the
command; building it needs a C compiler. All data are in the page cache.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

SLOW_OPEN = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int open64(const char *path, int flags, ...) {
    static int (*original)(const char *, int, ...);
    if (!original) original = dlsym(RTLD_NEXT, "open64");
    const char *slow = getenv("SLOW_FOLDER");
    if (slow && !strncmp(path, slow, strlen(slow)) && !(flags & O_DIRECTORY)) usleep(atoi(getenv("SLOW_MICROSECONDS")));
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    return original(path, flags, mode);
}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures ingest from a disk that is slow to answer."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    count: int = 3000
    """How many photos to work on."""
    delays: tuple[float, ...] = (0, 5, 50)
    """How long each opening takes, in milliseconds."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes."""


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(Path(folder))
        photos = copy_photos(config.photos, Path(folder) / "photos", config.count)
        rates = {
            delay: config.count / build_secs(photos, Path(folder) / "data", library, delay, config.workers)
            for delay in config.delays
        }
    print("| an opening takes | photos/s | one after the other it would be |")
    print("|---|---|---|")
    for delay, rate in rates.items():
        alone = f"at most {config.workers * 1000 / delay:,.0f}" if delay else ""
        print(f"| {delay:g} ms | {rate:,.0f} | {alone} |")
    print(json.dumps({"photos_per_sec": rates, "count": config.count, "workers": config.workers}))


def make_library(folder: Path) -> Path:
    """Returns the path of the library that delays opening."""
    library = folder / "slow_open.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=SLOW_OPEN, text=True, check=True)
    return library


def copy_photos(source: Path, target: Path, count: int) -> Path:
    """Copies the JPEGs of `source` repeatedly, each with a different comment after its first two bytes."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    for number in range(count):
        path = files[number % len(files)]
        copy = target / path.relative_to(source).parts[0] / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        copy.write_bytes(data[:2] + b"\xff\xfe\x00\x0a%08d" % number + data[2:])
    return target


def build_secs(photos: Path, data: Path, library: Path, delay: float, workers: int) -> float:
    """Returns the duration of a build."""
    slow = {
        "LD_PRELOAD": str(library),
        "SLOW_FOLDER": str(photos),
        "SLOW_MICROSECONDS": str(round(delay * 1000)),
    }
    command = [
        sys.executable,
        "-m",
        "shardstream.ingest",
        "build",
        str(photos),
        str(data),
        "--workers",
        str(workers),
    ]
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | slow, check=True, stdout=subprocess.DEVNULL)
    secs = time.perf_counter() - began
    shutil.rmtree(data)
    return secs


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
