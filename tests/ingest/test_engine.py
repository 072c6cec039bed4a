"""Work that goes on when the processes that do it die, and processes that end when nobody has work for them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ingest.engine import Engine, open_engine, run_alone

# eval is a function that every process knows: a task is what it is to do.
PID = "__import__('os').getpid()"
DEADLY = f"__import__('os').kill({PID}, 9)"
SLEEP = "__import__('time').sleep(1000)"
# Holds the lock of the interpreter all along, so that no thread of the process hears anything.
DEAF = "__import__('re').match(r'(a+)+b', 'a' * 60)"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_engine("local", workers=2) as engine:
        yield engine


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_dies_costs_no_other_task(workers):
    tasks = [DEADLY if number in {5, 20} else str(number) for number in range(40)]
    alone = []

    def judge_alone(task):
        alone.append(task)
        return "dead" if task == DEADLY else eval(task)

    with open_engine("local", workers=workers) as engine:
        results = list(engine.run_all(eval, tasks, alone=judge_alone))
    assert sorted(map(str, results)) == sorted("dead" if task == DEADLY else task for task in tasks)
    assert alone.count(DEADLY) == 2
    assert len(alone) <= 2 * (2 * workers + 1)  # Only what was under way.


def test_all_steps_of_a_job_run_in_the_same_processes(engine):
    first = set(engine.run_all(eval, [f"({PID}, {SLEEP.replace('1000', '0.2')})"] * 4, alone=eval))
    second = set(engine.run_all(eval, [f"({PID}, {SLEEP.replace('1000', '0.2')})"] * 4, alone=eval))
    assert len(first) == 2
    assert first == second


def test_tasks_are_taken_as_workers_need_them(engine):
    taken = 0

    def tasks():
        nonlocal taken
        for number in range(10**12):
            taken += 1
            yield str(number)

    results = engine.run_all(eval, tasks(), alone=eval)
    for _ in range(10):
        next(results)
    assert taken <= 10 + 2 * 2


def test_the_decoders_are_loaded_before_a_task_needs_them(engine):
    modules = ["cv2", "simplejpeg", "numpy", "ingest.units", "ingest.shards"]
    check = f"all(name in __import__('sys').modules for name in {modules})"
    assert list(engine.run_all(eval, [check], alone=eval)) == [True]


def test_workers_decode_with_one_thread_and_in_silence(engine, capfd):
    noise = "__import__('os').write(2, b'libtiff: what a file')"
    threads = "__import__('cv2').getNumThreads()"
    assert list(engine.run_all(eval, [f"({noise}, {threads})[1]"], alone=eval)) == [1]
    assert capfd.readouterr().err == ""


def test_run_alone_says_that_the_process_died():
    assert run_alone(eval, "6 * 7") == 42
    with pytest.raises(BrokenExecutor):
        run_alone(eval, DEADLY)


def test_an_error_of_a_task_reaches_the_caller(engine):
    with pytest.raises(ZeroDivisionError):
        list(engine.run_all(eval, ["1", "1 / 0"], alone=eval))


def test_leaving_by_an_exception_kills_what_is_under_way(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_engine("local", workers=2) as engine:
        results = engine.run_all(eval, ["0", write_pid(tmp_path, SLEEP)], alone=eval)
        next(results)
        wait_for_pid(tmp_path)
        raise KeyboardInterrupt
    assert not is_alive(wait_for_pid(tmp_path))


def test_workers_leave_ctrl_c_to_their_parent(engine):
    deaf = f"__import__('os').kill({PID}, {signal.SIGINT})"
    assert list(engine.run_all(eval, [deaf] * 3, alone=eval)) == [None] * 3


@pytest.mark.parametrize("name", ["local", "dask"])
@pytest.mark.parametrize("busy", [SLEEP, DEAF], ids=["sleeping", "holding the interpreter"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_caller(name, busy, how, tmp_path):
    program = f"""
from ingest.engine import open_engine
if __name__ == "__main__":
    with open_engine({name!r}, workers=2) as engine:
        list(engine.run_all(eval, [{write_pid(tmp_path, busy)!r}] * 4, alone=eval))
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, str(script)], start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as caller:
        worker = wait_for_pid(tmp_path)
        if how == signal.SIGKILL:
            caller.kill()
        else:
            os.killpg(caller.pid, how)  # As the terminal does it.
        _, said = caller.communicate()
    assert caller.returncode == -how
    if how == signal.SIGINT:
        assert said.count("Traceback") == 1  # Of the caller, and of nobody else.
    while is_alive(worker):  # No time is promised, but that it ends at all.
        time.sleep(0.01)


def test_a_picture_that_kills_its_decoder_is_found_and_rejected(photos, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2800, 2800, 3), np.uint8)
    Image.fromarray(noise).save(photos / "food/heavy.jp2")  # Takes 3 s of a core, all others milliseconds.
    # A limit of 2 s of a core for each process stands in for a decoder that hangs: its process is killed.
    command = [
        sys.executable,
        "-m",
        "ingest",
        "build",
        str(photos),
        str(tmp_path / "d"),
        "--max-rejected",
        "0.05",
    ]
    limited = ["sh", "-c", 'ulimit -t 2; exec "$@"', "sh", *command, "--image-size", "32", "--workers", "2"]
    result = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = {row["path"]: row for row in pq.read_table(tmp_path / "d/manifest.parquet").to_pylist()}
    assert rows.pop("food/heavy.jp2")["reason"] == "kills or hangs its decoder"
    assert {row["verdict"] for row in rows.values()} == {"ok"}
    assert len(rows) == 60


def write_pid(folder: Path, then: str) -> str:
    """Returns a task that notes the process that it runs in and goes on with `then`."""
    return f"(__import__('pathlib').Path({str(folder)!r}, str({PID}) + '.pid').touch(), {then})"


def wait_for_pid(folder: Path) -> int:
    while not (notes := list(folder.glob("*.pid"))):
        time.sleep(0.01)
    return int(notes[0].stem)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
