"""Measures the rate from photos to a dataset, compared with other libraries and the limit of the machine.

    python -m scripts.bench.ingest PHOTOS [--count 3000] [--rounds 3] [--ffcv-python PATH] [--litdata-python PATH]

PHOTOS has category folders. Their JPEGs are copied until there are --count. The first copy of each is the file itself;
the others are rotated, mirrored and encoded again, in up to eight ways, so that none is a duplicate or look-alike of
another. Photos with a color profile other than sRGB are left out: ours converts their colors, which the others do not.
The copies are in the page cache, and no writes are pending, before anything is timed. Each way is a program in
scripts/bench/peers/, run in separate processes; the ways alternate for several rounds, and the table has the medians.
Timed is the call that does the work, with all imports done, and TensorFlow started. For ours, FFCV and litdata this
includes starting the workers; the workers of ours import the decoders in it. Ours calls fsync on each file; the others
do not.
"""

import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro

from shardstream.ingest.images.icc import name_of_profile
from shardstream.ingest.images.jpeg import decode, encode, read_header

PROGRAMS = Path(__file__).with_name("peers")
_NUM_VARIANTS = 8
_QUALITY = 90


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures how fast photos become a dataset."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    count: int = 3000
    """How many photos to work on. With many the start of workers counts less: compare 3000 and 12000."""
    rounds: int = 3
    """How often each way is measured."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes, for the ways that use several."""
    only: tuple[str, ...] = ()
    """Measure only the ways whose name has one of these in it, such as: limit ours."""
    ffcv_python: Path | None = None
    """The Python of an environment with FFCV: see scripts/bench/peers/README.md."""
    litdata_python: Path | None = None
    """The Python of an environment with litdata: see there."""
    folder: Path | None = None
    """Where photos and datasets lie meanwhile; by default in the system's temporary folder."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A row of the table.

    Attributes:
        name: Name of the row.
        command: The program with its Python and its own options.
        limit: Name of the way that does the same work on the images and nothing else.
    """

    name: str
    command: tuple[str, ...]
    limit: str = ""


@dataclasses.dataclass(frozen=True)
class Times:
    """Duration of a way: wall-clock seconds, and CPU seconds of all its processes."""

    secs: float
    core_secs: float


COPY, DECODE, SMALL = (
    "limit: read, SHA-256, CRC, write",
    "limit: read, decode",
    "limit: read, decode, 300, encode",
)
TFDS_COPY, TFDS_DECODED = "TFDS, files copied unseen", "TFDS, each decoded first"


