import json
import subprocess
import sys

import pytest

from scripts.faults import train as fault_train


@pytest.mark.slow
def test_a_small_campaign_finds_nothing_wrong(tmp_path):
    """A kill and a signal: disturbed or not, the same bits."""
    command = [
        sys.executable,
        "-m",
        fault_train.__name__,
        "--kills",
        "1",
        "--terms",
        "1",
        "--kinds",
        "cache memory",
    ]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    *tables, figures = done.stdout.splitlines()
    found = json.loads(figures)
    assert found["failures"] == []
    assert sum(found["kills"]["cache memory"].values()) >= 1
    assert sum(found["terms"]["cache memory"].values()) >= 1
    assert found["slowest_to_leave_secs"] > 0
    assert [line for line in tables if line.startswith("| cache memory |")]
    assert list(tmp_path.iterdir()) == []
