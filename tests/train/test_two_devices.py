"""MirroredStrategy on two logical CPU devices against one device, in one process that has both."""

import json
import subprocess
import sys

import numpy as np
import pytest

# Logical devices have to be made before TensorFlow starts, so this runs in a process of its own, once.
PROGRAM = """
import json, shutil, sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from shardstream.ingest.common.errors import ConfigError, DatasetError
from shardstream.ingest.dataset.metadata import DatasetInfo
from shardstream.train.models.augmentation import make_augmentation
from shardstream.train.data.dataset import Dataset
from shardstream.train.config import TrainConfig
from shardstream.train.runs.saved_model import load_model
from shardstream.train.engine.loop import Loop
from shardstream.train.models.phases import compile_phase
from shardstream.train.run import train_and_evaluate
from shardstream.train.resolve import make_model, prepare
from shardstream.train.distributed.strategy import make_strategy, precision_scope, set_seed
from shardstream.train.engine.trainer import Trainer
from shardstream.train.engine.training_data import make_training_data

info, runs = DatasetInfo.load(Path(sys.argv[1])), Path(sys.argv[2])


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.figures = []

    def on_train_batch_end(self, batch, logs=None):
        self.figures.append(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self.figures += [logs[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]


RECIPE = {"class_weights": (0.5, 1.0, 2.0), "clip_norm": 0.05}


def train(strategy, tier, policy="float32", synchronized=True, together=1, **options):
    set_seed(0)
    with strategy.scope(), precision_scope(policy):
        model = keras.Sequential([
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.5, synchronized=synchronized),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", dtype="float32"),
        ])
        phases = [compile_phase(model, keras.optimizers.AdamW(0.01, weight_decay=0.1))]
    steps, recorder = Trainer(model, strategy, phases=phases, label_smoothing=0.1, **options), Recorder()
    data = make_training_data(
        Dataset(info), batch_size=20, seed=1, cache=tier, cache_dir=runs / "cache"
    )
    # 192 pictures make 9 steps of 20 and leave 12 over, 50 are 2 steps and a half: the last is padded.
    Loop(steps, data, epochs=2, callbacks=[recorder], steps_per_execution=together).run()
    if policy == "float32":
        result.setdefault("iterations", []).append(int(keras.ops.convert_to_numpy(model.optimizer.iterations)))
    return recorder.figures + [float(np.sum(np.abs(weights))) for weights in model.get_weights()]


def augment(strategy, num_steps, states=None):
    # What becomes of the same pictures on each replica, step by step, and the states behind the last step.
    options = {"model": "small", "image_size": 16, "mixup": 0.5, "cutmix": 0.5, "seed": 123}
    with strategy.scope():
        augmentation = make_augmentation("randaugment", **options)
    for variable, value in zip(augmentation.variables(), states or []):
        variable.assign(value)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    step = tf.function(lambda: strategy.run(lambda: augmentation(tf.constant(images), tf.one_hot(range(8), 8))))
    results = [
        [[float(np.sum(part)) for part in strategy.experimental_local_results(parts)] for parts in step()]
        for _ in range(num_steps)
    ]
    return results, [np.asarray(variable).tolist() for variable in augmentation.variables()]


one, two = tf.distribute.get_strategy(), make_strategy("mirrored")
result = {"replicas": [one.num_replicas_in_sync, two.num_replicas_in_sync]}
result["one"] = train(one, "none")
result["two"] = {tier: train(two, tier) for tier in ("none", "memory", "disk")}
result["one, memory"] = train(one, "memory")
result["one, recipe"], result["two, recipe"] = (train(s, "memory", together=4, **RECIPE) for s in (one, two))
result["not synchronized"] = train(two, "none", synchronized=False)
result["float16"] = train(two, "none", policy="mixed_float16")

result["augmented"] = {"one": augment(one, 4), "two": augment(two, 4)}
first, states = augment(two, 2)
result["augmented"]["resumed"] = [first + augment(two, 2, states)[0], augment(two, 2, states)[1]]

config = TrainConfig(data_dir=info.data_dir, run=runs / "a", strategy="mirrored", epochs=1)
result["val_loss"] = train_and_evaluate(config).val_loss
model, _ = load_model(runs / "a")
images, labels, _ = next(Dataset(info).eval_batches("validation", batch_size=50).as_numpy_iterator())
probabilities = model.predict(images, verbose=0)
result["val_loss of the file"] = float(-np.log(probabilities[np.arange(50), labels]).mean())
setup = prepare(config)
result["synchronized"] = [
    layer.synchronized
    for layer in make_model(setup)[0].model.layers
    if isinstance(layer, keras.layers.BatchNormalization)
]
try:
    train_and_evaluate(TrainConfig(data_dir=info.data_dir, run=runs / "b", strategy="mirrored", batch_size=31))
except ConfigError as error:
    result["uneven"] = str(error)
shutil.copytree(info.data_dir, runs / "data")
shard = runs / "data" / info.split("train").shards[1].filename
content = bytearray(shard.read_bytes())
content[len(content) // 2] ^= 1
shard.write_bytes(content)
info = DatasetInfo.load(runs / "data")
try:
    train(two, "none")
except DatasetError as error:
    result["damage"] = str(error)
print(json.dumps(result))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(striped, tmp_path_factory):
    argv = [sys.executable, "-c", PROGRAM, str(striped.data_dir), str(tmp_path_factory.mktemp("runs"))]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_there_are_two_replicas(result):
    assert result["replicas"] == [1, 2]


def test_two_devices_give_the_losses_of_one(result):
    """Every step, every epoch, validation with its uneven last batch, and the weights in the end."""
    assert len(result["one"]) == 2 * (9 + 4) + 8
    assert result["two"]["none"] == pytest.approx(result["one"], rel=1e-5)
    for tier in ("memory", "disk"):
        assert result["two"][tier] == pytest.approx(result["one, memory"], rel=1e-5)


def test_the_best_epoch_is_the_same(result):
    val_losses = {
        name: [figures[11], figures[24]]
        for name, figures in (("one", result["one"]), ("two", result["two"]["none"]))
    }
    assert np.argmin(val_losses["one"]) == np.argmin(val_losses["two"])


def test_no_step_is_run_that_is_not_whole(result):
    """Keras's `fit` runs a partial one more in each epoch where nobody told it how many there are."""
    assert set(result["iterations"]) == {2 * 9}


