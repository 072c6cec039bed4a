"""Runs that are killed and started again, in real processes, beside runs that never were.

Every process has two logical devices and deterministic operations (without them two runs that are never
killed differ in their last bits too) and a model that has all kinds of state and little to trace.
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.train.runs.run_folder import RunFolder

PROGRAM = """
import json, os, sys
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras

import shardstream.train.resolve
from shardstream.train.__main__ import main


def build_model(name, *, image_size, num_classes, seed, synchronized=False):
    return keras.Sequential([
        keras.Input((image_size, image_size, 3)),
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.5, synchronized=synchronized),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.1, seed=seed),
        keras.layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities"),
    ])


if not os.path.exists(sys.argv[2]):
    build_model("", image_size=16, num_classes=2, seed=0).save(sys.argv[2])
shardstream.train.resolve.build_model = build_model
sys.exit(max(main(argv) for argv in json.loads(sys.argv[1])))
"""
pytestmark = pytest.mark.slow

EPOCHS = 10
WEIGHTS = "earlier.keras"
STEPS = 6  # 192 pictures in batches of 32.
# The first is stopped once while its last layer is trained alone, and once later.
OPTIONS = {
    "memory": "--precision float32 --cache memory --strategy default --save-every 1steps --head-epochs 4 "
    "--fine-tune-learning-rate 0.001 --class-weight balanced",
    "stream": "--precision mixed_float16 --cache none --strategy default --save-every 4steps --mixup 0.2 --cutmix 0.5",
    "disk": "--precision float32 --cache disk --strategy default --save-every 1steps",
    "two": "--precision mixed_bfloat16 --cache memory --strategy mirrored --save-every 4steps "
    "--steps-per-execution 4 --clip-norm 1 --mixup 0.2 --cutmix 0.5",
}


class Runs:
    """Starts, stops and compares runs on one dataset."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder
        self._generator = random.Random(5)

    def argv(self, name: str, where: str) -> list[str]:
        options = ["--model", "small", *OPTIONS[name].split(), "--deterministic"]
        if name == "memory":
            options += ["--weights", str(self.folder / WEIGHTS)]
        folders = ["--run", str(self.run(name, where)), "--cache-dir", str(self.folder / where / "cache")]
        return [str(self.data), *folders, "--epochs", str(EPOCHS), *options]

    def run(self, name: str, where: str = "killed") -> Path:
        return self.folder / where / name

    def start(self, *argvs: list[str]) -> subprocess.Popen[str]:
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", PROGRAM, json.dumps(argvs), str(self.folder / WEIGHTS)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, where: str) -> str:
        process = self.start(*(self.argv(name, where) for name in OPTIONS))
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-4000:]
        return errors

    def stop(self, name: str, number: int, *, epoch: int, step: int = 0) -> tuple[int, str]:
        """Sends a signal soon after the run has saved a state of that position or a later one."""
        process = self.start(self.argv(name, "killed"))
        furthest = f"{epoch:06d}-{step:09d}"
        while not any(p.stem >= furthest for p in RunFolder(self.run(name)).checkpoints.glob("*.checkpoint")):
            assert process.poll() is None, process.communicate()[1][-4000:]
            time.sleep(0.003)
        time.sleep(self._generator.uniform(0, 0.03))
        process.send_signal(number)
        _, errors = process.communicate()
        return process.returncode, errors


@pytest.fixture(scope="module")
def runs(striped, tmp_path_factory):
    runs = Runs(striped.data_dir, tmp_path_factory.mktemp("runs"))
    runs.finish("whole")
    return runs


@pytest.fixture(scope="module")
def stops(runs):
    """Stops each run, one of them twice, and lets them come to their ends in one process."""
    stops = {"memory": [runs.stop("memory", signal.SIGKILL, epoch=2, step=3)]}
    newest = max(RunFolder(runs.run("memory")).checkpoints.glob("*.checkpoint"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    stops["memory"].append(runs.stop("memory", signal.SIGTERM, epoch=5))
    stops["stream"] = [runs.stop("stream", signal.SIGKILL, epoch=3)]
    stops["disk"] = [runs.stop("disk", signal.SIGHUP, epoch=0, step=2)]
    stops["two"] = [runs.stop("two", signal.SIGINT, epoch=2, step=2)]
    stops["end"] = [(0, runs.finish("killed"))]
    return stops


def weights(run: Path, name: str) -> list[np.ndarray]:
    return keras.saving.load_model(run / name).get_weights()


def history(run: Path) -> list[dict[str, str]]:
    with RunFolder(run).history.open() as file:
        rows = list(csv.DictReader(file))
    timed = ("images_per_sec", "images_per_sec_per_core", "input_wait", "train_secs")
    return [{name: value for name, value in row.items() if name not in timed} for row in rows]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_that_was_killed_ends_as_one_that_was_not(runs, stops, name):
    whole, killed = runs.run(name, "whole"), runs.run(name)
    for file in ("best.keras", "last.keras"):
        for mine, theirs in zip(weights(killed, file), weights(whole, file), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert history(killed) == history(whole)
    assert [row["epoch"] for row in history(killed)] == [str(i + 1) for i in range(EPOCHS)]
    assert sorted(path.name for path in killed.iterdir()) == sorted(path.name for path in whole.iterdir())


@pytest.mark.parametrize("name", OPTIONS)
def test_tensorboard_has_each_epoch_once(runs, stops, name):
    for folder in ("train", "validation"):
        events = [
            tf.compat.v1.Event.FromString(record.numpy())
            for path in (runs.run(name) / "logs" / folder).iterdir()
            for record in tf.data.TFRecordDataset(str(path))
        ]
        points = [
            event.step for event in events for value in event.summary.value if value.tag == "epoch_loss"
        ]
        assert points == list(range(EPOCHS))


def test_exit_codes_and_one_sentence_for_those_who_ask_to_stop(stops):
    (killed, _), (terminated, term_errors) = stops["memory"]
    ((interrupted, int_errors),) = stops["two"]
    ((hung_up, hup_errors),) = stops["disk"]
    assert (killed, terminated, interrupted, hung_up) == (-signal.SIGKILL, 143, 130, 129)
    for errors, sender in ((term_errors, "SIGTERM"), (int_errors, "Ctrl-C"), (hup_errors, "SIGHUP")):
        last = errors.splitlines()[-1]
        assert last.startswith(f"shardstream-train: stopped by {sender} at ")
        assert last.endswith("; the same command goes on from there")
        assert "Traceback" not in errors


def test_a_damaged_state_is_named_and_the_one_before_is_used(stops):
    _, errors = stops["memory"][1]
    assert "checkpoint: not as it was written; the one before, 00000" in errors
    assert "goes on from " in errors


def test_it_is_said_from_where_a_run_goes_on(stops):
    ((_, errors),) = stops["end"]
    assert errors.count("goes on from ") == len(OPTIONS)
