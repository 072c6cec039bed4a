import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading

import pytest

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.runs.process_lock import Process, locked_by_this_process, locking_process

HOLD = """
import sys
from pathlib import Path
from shardstream.train.runs.process_lock import locked_by_this_process
with locked_by_this_process(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_however_it_ends(tmp_path):
    path = tmp_path / ".lock"
    assert locking_process(path) is None
    for number in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            assert locking_process(path) == Process(process.pid, platform.node())
            sentence = (
                f"{tmp_path}: process {process.pid} on {platform.node()} is at work there; wait for it or"
            )
            with pytest.raises(ConfigError, match=re.escape(sentence)), locked_by_this_process(path):
                pass
            process.send_signal(number)
        assert locking_process(path) is None
    with locked_by_this_process(path):
        assert locking_process(path) == Process(os.getpid(), platform.node())


def test_who_looks_keeps_nobody_out_and_waits_for_the_note(tmp_path):
    path = tmp_path / ".lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # Somebody looks, for a moment.
        timer = threading.Timer(0.02, lambda: fcntl.flock(file, fcntl.LOCK_UN))
        timer.start()
        with locked_by_this_process(path):
            timer.join()
            path.write_text("")  # Locked, and not noted yet.
            note = json.dumps({"pid": 7, "host": "b"})
            timer = threading.Timer(0.02, lambda: path.write_text(note))
            timer.start()
            assert locking_process(path) == Process(7, "b")
            timer.join()


def test_a_file_system_without_locks_is_trained_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / ".lock"
    with locked_by_this_process(path):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()
    assert f"{path}: this file system has no locks; start no second job for the same folder" in caplog.text
    assert locking_process(path) is None


def test_a_disk_that_fails_is_no_file_system_without_locks(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked_by_this_process(tmp_path / ".lock"):
        pass


def test_a_lock_file_that_its_holder_removes_is_made_anew(tmp_path):
    """As a run does that ends before it has written anything: who waited holds the file that is there now."""
    path = tmp_path / "run" / ".lock"
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def leave() -> None:
            path.unlink()
            path.parent.rmdir()
            fcntl.flock(file, fcntl.LOCK_UN)

        timer = threading.Timer(0.05, leave)
        timer.start()
        with locked_by_this_process(path):
            timer.join()
            assert locking_process(path) == Process(os.getpid(), platform.node())
