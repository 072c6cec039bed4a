"""Training runs that are disturbed: started by forking, monitored, and compared with undisturbed runs.

A run is a fork of this process, which has imported TensorFlow without initializing it: with a single thread, forking
is safe, and it saves most of the cost of a run of a second or two.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import time
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import tensorflow as tf

import shardstream.train.__main__
from shardstream.train.runs.run_folder import RunFolder

# Images per block of features, instead of thousands: a run of a second has several.
_BLOCK_SIZE = 32
_MAX_SECS = 300.0
_TIMES = ("images_per_sec", "images_per_sec_per_core", "input_wait", "train_secs")
HOSTS = "127.0.0.1:2222,127.0.0.1:2223"


class FaultError(Exception):
    """A guarantee was violated; says which."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of run: its options, its number of logical devices, and of workers."""

    name: str
    options: tuple[str, ...]
    num_devices: int = 1
    num_workers: int = 1


class Processes:
    """The processes of one run: one, or one for each worker."""

    def __init__(self, kind: Kind, data: Path, run: Path, *, save_every: str) -> None:
        """Starts them."""
        self.run = RunFolder(run)
        self._log = run.with_suffix(".log")
        self._log.unlink(missing_ok=True)
        self._began = time.monotonic()
        options = ["--save-every", save_every, "--precision", "float32", *kind.options]
        self.codes: dict[int, int] = {}
        self.ends: dict[int, float] = {}
        self.pids: list[int] = []
        for rank in range(kind.num_workers):
            workers = ["--hosts", HOSTS, "--rank", str(rank)] if kind.num_workers > 1 else []
            cache = ["--cache-dir", str(_caches(run) / str(rank))]
            argv = [str(data), "--run", str(run), *options, *cache, *workers]
            self.pids.append(_fork(argv, self._log, kind.num_devices))

    def is_running(self) -> bool:
        """Returns whether any of them is running."""
        for pid in set(self.pids) - set(self.codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.codes[pid], self.ends[pid] = os.waitstatus_to_exitcode(status), time.monotonic()
        if time.monotonic() - self._began > _MAX_SECS:
            self.signal(signal.SIGKILL, self.pids)
            raise FaultError(f"no end after {_MAX_SECS:.0f} s: {self.log()[-2000:]}")
        return len(self.codes) < len(self.pids)

    def wait(self) -> list[int]:
        """Waits for all of them, and returns the exit codes, negative for a signal."""
        while self.is_running():
            time.sleep(0.005)
        return [self.codes[pid] for pid in self.pids]

    def wait_for_moment(self, secs: float) -> bool:
        """Waits until the chief has the run folder, and `secs` more; returns whether it is still running."""
        while self.is_running():
            # Not by the lock itself: checking it means holding it for a moment.
            with contextlib.suppress(OSError, ValueError):
                if json.loads(self.run.lock.read_text())["pid"] == self.pids[0]:
                    break
            time.sleep(0.002)
        end = time.monotonic() + secs
        while time.monotonic() < end and self.is_running():
            time.sleep(0.002)
        return self.is_running()

    def signal(self, number: signal.Signals, pids: Sequence[int]) -> None:
        """Sends a signal to those of `pids` that are running."""
        for pid in pids:
            if pid not in self.codes:
                os.kill(pid, number)

    def log(self) -> str:
        """Returns their stderr."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _fork(argv: list[str], log: Path, num_devices: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if num_devices > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            devices = [tf.config.LogicalDeviceConfiguration()] * num_devices
            tf.config.set_logical_device_configuration(cpu, devices)
        from shardstream.train.engine import feature_blocks

        feature_blocks.BLOCK_SIZE = _BLOCK_SIZE
        code = shardstream.train.__main__.main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a run: the weights of both models and the history, without times."""

    weights: Mapping[str, bytes]
    history: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, run: Path) -> "Outcome":
        """Reads the run folder `run`."""
        folder = RunFolder(run)
        weights: dict[str, bytes] = {}
        for path in (folder.best_model, folder.last_model):
            with (
                zipfile.ZipFile(path) as archive,
                h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file,
            ):

                def keep(name: str, item: Any, path: Path = path) -> None:
                    if isinstance(item, h5py.Dataset):
                        weights[f"{path.name}/{name}"] = item[()].tobytes()

                file.visititems(keep)
        header, *rows = (line.split(",") for line in folder.history.read_text().splitlines())
        kept = [i for i, name in enumerate(header) if name not in _TIMES]
        return cls(weights, tuple(tuple(row[i] for i in kept) for row in rows))


