import subprocess
import sys

import numpy as np
import pytest

from scripts.bench.shuffle_quality import batch_correlation, displacement


def test_an_epoch_mixes_as_a_true_permutation_does():
    command = [sys.executable, "-m", "scripts.bench.shuffle_quality", "--counts", "40000"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["each epoch", "(a true permutation)"]
    for _, _, moved, alike in rows:
        assert float(moved) == pytest.approx(1 / 3, abs=0.01)
        assert abs(float(alike)) < 0.35  # Batches of one window are of the same runs of records.


def test_files_in_order_are_not_mixed():
    order = np.arange(1000)
    assert displacement(order) == 0
    assert batch_correlation(order) == pytest.approx(1)
