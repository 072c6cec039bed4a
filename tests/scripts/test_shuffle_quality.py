import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/shuffle_quality.py"


def test_stream_and_caches_mix_as_a_true_permutation_does():
    done = subprocess.run([sys.executable, str(SCRIPT), "--counts", "40000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[1].split(";")[0] for row in rows] == ["none", "memory, disk, device", "(a true permutation)"]
    for _, _, moved, alike in rows:
        assert float(moved) == pytest.approx(1 / 3, abs=0.01)
        assert float(alike) == pytest.approx(0, abs=0.02)


def test_files_in_order_are_not_mixed(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from shuffle_quality import displacement, neighbour_correlation

    order = np.arange(1000)
    assert displacement(order) == 0
    assert neighbour_correlation(order) == pytest.approx(1)
