"""When the state of a run is saved, and what is held of it once the run has gone on from there."""

import dataclasses
import gc
import types
from typing import cast

import keras
import pytest
import tensorflow as tf

import shardstream.train.resolve
from shardstream.train.config import TrainConfig
from shardstream.train.distributed.cluster import ALONE
from shardstream.train.distributed.workers import Workers
from shardstream.train.run import train_and_evaluate
from shardstream.train.runs import checkpoint_manager as saving
from shardstream.train.runs.checkpoint import Checkpoint, Checkpoints


class CrashError(Exception):
    """What ends a run in the tests."""


def build_tiny(name, *, image_size, num_classes, seed, synchronized=False):
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            keras.layers.AveragePooling2D(8),
            keras.layers.Flatten(),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.layers.Dense(num_classes, activation="softmax", dtype="float32"),
        ]
    )


@pytest.fixture
def config(striped, tmp_path, monkeypatch) -> TrainConfig:
    """Of two epochs of 12 steps, each of which is saved at its end."""
    monkeypatch.setattr(shardstream.train.resolve, "build_model", build_tiny)
    monkeypatch.setattr(saving, "_MIN_SHARE", 0)
    options = {"epochs": 2, "batch_size": 16, "augmentation": "none", "cache": "none"}
    return TrainConfig(data_dir=striped.data_dir, run=tmp_path / "run", **options)


@pytest.fixture
def saved(monkeypatch) -> list[tuple[int, int]]:
    """The positions of all states that are saved: epoch and step."""
    positions = []
    save = Checkpoints.save

    def note(checkpoints, checkpoint):
        positions.append((checkpoint.position.epoch, checkpoint.position.step))
        save(checkpoints, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", note)
    return positions


class Crash(keras.callbacks.Callback):
    """Ends a run amid its second epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 6):
            raise CrashError

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


@pytest.mark.parametrize("together", [1, 4])
def test_saving_every_so_many_steps_counts_steps(config, saved, together):
    """Not the calls in which several are run, nor those of validation."""
    train_and_evaluate(dataclasses.replace(config, steps_per_execution=together, save_every="8steps"))
    assert saved == [(0, 8), (1, 0), (1, 8), (2, 0)]


def test_steps_are_counted_on_from_where_a_run_was(config, saved):
    config = dataclasses.replace(config, save_every="5steps")
    with pytest.raises(CrashError):
        train_and_evaluate(config, [Crash()])
    train_and_evaluate(config)
    assert saved == [(0, 5), (0, 10), (1, 0), (1, 5), (1, 10), (2, 0)]


class Held(keras.callbacks.Callback):
    """Finds the checkpoints that are in memory while an epoch runs, and ends the run."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.found()
        self.new: list[Checkpoint] = []

    def found(self) -> list[Checkpoint]:
        gc.collect()
        return [found for found in gc.get_objects() if isinstance(found, Checkpoint)]

    def on_epoch_begin(self, epoch, logs=None):
        self.new = [one for one in self.found() if not any(one is other for other in self.before)]
        raise CrashError


def test_the_state_that_a_run_goes_on_from_is_not_held_in_memory(config, monkeypatch):
    config = dataclasses.replace(config, save_every="5steps")
    with pytest.raises(CrashError):
        train_and_evaluate(config, [Crash()])
    managers = []
    restore = saving.CheckpointManager.restore
    monkeypatch.setattr(
        saving.CheckpointManager, "restore", lambda *args: (managers.append(args[0]), restore(*args))
    )
    held = Held()
    with pytest.raises(CrashError):
        train_and_evaluate(config, [held])
    assert held.new == []
    (manager,) = managers
    # Neither is the file that the weights of the best epoch were read from.
    assert all(weights.base is None for weights in manager._models.best_weights)
    assert len(manager._models.best_weights) > 0


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5, 6, 7, 64])
def test_a_default_batch_size_fits_any_number_of_devices(striped, tmp_path, monkeypatch, num_replicas):
    strategy = types.SimpleNamespace(num_replicas_in_sync=num_replicas)
    workers = Workers(ALONE, cast(tf.distribute.Strategy, strategy))
    monkeypatch.setattr(shardstream.train.resolve, "join_workers", lambda **_: workers)
    batch_size = shardstream.train.resolve.prepare(
        TrainConfig(data_dir=striped.data_dir, run=tmp_path)
    ).batch_size
    assert batch_size % num_replicas == 0
    assert 0 < batch_size <= max(16, num_replicas)
