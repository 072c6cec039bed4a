"""Does `shardstream-ingest` keep its promises when things go wrong? Campaigns with real processes and random faults.

    python -m scripts.faults.ingest kills PHOTOS --count 100       kill -9 at any moment
    python -m scripts.faults.ingest terms PHOTOS --count 50        SIGTERM and Ctrl-C at any moment
    python -m scripts.faults.ingest disk-full PHOTOS --count 20    a disk that fills at any moment
    python -m scripts.faults.ingest damages PHOTOS --count 500     datasets that are damaged in all ways

PHOTOS has category folders; some hundred small photos do. Each campaign builds a dataset of them once, undisturbed, and
compares every byte with it: of what the same command comes to when it is started again, or of what `repair` repairs. It
prints a table and one JSON line, and leaves with 1 if any promise was broken; the folder of such a round is kept and
named. The same --seed makes the same choices, though not at the same microsecond. A phase is what the job's folders
showed when it was stopped: "start" until the first photos are judged, "map" while they are, "reduce" while shards are
written, "finish" from the manifest on.
"""

import collections
import dataclasses
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from scripts.faults.corruptions import LEFT, REPAIRED, damage_round, make_foreign
from scripts.faults.disk import full_disk_round, measure_need, open_disk
from scripts.faults.jobs import BUILD, PHASES, UPDATE, FaultError, Scene, make_scene
from scripts.faults.stops import kill_round, stop_round

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Campaign:
    photos: tyro.conf.Positional[Path]
    """A folder of category folders."""
    seed: int = 0
    """Another one makes other faults."""
    workers: int = 2
    """Processes of each job."""
    folder: Path | None = None
    """Where datasets lie meanwhile; by default in the system's temporary folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kills(_Campaign):
    """Kills builds and updates with kill -9: all processes, the command alone, or a worker alone."""

    count: int = 100
    """How many kills."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms(_Campaign):
    """Stops builds and updates with SIGTERM and SIGINT."""

    count: int = 50
    """How many signals."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiskFull(_Campaign):
    """Runs builds and updates on a disk that is too small."""

    count: int = 20
    """How many times the disk fills."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damages(_Campaign):
    """Damages datasets, and has them verified and repaired."""

    count: int = 500
    """How many times."""


Config = (
    Annotated[Kills, tyro.conf.subcommand("kills")]
    | Annotated[Terms, tyro.conf.subcommand("terms")]
    | Annotated[DiskFull, tyro.conf.subcommand("disk-full")]
    | Annotated[Damages, tyro.conf.subcommand("damages")]
)


def main(config: Kills | Terms | DiskFull | Damages) -> int:
    """Runs a campaign, prints a table and one JSON line, and returns the exit code."""
    # In the background of a shell without job control it is ignored, and so it would be by all jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.folder:
        config.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults_", dir=config.folder))
    began = time.monotonic()
    scene = make_scene(config.photos.absolute(), folder, workers=config.workers)
    rounds = Rounds(scene, config.seed)
    figures = {Kills: kills, Terms: terms, DiskFull: disk_full, Damages: damages}[type(config)](
        rounds, config.count
    )
    summary = {
        "campaign": type(config).__name__,
        **figures,
        "failures": rounds.failures,
        "seconds": round(time.monotonic() - began),
        "undisturbed_secs": scene.secs,
        "seed": config.seed,
        "workers": config.workers,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    print(json.dumps(summary))
    if rounds.failures:
        print(f"{len(rounds.failures)} rounds broke a promise: see {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


class Rounds:
    """The rounds of a campaign.

    Attributes:
        scene: The jobs and their reference.
        failures: The violated guarantee, by folder.
    """

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.failures: list[str] = []
        self._seed = seed

    def run(self, one: Callable[[Path, int, random.Random], Sequence[Result]], count: int) -> list[Result]:
        """Runs rounds until there are `count` results, or one in four rounds violated a guarantee.

        Args:
            one: A round: takes a new folder path, its number and a random generator; returns none, one or several
                results.
            count: Number of results.
        """
        results: list[Result] = []
        number = 0
        while len(results) < count and len(self.failures) <= count // 4:
            folder = self.scene.folder / f"round_{number:04d}"
            try:
                results += one(folder, number, random.Random(f"{self._seed}/{number}"))
                shutil.rmtree(folder, ignore_errors=True)
            except FaultError as error:
                self.failures.append(f"{folder.name}: {error}")
                print(self.failures[-1], file=sys.stderr, flush=True)
            number += 1
        return results


def kills(rounds: Rounds, count: int) -> dict[str, Any]:
    """Kills jobs."""
    done = rounds.run(lambda folder, _, rng: kill_round(rounds.scene, folder, rng), count)
    return print_table("killed", ((f"{job}, {who}", when) for job, when, who in done), PHASES)


def terms(rounds: Rounds, count: int) -> dict[str, Any]:
    """Stops jobs."""
    done = rounds.run(lambda folder, _, rng: stop_round(rounds.scene, folder, rng), count)
    figures = print_table("stopped", ((f"{job}, {name}", when) for job, when, name, _ in done), PHASES)
    slowest = max((secs for *_, secs in done), default=0.0)
    print(f"\nThe slowest took {slowest:.2f} s to stop.\n")
    return figures | {"slowest_secs": round(slowest, 3)}


def disk_full(rounds: Rounds, count: int) -> dict[str, Any]:
    """Fills disks."""
    with open_disk(rounds.scene.folder / "disk") as disk:
        needs = {job: measure_need(rounds.scene, disk, job) for job in (BUILD, UPDATE)}
        done = rounds.run(
            lambda folder, _, rng: full_disk_round(rounds.scene, disk, needs, folder.name, rng), count
        )
    figures = print_table("out of space", done, PHASES)
    print(f"\nThe disk: {disk.how}.\n")
    return figures | {"disk": disk.how, "needs_bytes": needs}


def damages(rounds: Rounds, count: int) -> dict[str, Any]:
    """Damages datasets."""
    foreign = make_foreign(rounds.scene)
    done = rounds.run(
        lambda folder, number, rng: [damage_round(rounds.scene, foreign, folder, number, rng)], count
    )
    two = "two of these at once"
    cells = (
        (kind, one.outcome) for one in done for kind in {*one.kinds, *([two] if len(one.kinds) > 1 else [])}
    )
    figures = print_table("damaged by", cells, (REPAIRED, LEFT))
    print(f"\n{len(done)} rounds. {LEFT}: metadata.json and manifest.parquet were damaged both.\n")
    return figures | {"rounds": len(done)}


def print_table(title: str, cells: Iterable[tuple[str, str]], columns: Sequence[str]) -> dict[str, Any]:
    """Prints the count of each pair of row and column, and returns the counts as a dictionary."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter(cells)
    rows = sorted({row for row, _ in counts})
    print(f"| {title} | {' | '.join(columns)} | all |\n|---|{'---|' * (len(columns) + 1)}")
    for row in rows:
        numbers = [counts[row, column] for column in columns]
        print(f"| {row} | {' | '.join(map(str, numbers))} | {sum(numbers)} |")
    totals = [sum(counts[row, column] for row in rows) for column in columns]
    print(f"| all | {' | '.join(map(str, totals))} | {sum(totals)} |")
    return {"counts": {row: {column: counts[row, column] for column in columns} for row in rows}}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
