"""`model.fit` with ResumeCallback, killed and resumed in real processes, ends with the weights of one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys, time
from pathlib import Path

options = json.loads(sys.argv[1])
import keras, numpy as np, tensorflow as tf
import shardstream

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = shardstream.load_dataset(options["data"])


def build_model():
    model = keras.Sequential([
        keras.layers.Rescaling(1 / 255),
        keras.layers.RandomFlip(),
        keras.layers.RandomBrightness(0.2, value_range=(0, 1)),
        keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(3, activation="softmax"),
    ])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Hold(keras.callbacks.Callback):
    # Says that a step is over, and waits there to be killed.
    step = 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if options.get("hold") == [self.name, self.step]:
            print("holds", flush=True)
            while not Path(options["go_on"]).exists():
                time.sleep(0.01)


for name, seed in options["names"].items():
    keras.utils.set_random_seed(seed)
    strategy = mirrored if "mirrored" in name else tf.distribute.get_strategy()
    hold, epochs = Hold(), []
    hold.name = name
    with strategy.scope():
        model = build_model()
        resume = shardstream.ResumeCallback(
            Path(options["folder"]) / name, data, batch_size=16, seed=7, save_every=5
        )
        hold_first = [hold, keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.8)]
        print("starts", name, resume.start_step, flush=True)
        model.fit(
            resume.batches(), initial_epoch=resume.initial_epoch, steps_per_epoch=data.steps_per_epoch(16),
            validation_data=data.eval_batches("validation", batch_size=16), epochs=3, verbose=0,
            callbacks=[*hold_first, resume],
        )
        print("steps", name, hold.step, flush=True)
    variables = [*model.variables, *model.optimizer.variables]
    np.savez(Path(options["folder"]) / f"{name}.npz", *[np.asarray(v.value.numpy()) for v in variables])
"""
STEPS = 12


class Runs:
    """Trainings of one folder, in processes of their own."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder

    def run(
        self,
        names: dict[str, int],
        *,
        hold: int | None = None,
        number: signal.Signals | None = None,
    ) -> tuple[int, list[str], str]:
        """Trains with these seeds of Keras; the last is sent the signal after its step `hold` in this process."""
        go_on = self.folder / "go_on"
        go_on.unlink(missing_ok=True)
        options = {"data": str(self.data), "folder": str(self.folder), "names": names}
        options |= {"hold": [list(names)[-1], hold], "go_on": str(go_on)}
        command = [sys.executable, "-c", PROGRAM, json.dumps(options)]
        with (self.folder / "stderr").open("w") as errors:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "TF_DETERMINISTIC_OPS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            lines = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                if lines[-1] == "holds" and number is not None:
                    process.send_signal(number)
                    go_on.touch()
            process.stdout.close()
            code = process.wait()
        return code, lines, (self.folder / "stderr").read_text()

    def variables(self, name: str) -> list[np.ndarray]:
        with np.load(self.folder / f"{name}.npz") as file:
            return [file[key] for key in file.files]


@pytest.fixture(scope="module")
def runs(striped, tmp_path_factory):
    runs = Runs(striped.data_dir, tmp_path_factory.mktemp("runs"))
    # Other seeds in the resumed processes: what they go on with is from the folder alone.
    runs.parts = [  # pyright: ignore[reportAttributeAccessIssue]
        runs.run({"whole": 1, "mirrored": 1, "cut": 1}, hold=STEPS + 8, number=signal.SIGKILL),
        runs.run({"cut": 2}, hold=4, number=signal.SIGTERM),
        runs.run({"cut": 3, "cut mirrored": 1}, hold=STEPS + 8, number=signal.SIGKILL),
        runs.run({"cut mirrored": 4}),
    ]
    return runs


def test_killed_within_an_epoch_it_goes_on_from_the_last_checkpoint(runs):
    code, lines, _ = runs.parts[0]
    assert (code, lines[-1]) == (-signal.SIGKILL, "holds")
    # Killed after step 8 of the second epoch; steps 5 and 10 of each epoch's 12 are saved.
    assert runs.parts[1][1][0] == f"starts cut {STEPS + 5}"


def test_on_sigterm_it_saves_and_exits(runs):
    code, _, errors = runs.parts[1]
    assert code == 143
    assert "stopped by SIGTERM at step 9 of epoch 2; the same script goes on from there" in errors
    # 3 steps of the cut epoch and 12 of the third.
    assert runs.parts[2][1][:2] == [f"starts cut {STEPS + 9}", f"steps cut {STEPS - 9 + STEPS}"]


@pytest.mark.parametrize(("name", "cut"), [("whole", "cut"), ("mirrored", "cut mirrored")])
def test_a_training_that_was_cut_ends_with_the_same_bits(runs, name, cut):
    assert [part[0] for part in runs.parts] == [-signal.SIGKILL, 143, -signal.SIGKILL, 0], runs.parts
    whole = runs.variables(name)
    for expected, found in zip(whole, runs.variables(cut), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(whole) > 12  # The states of random layers and the optimizer are among them.
