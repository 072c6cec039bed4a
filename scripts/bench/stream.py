"""Measures the cost of a stream of training batches besides its rate: large photos, the first batch, memory.

    python -m scripts.bench.stream PHOTOS [--parts large first memory] [--rounds 3]

large: PHOTOS enlarged to 12 megapixels, and batches of 300x300 of them: ours, a plain pipeline that decodes and resizes
with antialiasing, without, and with hand-written code for the known photo size, and Keras's
`image_dataset_from_directory`, which has no antialiasing.
first: time to the first batch after TensorFlow has started, for the same images in 1 shard and in about 1,000.
memory: peak memory of a process after each of 20 epochs of 10,000 small records, and after as many steps through
250,000 and 1,000,000, without a cache. It grows until the windows of encoded images are full, and no further.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import tyro

from scripts.bench.ingest import make_photos

PROGRAMS = Path(__file__).with_name("peers")
PLAIN = "plain decode and resize, antialiased as ours"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measures what a stream of training batches costs beside its rate."""

    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    parts: tuple[Literal["large", "first", "memory"], ...] = ("large", "first", "memory")
    """What to measure."""
    rounds: int = 3
    """How often large and first are measured."""
    large_count: int = 192
    """How many photos of 12 megapixels."""
    first_count: int = 4000
    """How many photos for the first batch."""
    small_counts: tuple[int, ...] = (10_000, 250_000, 1_000_000)
    """How many small records for the memory; 32,768 of them fill a window."""
    epochs: int = 20
    """Of the fewest small records."""


def main(config: BenchConfig) -> None:
    """Runs the parts and prints a table of each and one JSON line."""
    figures: dict[str, object] = {"load_average": os.getloadavg()[0]}
    measure = {"large": measure_large, "first": measure_first, "memory": measure_memory}
    for part in config.parts:
        with tempfile.TemporaryDirectory() as folder:
            figures[part] = measure[part](config, Path(folder))
    print(json.dumps(figures))


def measure_large(config: BenchConfig, folder: Path) -> dict[str, list[float]]:
    """Prints the rates through photos of 12 megapixels, and returns those of each round."""
    from scripts.bench.peers.large_photos import enlarge

    enlarge(config.photos, folder / "originals", config.large_count)
    build(folder / "originals", folder / "data", image_size="original")
    ways = {
        "ours, --cache none": ("read_shardstream.py", "--cache", "none"),
        PLAIN: ("read_plain.py", "--antialias"),
        "plain decode and resize, not antialiased": ("read_plain.py", "--no-antialias"),
        "plain decode at an eighth (ratio=8) and resize": ("read_plain.py", "--antialias", "--ratio", "8"),
        "Keras image_dataset_from_directory": ("read_keras.py", "--photos", "originals"),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    core_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(config.rounds):
        for name, (program, *options) in ways.items():
            found = run(program, folder, folder / "own", *options, "--epochs", "2")
            epoch = found["epochs"][-1]  # The first includes starting threads.
            rates[name].append(epoch["pictures"] / epoch["secs"])
            core_ms[name].append(1000 * epoch["core_secs"] / epoch["pictures"])
            print(f"{name}: {rates[name][-1]:.1f} img/s", file=sys.stderr, flush=True)
    plain = statistics.median(rates[PLAIN])
    print(f"{config.large_count} photos of 12 megapixels to 300x300\n")
    print("| way | img/s | core ms a picture | of the plain one |\n|---|---|---|---|")
    for name in ways:
        rate = statistics.median(rates[name])
        print(f"| {name} | {rate:.1f} | {statistics.median(core_ms[name]):.1f} | {rate / plain:.2f} |")
    print()
    return rates


def measure_first(config: BenchConfig, folder: Path) -> dict[str, list[float]]:
    """Prints the time to the first batch, and returns the seconds of each round by the number of shards."""
    make_photos(config.photos, folder / "originals", config.first_count)
    build(folder / "originals", folder / "one", image_size=128, shard_size="10GiB")
    num_bytes = sum(path.stat().st_size for path in (folder / "one").glob("*tfrecord*"))
    build(folder / "originals", folder / "many", image_size=128, shard_size=f"{num_bytes // 1000}B")
    secs: dict[str, list[float]] = {}
    for _ in range(config.rounds):
        for name in ("one", "many"):
            num_shards = len(list((folder / name).glob("*tfrecord*")))
            found = run("read_first_batch.py", folder, folder / "own", "--data", name)
            secs.setdefault(f"{num_shards:,} shards", []).append(found["secs"])
    print("| | s to the first batch of 32 |\n|---|---|")
    for name, values in secs.items():
        print(f"| {name} | {statistics.median(values):.2f} |")
    print()
    return secs


def measure_memory(config: BenchConfig, folder: Path) -> dict[str, list[float]]:
    """Prints and returns the peak memory of a process so far, in MB, by epoch or by part."""
    from scripts.bench.peers.small_records import write_dataset

    found = {}
    steps = min(config.small_counts) // 32
    for count in config.small_counts:
        write_dataset(folder / f"data{count}", count)
        options = ("--data", f"data{count}", "--steps", str(steps), "--epochs", str(config.epochs))
        found[f"{count:,}"] = run("read_memory.py", folder, folder / "own", *options)["peak_mb"]
    print(f"| records | MB after {steps * 32:,} | after {config.epochs} times as many |\n|---|---|---|")
    for name, peaks in found.items():
        print(f"| {name} | {peaks[0]:,.0f} | {peaks[-1]:,.0f} |")
    print()
    return found


def build(images: Path, data: Path, *, image_size: int | str, shard_size: str = "128MiB") -> None:
    """Makes a dataset without a held-out split."""
    from shardstream.ingest.commands.build import build_dataset
    from shardstream.ingest.commands.config import BuildConfig

    options = {"image_size": image_size, "shard_size": shard_size, "validation": 0}
    build_dataset(BuildConfig(images=images, data=data, **options))  # pyright: ignore[reportArgumentType]


def run(program: str, *arguments: object) -> dict:
    """Runs a program of bench_peers/ and returns what it printed."""
    command = [sys.executable, str(PROGRAMS / program), *map(str, arguments)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
