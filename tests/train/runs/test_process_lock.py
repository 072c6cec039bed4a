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