class Scene:
    """A dataset, and the expected results of each kind of run on it."""

    def __init__(self, data: Path, folder: Path) -> None:
        """Takes the dataset, and the folder for the runs."""
        self.data = data
        self.folder = folder
        self._references: dict[str, tuple[Outcome, float]] = {}

    def start(self, kind: Kind, run: Path) -> Processes:
        """Starts or resumes a run that saves its state often."""
        return Processes(kind, self.data, run, save_every="2steps")

    def reference(self, kind: Kind) -> tuple[Outcome, float]:
        """Returns the result of an undisturbed run of `kind`, without intermediate checkpoints, and its duration."""
        if kind.name not in self._references:
            run = self.folder / f"undisturbed {kind.name}"
            began = time.monotonic()
            processes = Processes(kind, self.data, run, save_every="1h")
            if any(processes.wait()):
                raise FaultError(f"an undisturbed run failed: {processes.log()[-2000:]}")
            self._references[kind.name] = (Outcome.of(run), time.monotonic() - began)
        return self._references[kind.name]

    def finish(self, kind: Kind, run: Path) -> None:
        """Runs the same command until the run is finished, and compares its result.

        Raises:
            FaultError: It fails, or the result is not bit-identical.
        """
        if not RunFolder(run).is_finished:
            processes = self.start(kind, run)
            if any(processes.wait()):
                raise FaultError(f"the same command ends with {processes.codes}: {processes.log()[-2000:]}")
        expected, _ = self.reference(kind)
        found = Outcome.of(run)
        differing = [name for name, content in expected.weights.items() if found.weights.get(name) != content]
        if differing or found != expected:
            raise FaultError(f"other bits than an undisturbed run: {differing[:3] or 'the history'}")


def position(run: RunFolder) -> tuple[str, int]:
    """Returns the name of the most advanced state in a run folder, and the number of cached blocks of features."""
    states = (path.stem for path in run.checkpoints.glob("*.checkpoint"))
    return max(states, default=""), sum(1 for _ in _caches(run.path).glob("*/*.features.npz"))


def _caches(run: Path) -> Path:
    """Returns the folder of the caches of a run, one for each worker."""
    return run.with_suffix(".caches")


def kill_round(scene: Scene, kind: Kind, folder: Path, rng: random.Random) -> list[str]:
    """Kills a run once or several times at random moments, then lets it finish.

    Returns:
        For each kill, the phase it hit.

    Raises:
        FaultError: A guarantee was violated.
    """
    _, secs = scene.reference(kind)
    struck = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        before = position(RunFolder(folder))
        processes = scene.start(kind, folder)
        if not processes.wait_for_moment(rng.uniform(0, secs)):
            break
        victims = _victims(processes, rng)
        processes.signal(signal.SIGKILL, victims)
        codes = processes.wait()
        others = [code for pid, code in zip(processes.pids, codes, strict=True) if pid not in victims]
        if any(code not in (0, 1) for code in others) or "Traceback" in processes.log():
            raise FaultError(f"the other worker ended with {others}: {processes.log()[-2000:]}")
        struck.append(_phase(processes.run, before))
        if processes.run.is_finished:
            break
    scene.finish(kind, folder)
    return struck


def _victims(processes: Processes, rng: random.Random) -> list[int]:
    return processes.pids if rng.random() < 0.5 else [rng.choice(processes.pids)]


def stop_round(
    scene: Scene, kind: Kind, folder: Path, rng: random.Random, grace_secs: float
) -> list[tuple[str, float]]:
    """Sends SIGTERM to a run at a random moment, then lets it finish.

    Returns:
        The phase it hit, and the seconds until the signalled processes exited; nothing if it had finished before.

    Raises:
        FaultError: A guarantee was violated.
    """
    _, secs = scene.reference(kind)
    before = position(RunFolder(folder))
    processes = scene.start(kind, folder)
    if not processes.wait_for_moment(rng.uniform(0, secs)):
        scene.finish(kind, folder)
        return []
    began = time.monotonic()
    victims = _victims(processes, rng)
    processes.signal(signal.SIGTERM, victims)
    codes = processes.wait()
    # A worker without a signal may first have to detect that another is lost.
    took = max(processes.ends[pid] for pid in victims) - began
    if processes.run.is_finished:
        scene.finish(kind, folder)
        return []
    if took > grace_secs + 1:
        raise FaultError(f"{took:.1f} s to leave after SIGTERM")
    # Before all workers are connected, the default action of the signal ends a worker, and the others lose it.
    allowed = {143} if kind.num_workers == 1 else {143, -signal.SIGTERM, 1}
    if not set(codes) <= allowed or not {143, -signal.SIGTERM} & set(codes):
        raise FaultError(f"exit codes {codes} after SIGTERM: {processes.log()[-2000:]}")
    if "Traceback" in processes.log() or (143 in codes and "stopped by SIGTERM" not in processes.log()):
        raise FaultError(f"said after SIGTERM: {processes.log()[-2000:]}")
    phase = _phase(processes.run, before)
    scene.finish(kind, folder)
    return [(phase, took)]


def _phase(run: RunFolder, before: tuple[str, int]) -> str:
    if run.is_finished:
        return "finished"
    return "steps" if position(run) > before else "start"


def remove(run: Path) -> None:
    """Removes a run, its caches and its log."""
    shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(_caches(run), ignore_errors=True)
    run.with_suffix(".log").unlink(missing_ok=True)
