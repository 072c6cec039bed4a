"""The example scripts, as a user starts them, on a small dataset."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shardstream

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Bright and dark images."""
    folder = tmp_path_factory.mktemp("examples")
    for number in range(100):
        pixels = np.random.default_rng(number).integers(0, 100, (16, 16, 3)) + 150 * (number % 2)
        path = folder / "photos" / ("dark", "bright")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    shardstream.build_dataset(folder / "photos", folder / "data", image_size=16)
    return folder / "data"


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"scripts.examples.{name}", *map(str, arguments)]


def output(name: str, *arguments: object) -> str:
    result = subprocess.run(
        command(name, *arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def accuracy(printed: str) -> float:
    return float(re.findall(r"validation accuracy ([\d.]+)", printed)[-1])


def test_fit_goes_on_after_a_kill(data, tmp_path):
    options = (data, "--run", tmp_path / "run", "--batch-size", 16)
    checkpoints = tmp_path / "run/resume/checkpoints"
    with subprocess.Popen(
        command("fit", *options, "--epochs", 100_000),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not any(path.name >= "000002-" for path in checkpoints.glob("*.checkpoint")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    last_epoch = int(max(path.name for path in checkpoints.glob("*.checkpoint"))[:6])
    printed = output("fit", *options, "--epochs", last_epoch + 2)
    steps = shardstream.load_dataset(data).steps_per_epoch(16)
    assert f"starts with step {last_epoch * steps} of {(last_epoch + 2) * steps}" in printed
    assert (tmp_path / "run/model.keras").exists()
    assert accuracy(printed) > 0


def test_custom_loop_trains_on_two_devices(data):
    printed = output("custom_loop", data, "--steps", 120, "--batch-size", 16, "--cpus", 2)
    num_images = shardstream.load_dataset(data).splits["validation"].num_examples
    assert f"of {num_images} images on 2 devices" in printed
    assert accuracy(printed) > 0.9


@pytest.mark.slow
def test_transfer_learns_on_frozen_layers(data, tmp_path):
    # Deferred: Keras takes seconds to import.
    import keras

    inputs = keras.Input((16, 16, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    (tmp_path / "run").mkdir()
    keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(features)).save(
        tmp_path / "run/best.keras"
    )
    printed = output("transfer", tmp_path / "run", data, "--model", tmp_path / "other.keras", "--epochs", 200)
    assert accuracy(printed) > 0.9
    model = keras.saving.load_model(tmp_path / "other.keras")
    assert model.output_shape == (None, 2)  # pyright: ignore
