"""Adds ten photos to a dataset of a thousand shards: measures bytes written and time.

    python -m scripts.bench.update_shards [--count 20000] [--shard-size 20KiB] [--added 10]

The photos are drawn, 32x32 pixels and all different, and the shard size is small, so that there are many shards. A file
counts as written if its inode has changed, so a shard with an additional hard link does not.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from scripts.bench.million import CATEGORIES, draw_photo, draw_photos


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpdateConfig:
    """Adds ten photos to a dataset of a thousand shards."""

    count: int = 20_000
    """How many photos there are before."""
    added: int = 10
    """How many are added."""
    shard_size: str = "20KiB"
    """As for `shardstream-ingest build`."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes, to draw, to build and to update."""
    folder: Path | None = None
    """Where photos and datasets lie meanwhile; by default the system's temporary folder."""


def main(config: UpdateConfig) -> None:
    """Runs the benchmark and prints a table and one JSON line."""
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        photos, data = Path(folder) / "photos", Path(folder) / "data"
        draw_photos(photos, config.count, config.workers)
        build_secs = run(
            ["build", str(photos), str(data), "--image-size", "original", "--shard-size", config.shard_size],
            config,
        )
        before = files(data)
        for number, category in zip(range(config.added), itertools.cycle(CATEGORIES), strict=False):
            (photos / category / f"added{number}.jpg").write_bytes(draw_photo(config.count + number))
        update_secs = run(["update", str(photos), str(data)], config)
        after = files(data)
    new = {name: size for inode, (name, size) in after.items() if inode not in before}
    shards = {name: size for name, size in new.items() if ".tfrecord" in name}
    result = {
        "num_shards": sum(".tfrecord" in name for name, _ in after.values()),
        "num_shards_written": len(shards),
        "shard_bytes_written": sum(shards.values()),
        "other_bytes_written": sum(new.values()) - sum(shards.values()),
        "build_secs": build_secs,
        "update_secs": update_secs,
    }
    print("| shards | written | their bytes | index, manifest and metadata | update, s | build, s |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {result['num_shards']:,} | {len(shards):,} | {result['shard_bytes_written']:,} "
        f"| {result['other_bytes_written']:,} | {update_secs:.1f} | {build_secs:.1f} |"
    )
    print(json.dumps(result))


def run(arguments: list[str], config: UpdateConfig) -> float:
    """Runs `shardstream-ingest` and returns how long it took."""
    command = [sys.executable, "-m", "shardstream.ingest", *arguments, "--workers", str(config.workers)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def files(folder: Path) -> dict[int, tuple[str, int]]:
    """Returns name and size of each file by its inode."""
    return {path.stat().st_ino: (path.name, path.stat().st_size) for path in folder.iterdir()}


if __name__ == "__main__":
    main(tyro.cli(UpdateConfig))
