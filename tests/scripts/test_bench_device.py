import importlib.util
import json
import os
import subprocess
import sys

import pytest

from scripts.bench import device
from scripts.faults.train import draw_dataset

JAX = importlib.util.find_spec("jax")


def test_the_device_waits_for_what_training_is_slower_than_its_step():
    rates = {"model": "small", "precision": "float32", "cache": "none", "input_rate": 900.0}
    assert device.Row(**rates, step_rate=1000.0, rate=750.0).device_wait == 0.25
    assert device.Row(**rates, step_rate=1000.0, rate=1010.0).device_wait == 0


def test_batches_are_sent_ahead_in_order():
    sent = []
    ahead = device.sent_ahead(sent.append(number) or number for number in range(5))
    assert next(ahead) == 0
    assert sent == [0, 1]
    assert list(ahead) == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    ["tensorflow", pytest.param("jax", marks=pytest.mark.skipif(not JAX, reason="JAX is not installed"))],
)
def test_it_runs_as_it_is(tmp_path, backend):
    data, caches = draw_dataset(tmp_path), tmp_path / "caches"
    caches.mkdir()
    command = [sys.executable, "-m", device.__name__, str(data), "--models", "small"]
    options = ["--batch-size", "16", "--secs", "0.05", "--cache-dir", str(caches)]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": backend}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *table, figures = done.stdout.splitlines()
    found = json.loads(figures)
    assert [row["cache"] for row in found["rows"]] == ["none", "memory", "disk"]
    assert all(row[name] > 0 for row in found["rows"] for name in ("step_rate", "input_rate", "rate"))
    assert len(table) == 2 + 3
    assert list(caches.iterdir()) == []