def test_a_run_on_several_devices_normalises_over_all_of_them(result):
    assert len(result["synchronized"]) > 1
    assert all(result["synchronized"])


def test_class_weights_clipping_and_several_steps_in_a_call_too(result):
    assert len(result["one, recipe"]) == 2 * (3 + 4) + 8
    assert result["two, recipe"] == pytest.approx(result["one, recipe"], rel=1e-5)
    # And they do something.
    assert result["one, recipe"][-8:] != pytest.approx(result["one, memory"][-8:], rel=1e-2)


def test_the_comparison_can_fail(result):
    """Batch normalization that each replica does for itself gives other numbers."""
    assert result["not synchronized"] != pytest.approx(result["one"], rel=1e-5)


def test_half_precision_with_loss_scaling_is_close(result):
    figures = 9 + 4
    assert result["float16"][:figures] == pytest.approx(result["one"][:figures], rel=0.05)


def test_each_replica_augments_in_its_own_way(result):
    """The first as one device does; what the others do depends on nothing but seed, step and number."""
    found = result["augmented"]
    (one, _), (two, states) = found["one"], found["two"]
    for step in range(4):
        for part in range(2):  # Pictures and targets; each of the eight targets sums up to 1.
            assert two[step][part][0] == one[step][part][0]
        assert two[step][0][1] != pytest.approx(two[step][0][0], rel=1e-6)
    assert found["one"][1] == states
    assert found["resumed"] == [two, states]


def test_a_whole_run_saves_a_model_that_plain_keras_predicts_with(result):
    assert result["val_loss of the file"] == pytest.approx(result["val_loss"], rel=1e-4)


def test_a_batch_that_cannot_be_split_is_refused(result):
    assert result["uneven"] == (
        "batch_size 31 cannot be split evenly over 2 devices; choose for example --batch-size 30"
    )


def test_damage_is_named_as_on_one_device(result):
    assert "photos-train.tfrecord-00001-of-00003: record 32 " in result["damage"]
