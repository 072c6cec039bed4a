"""Work that goes on when the processes that do it die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ingest.engine import local_executor, run_all, run_alone

DEADLY = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_that_dies_costs_no_other_task(workers):
    # eval is a function that every process knows: a task is what it is to do.
    tasks = [DEADLY if number in {5, 20} else str(number) for number in range(40)]
    alone = []

    def judge_alone(task):
        alone.append(task)
        return "dead" if task == DEADLY else eval(task)

    results = list(run_all(eval, tasks, workers=workers, alone=judge_alone))
    assert sorted(map(str, results)) == sorted("dead" if task == DEADLY else task for task in tasks)
    assert alone.count(DEADLY) == 2
    assert len(alone) <= 2 * (2 * workers + 1)  # Only what was under way.


def test_run_alone_says_that_the_process_died():
    assert run_alone(eval, "6 * 7") == 42
    with pytest.raises(BrokenExecutor):
        run_alone(eval, DEADLY)


def test_an_error_of_a_task_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(run_all(eval, ["1", "1 / 0"], workers=1, alone=eval))


def test_leaving_early_waits_for_nobody():
    with pytest.raises(KeyboardInterrupt), local_executor(2) as executor:
        future = executor.submit(signal.pause)  # Until a signal comes, which is never.
        while not future.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    with pytest.raises(BrokenExecutor):
        future.result()


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


def test_workers_leave_ctrl_c_to_their_parent():
    with local_executor(1) as executor:
        worker = executor.submit(os.getpid).result()
        os.kill(worker, signal.SIGINT)
        assert executor.submit(os.getpid).result() == worker
