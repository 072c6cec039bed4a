"""Is an updated dataset byte-identical to a new build? Random changes of a folder of small images, round after round.

    python -m scripts.faults.updates --count 200

Each chain builds a dataset with random options and then changes files, updates and compares, five times. It prints one
JSON line, and leaves with 1 if any update came to other bytes; the folder of such a chain is kept and named.
"""

import dataclasses
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import tyro

from scripts.faults.jobs import FaultError, contents, run_to_end

_CLASSES = ("a", "b", "c", "d")
_ROUNDS_PER_CHAIN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the campaign."""

    count: int = 200
    """How many updates."""
    seed: int = 0
    """Another one makes other changes."""
    workers: int = 2
    """Processes of each job."""


def main(config: Config) -> int:
    """Runs the campaign, prints one JSON line, and returns the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="updates_"))
    failures: list[str] = []
    num_updates = 0
    while num_updates < config.count:
        chain = folder / f"chain_{num_updates:05d}"
        rounds = min(_ROUNDS_PER_CHAIN, config.count - num_updates)
        num_updates += rounds
        try:
            run_chain(chain, random.Random(f"{config.seed}/{num_updates}"), rounds, workers=config.workers)
            shutil.rmtree(chain)
        except FaultError as error:
            failures.append(f"{chain}: {error}")
    print(json.dumps({"campaign": "Updates", "updates": num_updates, "failures": failures}))
    if not failures:
        shutil.rmtree(folder)
    return 1 if failures else 0


def run_chain(folder: Path, rng: random.Random, rounds: int, *, workers: int) -> None:
    """Builds a dataset in `folder`, and changes, updates and compares it `rounds` times.

    Raises:
        FaultError: A command failed, or an update came to other bytes than a build.
    """
    photos, data, scratch = folder / "photos", folder / "d", folder / "scratch/d"
    for number in range(rng.choice((40, 100, 300))):
        _write(photos / _CLASSES[number % len(_CLASSES)] / f"{number}.jpg", rng)
    settings = ["--image-size", "16", "--shard-size", rng.choice(("1KiB", "4KiB", "64KiB"))]
    settings += rng.choice(
        ([], ["--stratify"], ["--keep-together", "near-duplicates"], ["--encoding", "raw"])
    )

    def run(command: str, target: Path, *options: str) -> None:
        program = (sys.executable, "-m", "shardstream.ingest", command, str(photos), str(target))
        run_to_end([*program, *options, "--max-rejected", "1", "--workers", str(workers)], folder)

    run("build", data, *settings)
    for _ in range(rounds):
        for _ in range(rng.choice((1, 3, 20))):
            change(photos, rng)
        run("update", data, "--max-gone", "1")
        scratch.parent.mkdir()
        run("build", scratch, *settings)
        now, expected = contents(data), contents(scratch)
        if differing := [
            name for name in now.keys() | expected.keys() if now.get(name) != expected.get(name)
        ]:
            raise FaultError(f"an update comes to other bytes than a build: {', '.join(sorted(differing))}")
        shutil.rmtree(scratch.parent)


def change(photos: Path, rng: random.Random) -> None:
    """Adds, removes, rewrites, copies or moves a file; three of each class stay: it is never empty."""
    files = sorted(path for path in photos.rglob("*.jpg") if int(path.stem) >= 12)
    new = photos / rng.choice(_CLASSES) / f"{rng.randrange(10**6, 10**9)}.jpg"
    kind = rng.choice(("add", "remove", "rewrite", "copy", "move", "corrupt"))
    old = rng.choice(files) if files else new
    if kind == "add" or not files:
        _write(new, rng)
    elif kind == "rewrite":
        _write(old, rng)
    elif kind == "copy":
        shutil.copy2(old, new)
    elif kind == "move":
        old.rename(new)
    elif kind == "corrupt":
        old.write_bytes(old.read_bytes()[:-40])
    else:
        old.unlink()


def _write(path: Path, rng: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = rng.randint(8, 32), rng.randint(8, 32)
    image = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), image)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
