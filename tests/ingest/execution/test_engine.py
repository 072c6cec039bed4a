"""Work that goes on when the processes that do it die, and processes that end when nobody has work for them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shardstream.ingest.execution.base import Engine
from shardstream.ingest.execution.factory import open_engine
from shardstream.ingest.execution.processes import run_alone
from shardstream.ingest.pipeline.steps import TASK_MODULES

# eval is a function that every process knows: a task is what it is to do.
PID = "__import__('os').getpid()"
DEADLY = f"__import__('os').kill({PID}, 9)"
SLEEP = "__import__('time').sleep(60)"  # So long that it says "for ever".
NAP = "__import__('time').sleep(0.2)"
# Holds the lock of the interpreter all along, so that no thread of the process hears anything.
DEAF = "__import__('re').match(r'(a+)+b', 'a' * 60)"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_engine("local", workers=2, preload=TASK_MODULES) as engine:
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
    first = set(engine.run_all(eval, [f"({PID}, {NAP})"] * 4, alone=eval))
    second = set(engine.run_all(eval, [f"({PID}, {NAP})"] * 4, alone=eval))
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
    modules = ["cv2", "simplejpeg", "numpy", *TASK_MODULES]
    check = f"all(name in __import__('sys').modules for name in {modules})"
    assert list(engine.run_all(eval, [check], alone=eval)) == [True]


def test_workers_decode_with_one_thread_and_in_silence(engine):
    stderr = "__import__('os').readlink('/proc/self/fd/2')"
    threads = "__import__('cv2').getNumThreads()"
    assert list(engine.run_all(eval, [f"({stderr}, {threads})"], alone=eval)) == [("/dev/null", 1)]


def test_run_alone_says_that_the_process_died():
    assert run_alone(eval, "6 * 7") == 42
    with pytest.raises(BrokenExecutor):
        run_alone(eval, DEADLY)


def test_an_error_of_a_task_reaches_the_caller(engine):
    with pytest.raises(ZeroDivisionError):
        list(engine.run_all(eval, ["1", "1 / 0"], alone=eval))


@pytest.mark.parametrize("name", ["local", "dask"])
def test_leaving_by_an_exception_kills_what_is_under_way(name, tmp_path):
    finishes = (
        f"(__import__('time').sleep(3), __import__('pathlib').Path({str(tmp_path)!r}, 'finished').touch())"
    )
    with pytest.raises(KeyboardInterrupt), open_engine(name, workers=2) as engine:
        results = engine.run_all(eval, ["0", write_pid(tmp_path, finishes)], alone=eval)
        next(results)
        wait_for_pid(tmp_path)
        raise KeyboardInterrupt
    assert not is_alive(wait_for_pid(tmp_path))
    assert not (tmp_path / "finished").exists()


def test_workers_leave_ctrl_c_to_their_parent(engine):
    deaf = f"__import__('os').kill({PID}, {signal.SIGINT})"
    assert list(engine.run_all(eval, [deaf] * 3, alone=eval)) == [None] * 3


@pytest.fixture(params=["local", "dask"])
def start(request, tmp_path) -> Callable[[str], subprocess.Popen[bytes]]:
    """Starts a program, as a terminal does, that runs two tasks; what it says goes to a file called stderr."""

    def start(task: str) -> subprocess.Popen[bytes]:
        script = tmp_path / "program.py"
        script.write_text(
            "from shardstream.ingest.execution.factory import open_engine\n"
            f"with open_engine({request.param!r}, workers=2) as engine:\n"
            f"    list(engine.run_all(eval, [{task!r}] * 4, alone=eval))\n"
        )
        with (tmp_path / "stderr").open("wb") as stderr:
            return subprocess.Popen([sys.executable, str(script)], start_new_session=True, stderr=stderr)

    return start


@pytest.mark.parametrize("busy", [SLEEP, DEAF], ids=["sleeping", "holding the interpreter"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_caller(start, busy, how, tmp_path):
    with start(write_pid(tmp_path, busy)) as caller:
        worker = wait_for_pid(tmp_path)
        if how == signal.SIGKILL:
            caller.kill()
        else:
            os.killpg(caller.pid, how)  # As the terminal does it.
        assert caller.wait() == -how
    wait_for(lambda: not is_alive(worker))


def test_ctrl_c_while_the_processes_start_is_heard_by_the_caller_alone(start, tmp_path):
    with start(SLEEP) as caller:
        # Itself, the tracker that multiprocessing starts, and what the workers come from.
        wait_for(lambda: num_processes(caller.pid) >= 3)
        os.killpg(caller.pid, signal.SIGINT)
        assert caller.wait() == -signal.SIGINT
    wait_for(lambda: num_processes(caller.pid) == 0)
    assert (tmp_path / "stderr").read_text().count("Traceback") == 1


def test_a_picture_that_kills_its_decoder_is_found_and_rejected(photos, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2800, 2800, 3), np.uint8)
    Image.fromarray(noise).save(photos / "food/heavy.jp2")  # Takes 3 s of a core, all others milliseconds.
    # A limit of 2 s of a core for each process stands in for a decoder that hangs: its process is killed.
    command = [
        sys.executable,
        "-m",
        "shardstream.ingest",
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
    wait_for(lambda: any(folder.glob("*.pid")))
    return int(next(folder.glob("*.pid")).stem)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # So long that it says "never".
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    return state_and_session(pid)[0] not in {"Z", "gone"}


def num_processes(session: int) -> int:
    """Returns how many processes live in a session."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return sum(state_and_session(pid)[1] == session for pid in pids if is_alive(pid))


def state_and_session(pid: int) -> tuple[str, int]:
    """Source: man 5 proc_pid_stat; the name in brackets may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return "gone", 0
    return fields[0], int(fields[3])
