"""Common code of the campaigns of scripts/faults/ingest.py: the jobs to disturb, and the checks of their results."""

import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from shardstream.ingest.dataset.manifest import FILENAME as MANIFEST
from shardstream.ingest.dataset.metadata import FILENAME as METADATA

BUILD, UPDATE = "build", "update"
# The phases of a job, as visible in its folders.
PHASES = ("start", "map", "reduce", "finish")
_SETTINGS = ("--image-size", "64", "--shard-size", "64KiB")
_SECS_BETWEEN_LOOKS = 0.0005
_MAX_SECS = 120
# A process that hangs is still there after this time; one that is about to exit may have to wait for a core.
_MAX_ORPHAN_SECS = 30.0

Contents = dict[str, str]  # The SHA-256 of each file by its name.


class FaultError(Exception):
    """A guarantee was violated; says which."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Photos, and the reference results of the jobs on them.

    Attributes:
        folder: Working folder.
        photos: Source folder of the datasets.
        workers: Processes of each job.
        old: A dataset of an older state of these photos.
        reference: The expected dataset.
        secs: Undisturbed duration of each phase of each job, by job and phase.
    """

    folder: Path
    photos: Path
    workers: int
    old: Path
    reference: Path
    secs: dict[str, dict[str, float]]

    def command(self, job: str, data: Path) -> list[str]:
        """Returns the command line of a job that makes `data`."""
        settings = _SETTINGS if job == BUILD else ()
        return [
            *(sys.executable, "-m", "shardstream.ingest", job, str(self.photos), str(data), *settings),
            *("--max-rejected", "1", "--workers", str(self.workers), "--json"),
        ]

    def phase(self, job: str, data: Path) -> str:
        """Returns the phase that a job on `data` is in, or was in when it was stopped."""
        place = workplace(data)
        names = _names(place / "dataset")
        if MANIFEST in names or self._has_new(job, data):
            return "finish"
        if names or _has_shards(place):
            return "reduce"
        return "map" if _names(place / "units") else "start"

    def _has_new(self, job: str, data: Path) -> bool:
        if job == BUILD:
            return data.exists()
        try:
            return (data / METADATA).read_bytes() != (self.old / METADATA).read_bytes()
        except FileNotFoundError:
            return False

    def prepare(self, job: str, folder: Path) -> Path:
        """Makes `folder` with what the job starts from, and returns the path of the dataset that it makes."""
        folder.mkdir()
        if job == UPDATE:
            shutil.copytree(self.old, folder / "d")
        return folder / "d"


def make_scene(photos: Path, folder: Path, *, workers: int) -> Scene:
    """Makes the reference datasets of a campaign, and measures the duration."""
    older = _make_older_photos(photos, folder / "older_photos")
    scene = Scene(folder, photos, workers, folder / "old/d", folder / "reference/d", {})
    for before, data in ((older, scene.old), (photos, scene.reference)):
        data.parent.mkdir()
        run_to_end(dataclasses.replace(scene, photos=before).command(BUILD, data), data.parent)
    for job in (BUILD, UPDATE):
        data = scene.prepare(job, folder / f"measured_{job}")
        scene.secs[job] = _measure(scene, job, data)
        if contents(data) != contents(scene.reference):
            raise FaultError(f"an undisturbed {job} does not come to the same bytes as another build")
    return scene


def _make_older_photos(photos: Path, older: Path) -> Path:
    """Copies the photos in an assumed earlier state: some are missing, some renamed, and some have other content."""
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    for number, path in enumerate(paths):
        copy = older / path.relative_to(photos)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if number % 5 == 0:
            copy = copy.with_name(f"renamed_{copy.name}") if number % 2 else None
        if copy is not None:
            shutil.copy2(paths[number - 1] if number % 7 == 3 else path, copy)
    return older


