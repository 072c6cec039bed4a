import os
import platform
import re
import signal
import subprocess
import sys

import pytest

from ingest.errors import ConfigError
from train.process_lock import Process, locked_by_this_process, locking_process

HOLD = """
import sys
from pathlib import Path
from train.process_lock import locked_by_this_process
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
