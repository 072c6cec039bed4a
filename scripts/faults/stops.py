"""Kills or stops jobs at random moments, and restarts them."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from scripts.faults.jobs import (
    BUILD,
    UPDATE,
    FaultError,
    Scene,
    check_none_left,
    contents,
    run_to_end,
    signal_all,
    start,
    wait,
    wait_for_moment,
    workers_of,
    workplace,
)

GROUP, PARENT, WORKER = "all processes", "the command alone", "a worker alone"
_MAX_STOP_SECS = 10.0  # Docker kills 10 s after SIGTERM, Slurm and Kubernetes after 30.
_EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def kill_round(scene: Scene, folder: Path, rng: random.Random) -> list[tuple[str, str, str]]:
    """Starts a job and kills it once or several times; restarting must finally give the same bytes.

    Returns:
        For each kill the job, its phase, and which process was killed.

    Raises:
        FaultError: A guarantee was violated.
    """
    job = rng.choice((BUILD, UPDATE))
    data = scene.prepare(job, folder)
    log = folder / "stderr"
    kills: list[tuple[str, str, str]] = []
    killed: list[int] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        who = rng.choice((GROUP, GROUP, GROUP, PARENT, WORKER))
        process = start(scene.command(job, data), log)
        wait_for_moment(process, scene, job, data, rng)
        if who == WORKER and (victims := workers_of(process.pid)):
            when = scene.phase(job, data)
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(victims), signal.SIGKILL)
                kills.append((job, when, who))
            if wait(process):
                raise FaultError(
                    f"a worker was killed and the {job} ended with {process.returncode}: {log.read_text()[-500:]}"
                )
            break
        if who == PARENT:
            process.kill()
        else:
            signal_all(process, signal.SIGKILL)
        if process.wait() == 0:
            break  # It finished first.
        kills.append((job, scene.phase(job, data), GROUP if who == WORKER else who))
        check_between(scene, job, data)
        killed.append(process.pid)
    finish(scene, job, data)
    for session in killed:
        check_none_left(session)
    return kills


def stop_round(scene: Scene, folder: Path, rng: random.Random) -> list[tuple[str, str, str, float]]:
    """Stops a job with a signal, as Ctrl-C or a cluster's scheduler does, and restarts it.

    Returns:
        The job, its phase, the signal, and the seconds it took to stop; nothing if it had finished before.

    Raises:
        FaultError: A guarantee was violated.
    """
    job = rng.choice((BUILD, UPDATE))
    number = rng.choice(tuple(_EXIT_CODES))
    data = scene.prepare(job, folder)
    log = folder / "stderr"
    process = start(scene.command(job, data), log)
    wait_for_moment(process, scene, job, data, rng)
    if process.poll() is not None:
        finish(scene, job, data)
        return []
    began = time.monotonic()
    signal_all(process, number)
    exit_code = wait(process)
    secs = time.monotonic() - began
    if exit_code in {0, -number} and scene.phase(job, data) == "finish" and not workplace(data).exists():
        finish(scene, job, data)
        return []  # It was finished and exiting, when Python no longer handles signals.
    stopped_in = scene.phase(job, data)
    said = log.read_text()
    if exit_code != _EXIT_CODES[number]:
        raise FaultError(f"exit code {exit_code} after {number.name}: {said[-500:]}")
    if secs > _MAX_STOP_SECS:
        raise FaultError(f"{secs:.1f} s to stop after {number.name}")
    if not said.startswith("shardstream-ingest: stopped by ") or said.count("\n") != 1:
        raise FaultError(f"said after {number.name}: {said[-1000:]}")
    check_none_left(process.pid)
    check_between(scene, job, data)
    finish(scene, job, data)
    return [(job, stopped_in, number.name, secs)]


def check_between(scene: Scene, job: str, data: Path) -> None:
    """Ensures that the folder with the dataset's name is complete: the old dataset or the new one."""
    if not data.exists():
        if job == UPDATE:
            raise FaultError("the old dataset is gone before the new one is there")
        return
    allowed = [scene.reference] if job == BUILD else [scene.old, scene.reference]
    if contents(data) not in [contents(folder) for folder in allowed]:
        raise FaultError(f"a half-made dataset after the {job} was stopped")


def finish(scene: Scene, job: str, data: Path) -> None:
    """Restarts a stopped job until it is finished, and compares the result with the reference.

    Raises:
        FaultError: It fails, or the result is not byte-identical.
    """
    if job == UPDATE or not data.exists():
        run_to_end(scene.command(job, data), data.parent)
        if workplace(data).exists():
            raise FaultError(f"the {job} left its work behind")
    if contents(data) != contents(scene.reference):
        raise FaultError(f"other bytes after the {job} was stopped and started again")
