import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from shardstream.train.distributed.preemption import StopRequest

LOOP = """
import sys, time
from shardstream.train.distributed.preemption import StopRequest
with StopRequest(float(sys.argv[1])) as stop:
    print("begun", flush=True)
    while True:
        time.sleep(0.01)
        if stop.received:
            print("noted", flush=True)
            time.sleep(600)
"""


def start(grace_secs: float, program: str = LOOP, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*launcher, sys.executable, "-c", program, str(grace_secs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    ("number", "sender", "exit_code"),
    [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130), (signal.SIGHUP, "SIGHUP", 129)],
)
def test_what_does_not_stop_within_the_grace_period_is_ended(number, sender, exit_code):
    with start(0.05) as process:
        process.send_signal(number)
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (exit_code, "noted\n")
    assert errors == f"shardstream-train: stopped by {sender}, 0.05 s after it\n"


def test_what_is_kept_is_said_by_who_knows():
    program = LOOP.replace("    while", "    stop.what_is_kept = lambda: 'nothing is'\n    while")
    with start(0.05, program) as process:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert errors == "shardstream-train: stopped by SIGTERM, 0.05 s after it; nothing is\n"


def test_what_nohup_ignores_stays_ignored():
    with start(0.05, launcher=["nohup"]) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "shardstream-train: stopped by SIGTERM, 0.05 s after it"


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not():
    with start(600) as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "noted\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def test_a_signal_is_noted_and_handlers_are_put_back():
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest(600) as stop:
        assert stop.received is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_another_thread_leaves_signals_alone():
    found = []

    def look() -> None:
        with StopRequest(600):
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


# A lock of C that is taken twice: no signal ends the wait, and no handler of Python runs meanwhile.
STUCK = """
import ctypes
from shardstream.train.distributed.preemption import StopRequest
lock, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with StopRequest(0.05):
    print("begun", flush=True)
    for _ in range(2):
        c.pthread_mutex_lock(lock)
"""


def test_the_grace_period_holds_while_python_hears_nothing():
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 143
    assert errors == "shardstream-train: stopped by SIGTERM, 0.05 s after it\n"


@pytest.mark.parametrize("grace_secs", [1e12, float("inf")])
def test_a_grace_period_longer_than_any_clock_has_no_end(grace_secs, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    with StopRequest(grace_secs) as stop:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.1)  # The watching thread begins to wait.
        assert stop.received == signal.SIGTERM
    assert failed == []
