"""Does a training run come to the same bits when it is killed or stopped? A campaign with real processes.

    python -m scripts.faults.train --kills 50 --terms 20

Each run trains `small` for a few epochs on drawn images of 16x16, with deterministic operations: with each cache tier,
on two devices, and on two hosts if the kernel allows this process a network of its own; or it computes the features of
`lite0`, in blocks of 32 images, on one and two hosts. Each kind of run is trained once undisturbed; a run that is
disturbed, and restarted until it is finished, must reach the same weights, bit for bit, in best.keras and last.keras,
and the same history. It prints two tables and one JSON line, and exits with 1 if any guarantee was violated; the folder
of such a round is kept and named. "start" is the phase before the process has saved a state, or a block of features, of
its own: reading, building, compiling. The same --seed makes the same choices, though not at the same microsecond.
"""

import dataclasses
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from PIL import Image

from scripts.faults import loopback

GRACE_SECS = 30.0
# Environment variable for the re-executed script: whether it has a network of its own.
_STARTED = "SHARDSTREAM_FAULTS_STARTED"
_IN_NETWORK, _WITHOUT = "in a network", "without"
_PHASES = ("start", "steps", "finished")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Campaign:
    """Kills and stops training runs at random moments."""

    kills: int = 50
    """How many times kill -9."""
    terms: int = 20
    """How many times SIGTERM."""
    seed: int = 0
    """Another one makes other choices."""
    kinds: tuple[str, ...] = ()
    """Names of kinds of runs, such as "cache memory", "two devices" or "two hosts"; by default all."""
    folder: Path | None = None
    """Where runs lie meanwhile; by default in the system's temporary folder."""


@dataclasses.dataclass(kw_only=True)
class Struck:
    """Results of the rounds so far."""

    kills: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    terms: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    slowest_to_leave_secs: float = 0.0
    rounds: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)


def main(config: Campaign) -> int:
    """Runs the campaign, prints a table and one JSON line, and returns the exit code."""
    if config.folder:
        config.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="faults_", dir=config.folder))
    began = time.monotonic()
    _prepare_environment(folder)
    data = draw_dataset(folder)
    from scripts.faults import runs as faults_runs

    _check_one_thread()
    kinds = [kind for kind in all_kinds() if not config.kinds or kind.name in config.kinds]
    struck = Struck()
    scene = faults_runs.Scene(data, folder)
    while len(struck.kills) < config.kills or len(struck.terms) < config.terms:
        if len(struck.failures) > (config.kills + config.terms) // 4:
            break
        is_kill = len(struck.kills) < config.kills
        rng = random.Random(f"{config.seed}/{struck.rounds}")
        kind, run = kinds[struck.rounds % len(kinds)], folder / f"round_{struck.rounds:04d}"
        struck.rounds += 1
        try:
            if is_kill:
                struck.kills += [
                    (kind.name, phase) for phase in faults_runs.kill_round(scene, kind, run, rng)
                ]
            else:
                for phase, secs in faults_runs.stop_round(scene, kind, run, rng, GRACE_SECS):
                    struck.terms.append((kind.name, phase))
                    struck.slowest_to_leave_secs = max(struck.slowest_to_leave_secs, round(secs, 2))
            faults_runs.remove(run)
        except faults_runs.FaultError as error:
            struck.failures.append(f"{run.name}, {kind.name}: {error}")
            print(struck.failures[-1], file=sys.stderr, flush=True)
    summary = {
        "kills": print_table("killed", struck.kills),
        "terms": print_table("asked to stop", struck.terms),
        "slowest_to_leave_secs": struck.slowest_to_leave_secs,
        "rounds": struck.rounds,
        "failures": struck.failures,
        "seconds": round(time.monotonic() - began),
        "seed": config.seed,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    print(json.dumps(summary))
    if struck.failures:
        print(f"{len(struck.failures)} rounds broke a promise: see {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def all_kinds() -> "list[Any]":
    """Returns the kinds of runs possible on this machine."""
    from scripts.faults.runs import Kind
    from shardstream.train.config import Cache

    epochs = ("--epochs", "3", "--batch-size", "8")
    features = ("--model", "lite0", "--image-size", "32", "--cache", "disk")
    tiers = [tier for tier in get_args(Cache) if tier != "auto"]
    kinds = [Kind(f"cache {tier}", (*epochs, "--cache", tier, "--strategy", "default")) for tier in tiers]
    kinds.append(Kind("two devices", (*epochs, "--cache", "memory", "--strategy", "mirrored"), num_devices=2))
    kinds.append(Kind("features", (*features, "--strategy", "default")))
    if os.environ.get(_STARTED) == _IN_NETWORK:
        kinds.append(Kind("two hosts", (*epochs, "--cache", "memory"), num_workers=2))
        kinds.append(Kind("features, two hosts", features, num_workers=2))
    return kinds


def draw_dataset(folder: Path) -> Path:
    """Returns a dataset of 160 drawn images in three classes."""
    photos = folder / "photos"
    for label, name in enumerate(("exterior", "food", "interior")):
        (photos / name).mkdir(parents=True)
        for number in range(54):
            coarse = np.random.default_rng([label, number]).integers(0, 200, (4, 4, 3)) + [0, 20, 40][label]
            Image.fromarray(coarse.astype(np.uint8)).resize((32, 32)).save(photos / name / f"{number}.png")
    command = [sys.executable, "-m", "shardstream.ingest", "build", str(photos), str(folder / "data")]
    subprocess.run([*command, "--image-size", "16"], check=True, capture_output=True)
    return folder / "data"


def print_table(title: str, struck: list[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Prints how often each kind of run was hit in which phase, and returns the counts."""
    names = dict.fromkeys(name for name, _ in struck)
    counts = {name: {phase: struck.count((name, phase)) for phase in _PHASES} for name in names}
    counts["all"] = {phase: sum(row[phase] for row in counts.values()) for phase in _PHASES}
    print(f"| {title} while | {' | '.join(_PHASES)} | all |\n|---|{'---|' * (len(_PHASES) + 1)}")
    for name, row in counts.items():
        print(f"| {name} | {' | '.join(map(str, row.values()))} | {sum(row.values())} |")
    return counts


def _prepare_environment(folder: Path) -> None:
    # Set before NumPy's and TensorFlow's libraries read them: no threads, no log output, deterministic results.
    os.environ |= {
        "TF_DETERMINISTIC_OPS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def _check_one_thread() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    if "Threads:\t1" not in lines:
        raise RuntimeError("this process has threads, and forking it would not be sound")


def _start_anew() -> None:
    """Re-executes this script without NumPy's threads, and in a network of its own if possible.

    OpenBLAS reads the variable when NumPy is imported, which is before any line of this script.
    """
    reason = loopback.reason_it_cannot()
    if reason:
        print(f"two hosts are left out: {reason}", file=sys.stderr)
    environment = os.environ | {_STARTED: _WITHOUT if reason else _IN_NETWORK, "OPENBLAS_NUM_THREADS": "1"}
    again = [sys.executable, "-m", "scripts.faults.train", *sys.argv[1:]]
    argv = [*(() if reason else loopback.UNSHARE), *again]
    os.execvpe(argv[0], argv, environment)


if __name__ == "__main__":
    _config = tyro.cli(Campaign)
    if _STARTED not in os.environ:
        _start_anew()
    if os.environ[_STARTED] == _IN_NETWORK:
        loopback.bring_up("lo")
    sys.exit(main(_config))
