"""Our datasets and ResumeCallback in MultiWorkerMirroredStrategy: a loop of a user's own in two processes."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from scripts.faults import loopback
from shardstream.train.data.dataset import Dataset

if reason := loopback.reason_it_cannot():
    pytest.skip(f"two hosts are tried in a network of their own: {reason}", allow_module_level=True)
pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys, time
from pathlib import Path

options = json.loads(sys.argv[1])
rank, folder = options["rank"], Path(options["folder"])
cluster = {"worker": ["127.0.0.1:2222", "127.0.0.1:2223"]}
os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})

import keras, numpy as np, tensorflow as tf
import shardstream

kinds = tf.distribute.experimental.CommunicationImplementation
communication = tf.distribute.experimental.CommunicationOptions(implementation=kinds.RING)
strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=communication)
data = shardstream.load_dataset(options["data"])


def numbers(batch):
    pixels = np.asarray(strategy.experimental_local_results(batch[0])[0])[:, 0, 0].astype(int)
    return (pixels[:, 0] * 256 + pixels[:, 1]).tolist()


def own_part(context):
    shard = (context.input_pipeline_id, context.num_input_pipelines)
    batches = data.train_batches(16, seed=7, shard=shard)
    return batches.rebatch(context.get_per_replica_batch_size(16), drop_remainder=True)


def first(dataset, count):
    return [numbers(batch) for batch, _ in zip(dataset, range(count))]


if options["look"]:
    validation = data.eval_batches("validation", batch_size=16, pad_last_batch=True)
    seen = {
        "divided": first(strategy.experimental_distribute_dataset(data.train_batches(16, seed=7)), 6),
        "own part": first(strategy.distribute_datasets_from_function(own_part), 6),
        "evaluated": first(strategy.experimental_distribute_dataset(validation), 9),
    }
    (folder / f"seen {rank}.json").write_text(json.dumps(seen))


def train(name):
    keras.utils.set_random_seed(options["seed"])
    with strategy.scope():
        model = keras.Sequential([
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip(),
            keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(3, activation="softmax"),
        ])
        model.compile(keras.optimizers.Adam(0.01))
    resume = shardstream.ResumeCallback(folder / name, data, batch_size=16, seed=7, save_every=3)
    print("starts", name, resume.start_step, flush=True)
    steps_per_epoch, start_step = data.steps_per_epoch(16), resume.start_step
    callbacks = keras.callbacks.CallbackList([resume], model=model)
    callbacks.on_train_begin()

    def train_on_replica(images, labels):
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            loss = tf.reduce_sum(keras.losses.sparse_categorical_crossentropy(labels, probabilities)) / 16
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def train_step(batch):
        strategy.run(train_on_replica, batch)

    batches = iter(strategy.experimental_distribute_dataset(resume.batches()))
    for epoch in range(resume.initial_epoch, 3):
        callbacks.on_epoch_begin(epoch)
        for batch in range(steps_per_epoch - start_step % steps_per_epoch):
            callbacks.on_train_batch_begin(batch)
            train_step(next(batches))
            if options["hold"] and name == "cut" and (epoch, batch) == (1, 1):
                (folder / f"holds {rank}").touch()
                time.sleep(600)
            callbacks.on_train_batch_end(batch)
        callbacks.on_epoch_end(epoch)
        start_step = 0
    callbacks.on_train_end()
    # Batch normalization has moving averages of its own on each host, of which the chief's are kept.
    variables = model.variables if rank == 0 else model.trainable_variables
    np.savez(folder / f"{name} {rank}.npz", *[np.asarray(v.value.numpy()) for v in variables])


for name in options["names"]:
    train(name)
"""
STEPS = 70 // 16


class Hosts:
    """Runs of two workers on one dataset."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data = data
        self.folder = folder

    def start(self, *names: str, seed: int, hold: bool = False, look: bool = False):
        options = {"data": str(self.data), "folder": str(self.folder), "names": names, "seed": seed}
        options |= {"hold": hold, "look": look}
        commands = [[sys.executable, "-c", PROGRAM, json.dumps({**options, "rank": rank})] for rank in (0, 1)]
        return loopback.side_by_side(commands, self.folder / "logs")

    def seen(self, rank: int) -> dict[str, list[list[int]]]:
        return json.loads((self.folder / f"seen {rank}.json").read_text())

    def weights(self, name: str, rank: int) -> list[np.ndarray]:
        with np.load(self.folder / f"{name} {rank}.npz") as file:
            return [file[key] for key in file.files]


@pytest.fixture(scope="module")
def data(make_dataset) -> Dataset:
    return Dataset(make_dataset())


@pytest.fixture(scope="module")
def hosts(data, tmp_path_factory):
    hosts = Hosts(data.info.data_dir, tmp_path_factory.mktemp("hosts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_DETERMINISTIC_OPS", "1")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        with hosts.start("whole", "cut", seed=1, hold=True, look=True) as group:
            # Both are within the second epoch.
            while not all((hosts.folder / f"holds {rank}").exists() for rank in (0, 1)):
                assert group.is_running(), group.logs()
                time.sleep(0.01)
            for pid in group.pids:
                os.kill(pid, signal.SIGKILL)
            group.wait()
        with hosts.start("cut", seed=2) as group:
            assert group.wait() == [0, 0], group.logs()
            hosts.logs = group.logs()  # pyright: ignore[reportAttributeAccessIssue]
    return hosts


@pytest.mark.parametrize("way", ["divided", "own part"])
def test_each_host_gets_its_part_of_the_global_batch(hosts, data, way):
    whole = [
        (images[:, 0, 0, 0].numpy().astype(int) * 256 + images[:, 0, 0, 1].numpy()).tolist()
        for images, _ in data.train_batches(16, seed=7).take(6)
    ]
    parts = [hosts.seen(rank)[way] for rank in (0, 1)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_hosts_evaluate_each_example_once(hosts):
    seen = [number for rank in (0, 1) for batch in hosts.seen(rank)["evaluated"] for number in batch]
    padding = 2 * 16 - 21  # Black images.
    assert sorted(seen) == sorted([*range(21), *[0] * padding])


def test_two_hosts_that_were_killed_end_with_the_same_bits(hosts):
    for rank in (0, 1):
        assert f"starts cut {STEPS}" in hosts.logs[rank]
        for expected, found in zip(hosts.weights("whole", rank), hosts.weights("cut", rank), strict=True):
            np.testing.assert_array_equal(found, expected)