def contents(folder: Path) -> Contents:
    """Returns the hashes of the files in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def start(command: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    """Starts a command in a session of its own; its stderr goes to the file `log`."""
    with log.open("wb") as stderr:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)


def wait(process: "subprocess.Popen[bytes]") -> int:
    """Waits for a command and returns its exit code.

    Raises:
        FaultError: It hangs.
    """
    try:
        return process.wait(_MAX_SECS)
    except subprocess.TimeoutExpired:
        signal_all(process, signal.SIGKILL)
        process.wait()
        raise FaultError(f"not at an end after {_MAX_SECS} s") from None


def run_to_end(command: Sequence[str], folder: Path) -> None:
    """Runs a command that must succeed, and leave no process behind.

    Raises:
        FaultError: It does not.
    """
    log = folder / "stderr"
    process = start(command, log)
    if wait(process):
        raise FaultError(f"exit code {process.returncode}: {log.read_text()[-500:]}")
    check_none_left(process.pid)
    log.unlink()


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def _measure(scene: Scene, job: str, data: Path) -> dict[str, float]:
    """Runs a job to its end and returns the duration of each phase in seconds, once DATA.incomplete exists."""
    began: dict[str, float] = {}
    with start(scene.command(job, data), data.parent / "stderr") as process:
        while process.poll() is None:
            if workplace(data).exists():
                began.setdefault(scene.phase(job, data), time.monotonic())
            time.sleep(_SECS_BETWEEN_LOOKS)
    if process.returncode:
        raise FaultError(f"exit code {process.returncode}: {(data.parent / 'stderr').read_text()[-500:]}")
    ends = [*sorted(began.values()), time.monotonic()]
    in_order = sorted(began, key=lambda name: began[name])
    return {name: ends[i + 1] - ends[i] for i, name in enumerate(in_order)}


def wait_for_moment(
    process: "subprocess.Popen[bytes]", scene: Scene, job: str, data: Path, rng: random.Random
) -> None:
    """Waits for a random moment of a random phase of the job that `process` runs, or for its end."""
    wanted = rng.choice([name for name in PHASES if name in scene.secs[job]])
    place = workplace(data)
    while process.poll() is None and not (
        place.exists() and PHASES.index(scene.phase(job, data)) >= PHASES.index(wanted)
    ):
        time.sleep(_SECS_BETWEEN_LOOKS)
    time.sleep(rng.uniform(0, scene.secs[job][wanted]))


def workplace(data: Path) -> Path:
    """Returns the staging folder of `data`."""
    return data.with_name(f"{data.name}.incomplete")


def signal_all(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Sends a signal to a command and all processes that it started, if any are still running."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def members(session: int) -> list[int]:
    """Returns the running processes of a session."""
    return [process for process, (state, _, of) in _processes() if of == session and state not in "ZX"]


def check_none_left(session: int, max_secs: float = _MAX_ORPHAN_SECS) -> None:
    """Ensures that no process of a session is left after some time."""
    end = time.monotonic() + max_secs
    while left := members(session):
        if time.monotonic() > end:
            for process in left:
                os.kill(process, signal.SIGKILL)
            raise FaultError(f"{len(left)} processes are left {max_secs} s after their command ended")
        time.sleep(0.01)


def workers_of(main: int) -> list[int]:
    """Returns the worker processes of a job: those forked by a server that `main` started."""
    parents = {process: parent for process, (_, parent, _) in _processes()}
    return [process for process, parent in parents.items() if parents.get(parent) == main]


def _processes() -> Iterator[tuple[int, tuple[str, int, int]]]:
    """Yields each process with its state, its parent and its session. Source: man 5 proc_pid_stat."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has exited.
        yield int(folder.name), (fields[0], int(fields[1]), int(fields[3]))


def _has_shards(place: Path) -> bool:
    try:
        return any(place.glob("shards/*/*"))
    except FileNotFoundError:  # A folder was removed meanwhile: the shards have moved on.
        return True
