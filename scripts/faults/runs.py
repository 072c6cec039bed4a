"""Training runs that are disturbed: started by forking, looked at, and compared with runs that nobody disturbed.

A run is a fork of this process, which has TensorFlow imported and nothing of it started: it has one thread, so that
forking is sound, and a fork saves most of what a run of a second or two would cost.
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

EPOCHS = 3
_OPTIONS = ("--epochs", str(EPOCHS), "--batch-size", "8", "--precision", "float32")
_MAX_SECS = 300.0
_TIMES = ("images_per_sec", "images_per_sec_per_core", "input_wait", "train_secs")
HOSTS = "127.0.0.1:2222,127.0.0.1:2223"


class FaultError(Exception):
    """A promise was broken; says which."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of run: its options, how many logical devices it has, and how many workers."""

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
        options = ["--save-every", save_every, *_OPTIONS, *kind.options]
        self.codes: dict[int, int] = {}
        self.ends: dict[int, float] = {}
        self.pids: list[int] = []
        for rank in range(kind.num_workers):
            workers = ["--hosts", HOSTS, "--rank", str(rank)] if kind.num_workers > 1 else []
            self.pids.append(
                _fork([str(data), "--run", str(run), *options, *workers], self._log, kind.num_devices)
            )

    def is_running(self) -> bool:
        """Returns whether any of them is."""
        for pid in set(self.pids) - set(self.codes):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.codes[pid], self.ends[pid] = os.waitstatus_to_exitcode(status), time.monotonic()
        if time.monotonic() - self._began > _MAX_SECS:
            self.signal(signal.SIGKILL, self.pids)
            raise FaultError(f"no end after {_MAX_SECS:.0f} s: {self.log()[-2000:]}")
        return len(self.codes) < len(self.pids)

    def wait(self) -> list[int]:
        """Returns the exit codes, a signal's negative, once all are at their ends."""
        while self.is_running():
            time.sleep(0.005)
        return [self.codes[pid] for pid in self.pids]

    def wait_for_moment(self, secs: float) -> bool:
        """Waits until the chief has the run folder, and `secs` more; returns whether it is running still."""
        while self.is_running():
            # Not by the lock itself: who looks at that holds it for a moment.
            with contextlib.suppress(OSError, ValueError):
                if json.loads(self.run.lock.read_text())["pid"] == self.pids[0]:
                    break
            time.sleep(0.002)
        end = time.monotonic() + secs
        while time.monotonic() < end and self.is_running():
            time.sleep(0.002)
        return self.is_running()

    def signal(self, number: signal.Signals, pids: Sequence[int]) -> None:
        """Sends a signal to those of `pids` that run."""
        for pid in pids:
            if pid not in self.codes:
                os.kill(pid, number)

    def log(self) -> str:
        """Returns what they wrote to stderr."""
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
        code = shardstream.train.__main__.main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: the weights of both models and the history, times left out."""

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
    """A dataset, and what runs of each kind on it have to come to."""

    def __init__(self, data: Path, folder: Path) -> None:
        """Takes where the runs are to lie."""
        self.data = data
        self.folder = folder
        self._references: dict[str, tuple[Outcome, float]] = {}

    def start(self, kind: Kind, run: Path) -> Processes:
        """Starts or goes on with a run that saves its state often."""
        return Processes(kind, self.data, run, save_every="2steps")

    def reference(self, kind: Kind) -> tuple[Outcome, float]:
        """Returns what an undisturbed run of `kind` comes to, and how long it takes; it saves nothing on its way."""
        if kind.name not in self._references:
            run = self.folder / f"undisturbed {kind.name}"
            began = time.monotonic()
            processes = Processes(kind, self.data, run, save_every="1h")
            if any(processes.wait()):
                raise FaultError(f"an undisturbed run failed: {processes.log()[-2000:]}")
            self._references[kind.name] = (Outcome.of(run), time.monotonic() - began)
        return self._references[kind.name]

    def finish(self, kind: Kind, run: Path) -> None:
        """Brings a run to its end with the same command, and compares what came of it.

        Raises:
            FaultError: It does not succeed, or not with the same bits.
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


def position(run: RunFolder) -> str:
    """Returns the name of the furthest state in a run folder, or nothing where there is none."""
    return max((path.stem for path in run.checkpoints.glob("*.checkpoint")), default="")


def kill_round(scene: Scene, kind: Kind, folder: Path, rng: random.Random) -> list[str]:
    """Kills a run once or several times at random moments, then lets it come to its end.

    Returns:
        For each kill what it struck.

    Raises:
        FaultError: A promise was broken.
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
    """Sends SIGTERM to a run at a random moment, then lets it come to its end.

    Returns:
        What it struck, and how many seconds those that were asked took to leave; nothing if it was done before.

    Raises:
        FaultError: A promise was broken.
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
    # A worker that nobody asked may have to find out first that another is gone.
    took = max(processes.ends[pid] for pid in victims) - began
    if processes.run.is_finished:
        scene.finish(kind, folder)
        return []
    if took > grace_secs + 1:
        raise FaultError(f"{took:.1f} s to leave after SIGTERM")
    # Before all workers are there, one that is asked to ends as the system has it, and the others lost it.
    allowed = {143} if kind.num_workers == 1 else {143, -signal.SIGTERM, 1}
    if not set(codes) <= allowed or not {143, -signal.SIGTERM} & set(codes):
        raise FaultError(f"exit codes {codes} after SIGTERM: {processes.log()[-2000:]}")
    if "Traceback" in processes.log() or (143 in codes and "stopped by SIGTERM" not in processes.log()):
        raise FaultError(f"said after SIGTERM: {processes.log()[-2000:]}")
    phase = _phase(processes.run, before)
    scene.finish(kind, folder)
    return [(phase, took)]


def _phase(run: RunFolder, before: str) -> str:
    if run.is_finished:
        return "finished"
    return "steps" if position(run) > before else "start"


def remove(run: Path) -> None:
    """Removes a run and its log."""
    shutil.rmtree(run, ignore_errors=True)
    run.with_suffix(".log").unlink(missing_ok=True)
