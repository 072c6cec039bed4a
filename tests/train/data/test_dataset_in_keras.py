"""What the documents promise of our datasets in `fit` and `evaluate`, and of their order."""

import dataclasses
import json
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardstream.ingest.common.errors import ConfigError
from shardstream.train.data.dataset import Dataset

STEPS = 1100 // 16

# Before the first operation.
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture
def model() -> keras.Model:
    return compiled_model()


def compiled_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_no_batch_has_examples_of_two_epochs(numbered, train_numbers):
    batches = train_numbers(numbered, 3 * STEPS)
    epochs = [[n for batch in batches[i * STEPS : (i + 1) * STEPS] for n in batch] for i in range(3)]
    assert [len(set(epoch)) for epoch in epochs] == [STEPS * 16] * 3
    left_out = [frozenset(range(1100)) - set(epoch) for epoch in epochs]
    assert len(set(left_out)) == 3


@pytest.mark.parametrize("free_bytes", [0, 2**40])
def test_free_memory_does_not_decide_the_order(copied, numbered, train_numbers, monkeypatch, free_bytes):
    monkeypatch.setattr("shardstream.train.data.cache.free_memory_bytes", lambda: free_bytes)
    assert train_numbers(copied, 5, cache="auto") == train_numbers(numbered, 5)


def test_evaluate_is_exact_with_a_short_last_batch(numbered, model):
    losses, hits = per_example(numbered, model)
    assert len(losses) == 101
    found = model.evaluate(numbered.eval_batches("validation", batch_size=16), verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx(hits.mean(), rel=1e-5)


def test_of_padded_batches_weighted_sums_are_exact(numbered, model):
    losses, hits = per_example(numbered, model)
    loss_sum = hit_sum = weight_sum = 0.0
    for images, labels, weights in numbered.eval_batches("validation", batch_size=16, pad_last_batch=True):
        probabilities = model(images, training=False)
        loss_sum += tf.reduce_sum(
            keras.losses.sparse_categorical_crossentropy(labels, probabilities) * weights
        )
        hit_sum += ((probabilities.numpy().argmax(1) == labels.numpy()) * weights.numpy()).sum()
        weight_sum += float(weights.numpy().sum())
    assert weight_sum == 101
    assert float(loss_sum) == pytest.approx(losses.sum(), rel=1e-5)
    assert hit_sum == hits.sum()


def per_example(data: Dataset, model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each example of the validation split, and whether it is predicted correctly."""
    images, labels, _ = (part.numpy() for part in next(iter(data.eval_batches("validation", batch_size=101))))
    probabilities = np.asarray(model(images, training=False))
    return -np.log(probabilities[np.arange(len(labels)), labels]), probabilities.argmax(1) == labels


FIT = """
import json, sys
from pathlib import Path

import tensorflow as tf

from shardstream.train.data.dataset import load_dataset
from tests.train.data.test_dataset_in_keras import compiled_model, drop_while_it_reads

data = load_dataset(Path(sys.argv[1]))
devices = [device.name for device in tf.config.list_logical_devices("CPU")]
strategy = tf.distribute.MirroredStrategy(devices)
if sys.argv[2] == "two":
    for cache in ("none", "memory"):
        drop_while_it_reads(strategy, data.train_batches(16, seed=3, cache=cache))
with strategy.scope() if sys.argv[2] == "two" else tf.device("CPU:0"):
    history = compiled_model().fit(
        data.train_batches(16, seed=3),
        steps_per_epoch=20,
        epochs=2,
        validation_data=data.eval_batches("validation", batch_size=16),
        shuffle=False,
        verbose=0,
    ).history
print(json.dumps([len(devices), history]))
"""


def drop_while_it_reads(strategy: tf.distribute.Strategy, batches: tf.data.Dataset) -> None:
    """Drops iterators that are at work, as `fit` and `evaluate` do: here a batch takes long enough for each to be."""

    @tf.autograph.experimental.do_not_convert
    def slow(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([tf.numpy_function(lambda: time.sleep(0.2) or 0, [], tf.int64)]):
            return tf.identity(images), tf.identity(labels)

    batches = strategy.experimental_distribute_dataset(batches.map(slow))
    for _ in range(3):
        iterator = iter(batches)
        next(iterator)
        del iterator


@pytest.mark.slow
def test_two_replicas_drop_iterators_and_give_the_losses_of_one(numbered):
    one, two = (fit(numbered, replicas) for replicas in ("one", "two"))
    assert two.keys() == one.keys()
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-4), name


def fit(data: Dataset, replicas: str) -> dict[str, list[float]]:
    # In a process of its own: a crash in TensorFlow would end all tests.
    command = [sys.executable, "-c", FIT, str(data.info.data_dir), replicas]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    num_devices, history = json.loads(result.stdout.splitlines()[-1])
    assert num_devices == 2
    return history


def test_the_size_of_images_that_differ_has_to_be_given(numbered):
    image = dataclasses.replace(numbered.info.image, size=None, encoding="png")
    judging = dataclasses.replace(numbered.info.judging, image=image)
    data = Dataset(dataclasses.replace(numbered.info, judging=judging))
    assert data.image_size is None
    for make in (lambda: data.train_batches(16, seed=3), lambda: data.eval_batches("train", batch_size=16)):
        with pytest.raises(ConfigError, match="images of different sizes; image_size has to be given"):
            make()
    images, _ = data.train_batches(16, seed=3, image_size=8).element_spec
    assert images.shape == [16, 8, 8, 3]