def main(config: BenchConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    ways = choose_ways(config)
    times: dict[str, list[Times]] = {way.name: [] for way in ways}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        num_bytes = make_photos(config.photos, Path(folder) / "photos", config.count)
        for _ in range(config.rounds):
            for way in ways:
                found = measure(way, Path(folder), config.workers)
                times[way.name].append(Times(found["secs"], found["core_secs"]))
                versions |= found["versions"]
                print(
                    f"{way.name}: {config.count / found['secs']:,.0f} photos/s", file=sys.stderr, flush=True
                )
    print_table(config, num_bytes, ways, times)
    print(json.dumps(describe(config, num_bytes, times, versions), ensure_ascii=False))


def choose_ways(config: BenchConfig) -> list[Way]:
    """Returns the ways to measure; reports those left out because their Python is missing."""
    ways = []
    for way in all_ways(config):
        if config.only and not any(part in way.name for part in config.only):
            continue
        if way.command[0] == "None":
            print(f"{way.name}: left out, see scripts/bench/peers/README.md for its Python", file=sys.stderr)
            continue
        ways.append(way)
    if not ways:
        sys.exit(f"--only {' '.join(config.only)}: no way has that in its name")
    return ways


def all_ways(config: BenchConfig) -> list[Way]:
    """Returns every way, in the order of the table."""

    def program(name: str, *options: str, python: Path | str | None = sys.executable) -> tuple[str, ...]:
        return (str(python), str(PROGRAMS / name), *options)

    ours, ffcv, litdata = "shardstream_build.py", config.ffcv_python, config.litdata_python
    return [
        Way(COPY, program("limit.py", "--work", "copy")),
        Way(
            "ours, original, --check header",
            program(ours, "--image-size", "original", "--check", "header"),
            COPY,
        ),
        Way(TFDS_COPY, program("tfds_build.py"), COPY),
        Way(
            "litdata, files copied unseen",
            program("litdata_optimize.py", "--image-size", "original", python=litdata),
            COPY,
        ),
        Way(DECODE, program("limit.py", "--work", "decode")),
        Way("ours, original, --check full", program(ours, "--image-size", "original"), DECODE),
        Way(TFDS_DECODED, program("tfds_build.py", "--decode"), DECODE),
        Way(SMALL, program("limit.py", "--work", "decode-resize-encode")),
        Way("ours, 300", program(ours, "--image-size", "300"), SMALL),
        Way("FFCV, 300", program("ffcv_write.py", python=ffcv), SMALL),
        Way("FFCV, as in its example", program("ffcv_write.py", "--example", python=ffcv), SMALL),
        Way(
            "litdata, 300",
            program("litdata_optimize.py", "--image-size", "300", python=litdata),
            SMALL,
        ),
    ]


def make_photos(source: Path, target: Path, count: int) -> int:
    """Copies the JPEGs of `source` repeatedly, each copy rotated and mirrored differently.

    Returns:
        The size of all copies together, bytes.
    """
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    files = [path for path in files if not name_of_profile(read_header(path.read_bytes()).profile)]
    if not files:
        sys.exit(f"{source}: no JPEG in it; name a folder of category folders with photos")
    if count > _NUM_VARIANTS * len(files):
        sys.exit(
            f"{source}: {len(files)} JPEGs are enough for --count {_NUM_VARIANTS * len(files):,} at most"
        )
    num_bytes = 0
    for number in range(count):
        path = files[number % len(files)]
        copy = target / path.relative_to(source).parts[0] / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        num_bytes += copy.write_bytes(_variant(path.read_bytes(), number // len(files)))
    return num_bytes


def _variant(data: bytes, number: int) -> bytes:
    """Returns a JPEG, unchanged for number 0, rotated by 90 degrees `number` times, mirrored from 4 on."""
    if not number:
        return data
    pixels = np.rot90(decode(data, read_header(data)), number)
    return encode(pixels[:, ::-1] if number >= 4 else pixels, _QUALITY, halve_colors=True)


def measure(way: Way, folder: Path, workers: int) -> dict:
    """Runs a way on `folder/photos` and returns its output; removes its dataset."""
    out = folder / "work" / "photos"
    out.parent.mkdir()
    os.sync()
    command = [*way.command, str(folder / "photos"), str(out), "--workers", str(workers)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{way.name}: {' '.join(command)} failed:\n{result.stderr[-2000:]}")
    shutil.rmtree(out.parent)
    return json.loads(result.stdout.splitlines()[-1])


def print_table(config: BenchConfig, num_bytes: int, ways: list[Way], times: dict[str, list[Times]]) -> None:
    """Prints the medians, as such and relative to the limit and to TFDS."""
    secs = {name: statistics.median(run.secs for run in runs) for name, runs in times.items()}
    core_secs = {name: statistics.median(run.core_secs for run in runs) for name, runs in times.items()}
    print(
        f"{config.count:,} photos of {num_bytes / config.count / 1e3:.0f} kB, {config.workers} workers, "
        f"medians of {config.rounds} rounds\n"
    )
    print("| way | photos/s | MB/s | core ms a photo | of its limit | of TFDS copying | of TFDS decoding |")
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        cells = [
            way.name,
            f"{config.count / secs[way.name]:,.0f}",
            f"{num_bytes / 1e6 / secs[way.name]:,.0f}",
            f"{core_secs[way.name] / config.count * 1e3:.2f}",
            *(
                f"{secs[other] / secs[way.name]:.2f}" if other in secs else ""
                for other in (way.limit, TFDS_COPY, TFDS_DECODED)
            ),
        ]
        print(f"| {' | '.join(cells)} |")


def describe(
    config: BenchConfig, num_bytes: int, times: dict[str, list[Times]], versions: dict[str, str]
) -> dict[str, object]:
    """Returns the conditions of the measurement."""
    return {
        "secs": {name: [round(run.secs, 6) for run in runs] for name, runs in times.items()},
        "core_secs": {name: [round(run.core_secs, 2) for run in runs] for name, runs in times.items()},
        "count": config.count,
        "bytes": num_bytes,
        "workers": config.workers,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
